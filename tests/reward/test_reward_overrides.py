"""The decision layer around the model: gate, latch, episodes, a fixed rate, and overrides that show."""

import pytest

from gripwire import bus
from gripwire.bus import Publisher
from gripwire.errors import UserError
from gripwire.messages import JOINTS, EpisodeState, NewEpisode, Override, Reward, RobotState
from gripwire.settings import Settings, _Value
from tests.reward import tiny
from tests.reward.bench import WAIT_S, Bench

ONE_FRAME = tiny.RULE.model_copy(update={"window_s": 0.03, "needed_s": 0.03})


@pytest.fixture
def robot(bench: Bench):
    made: Publisher[RobotState] = bus.Publisher(bench.settings.topics["robot/state"])
    yield made
    made.close()


def _tell(bench: Bench, robot: Publisher[RobotState], gripper: float, **changes: object) -> None:
    """A state that the service has received."""
    position = dict.fromkeys(JOINTS, 0.0) | {"gripper": gripper}
    sent = robot.publish(RobotState(position=position, valid=True).model_copy(update=changes))
    reader = bench.service._serving.companions._robot
    bench.until(lambda: (seen := reader.get()) and seen.message.seq >= sent.seq)


def test_a_gate_that_is_shut_keeps_a_sure_frame_from_success(bench: Bench, robot) -> None:
    bench.serve(rule=ONE_FRAME.model_copy(update={"gate": "5 < gripper < 60"}))
    assert robot.wait_for_subscriber(WAIT_S)
    _tell(bench, robot, 90.0)
    shut = bench.verdict(bench.send(True))
    assert shut.valid and shut.above and not shut.gate and not shut.decision
    _tell(bench, robot, 30.0)
    opened = bench.verdict(bench.send(True))
    assert opened.valid and opened.gate and opened.decision


def test_a_gate_without_a_robot_fails_closed_and_says_why(bench: Bench, robot) -> None:
    bench.serve(rule=ONE_FRAME.model_copy(update={"gate": "gripper > 5"}))
    silent = bench.verdict(bench.send(True))
    assert not silent.valid and not silent.decision and "none has come" in silent.reason
    assert robot.wait_for_subscriber(WAIT_S)
    _tell(bench, robot, 30.0, valid=False, reason="wrist_flex is silent")
    assert "not valid: wrist_flex is silent" in bench.verdict(bench.send(True)).reason
    _tell(bench, robot, 30.0, position={"wrist_flex": 0.0})
    assert "no position of gripper" in bench.verdict(bench.send(True)).reason


def test_an_override_changes_the_rule_begins_an_epoch_and_shows_in_every_reward(bench: Bench) -> None:
    bench.serve(rule=ONE_FRAME)
    before = bench.verdict(bench.send(True))
    assert before.decision and before.overrides == {} and before.threshold == 0.5
    bench.ask(Override(threshold=0.999))
    assert bench.state("serving", "").epoch == 1
    bench.until(lambda: bench.service._serving.state.epoch == 2)
    after = bench.verdict(bench.send(True))
    assert (after.threshold, after.epoch, after.overrides) == (0.999, 2, {"threshold": 0.999})
    assert after.valid and not after.above and not after.decision
    bench.ask(Override(clear=True))
    bench.until(lambda: bench.service._serving.state.epoch == 3)
    assert bench.verdict(bench.send(True)).overrides == {}


def test_overrides_and_their_epoch_survive_a_restart(bench: Bench) -> None:
    model = bench.serve(rule=ONE_FRAME)
    bench.ask(Override(threshold=0.9, min_steps_s=0.1))
    bench.until(lambda: bench.service._serving.state.epoch == 2)
    bench.stop()
    bench.start()
    bench.state("serving", model)
    again = bench.verdict(bench.send(True))
    assert (again.epoch, again.overrides) == (2, {"threshold": 0.9, "min_steps_s": 0.1})


def test_settings_override_the_bundle_and_a_change_of_them_is_a_new_epoch(bench: Bench) -> None:
    model = bench.serve(rule=ONE_FRAME)
    bench.stop()
    bench.settings.values[("reward", "threshold")] = _Value(0.8, "gripwire.toml")
    bench.start()
    bench.until(lambda: bench.service._serving.scorer)
    reward = bench.verdict(bench.send(True))
    assert (reward.model, reward.epoch, reward.overrides) == (model, 2, {"threshold": 0.8})
    assert reward.threshold == 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "nothing to override"),
        ({"threshold": 1.5}, "less than 1"),
        ({"release": 0.9}, "must not lie above"),
        ({"needed_s": 0.001}, "more than half"),
        ({"gate": "gripper ="}, "character 9"),
    ],
)
def test_an_override_that_makes_no_rule_is_refused_and_changes_nothing(bench, changes, said) -> None:
    bench.serve(rule=ONE_FRAME)
    with pytest.raises(UserError, match=said):
        bench.ask(Override(**changes))
    assert bench.verdict(bench.send(True)).epoch == 1


def test_a_latched_success_stays_until_a_new_episode_but_never_without_a_score(bench: Bench) -> None:
    bench.serve(rule=ONE_FRAME.model_copy(update={"latch": True}))
    assert bench.verdict(bench.send(True)).decision
    held = bench.verdict(bench.send(False))
    assert held.decision and held.latched and not held.above
    blind = bench.verdict(bench.send(True, valid=False, reason="frozen"))
    assert not blind.decision and not blind.valid
    assert bench.verdict(bench.send(False)).decision
    bench.ask(NewEpisode())
    fresh = bench.verdict(bench.send(False))
    assert not fresh.decision and not fresh.latched and fresh.step == 1


def test_success_counts_only_after_min_steps_and_a_recording_begins_anew(bench: Bench) -> None:
    episodes: Publisher[EpisodeState] = bus.Publisher(bench.settings.topics["episode"])
    assert episodes.wait_for_subscriber(WAIT_S)
    bench.serve(rule=ONE_FRAME.model_copy(update={"min_steps_s": 0.1}))  # three frames at 30 Hz

    def decisions() -> list[bool]:
        return [bench.verdict(bench.send(True)).decision for _ in range(5)]

    assert decisions() == [False, False, False, True, True]
    episodes.publish(EpisodeState(state="recording", valid=True))
    bench.until(lambda: bench.service._recording)
    assert decisions() == [False, False, False, True, True]
    episodes.publish(EpisodeState(state="recording", rows=20, valid=True))  # the same one
    episodes.publish(EpisodeState(state="idle", valid=True))
    bench.until(lambda: not bench.service._recording)
    assert decisions() == [True] * 5
    episodes.close()


def test_at_a_fixed_rate_the_newest_frame_is_judged_and_none_twice(stack: Settings) -> None:
    stack.values[("reward", "rate_hz")] = _Value(100.0, "gripwire.toml")
    bench = Bench(stack)
    try:
        bench.serve(rule=ONE_FRAME)
        burst = [bench.send(True, i) for i in range(6)]
        assert bench.verdict(burst[-1]).valid
        judged: list[Reward] = [r for r in bench.said if r.frame_seq >= 0]
        seqs = [r.frame_seq for r in judged]
        assert seqs == sorted(set(seqs)) and len(seqs) < len(burst)
        later = bench.send(False)
        assert bench.verdict(later).valid
    finally:
        bench.stop()
        bench.camera.close()
