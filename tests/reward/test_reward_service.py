"""The reward service on real sockets: frames in, one verdict each out, and models changed under it."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gripwire import clock
from gripwire.bus import Queued
from gripwire.errors import UserError
from gripwire.messages import Health, ModelState, Offer, Rollback, Swap
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_reward.service import RewardService
from tests.reward import tiny
from tests.reward.bench import Bench

WAIT_S = 20.0


def test_before_any_bundle_every_frame_is_answered_as_not_valid(bench: Bench) -> None:
    verdicts = [bench.verdict(bench.send(True, i)) for i in range(3)]
    assert [v.reason for v in verdicts] == ["no bundle"] * 3
    assert not any(v.valid or v.decision or v.above for v in verdicts)
    assert all(v.model == "" and v.probability is None for v in verdicts)
    assert "no bundle yet" in bench.runtime.problems


def test_a_reward_names_its_model_its_frame_and_its_stages(bench: Bench) -> None:
    model = bench.serve()
    frame = bench.send(True, exposure_seq=41)
    reward = bench.verdict(frame)
    assert reward.valid and reward.above and reward.probability and reward.probability > 0.9
    assert (reward.model, reward.epoch, reward.exposure_seq) == (model, 1, 41)
    assert (reward.frame_boot, reward.t_capture) == (frame.boot, frame.t_capture)
    assert set(reward.stages_ms) == {"receive", "decode", "preprocess", "score", "decide"}
    assert not bench.verdict(bench.send(False)).above


def test_every_frame_gets_exactly_one_reward_in_order_across_swaps(bench: Bench) -> None:
    bench.serve()
    seqs, ready = [], [tiny.make(bench.settings.data / "bundles", gain=4.0 + i) for i in range(6)]
    for i in range(60):
        seqs.append(bench.send(i % 2 == 0, i).seq)
        if i % 10 == 5:
            made = ready.pop()
            bench.service.commands[Swap](Swap(bundle=made.id))
        bench.service.update()  # one that waits for half a second would be passed over
    bench.until(lambda: len(bench.said) >= 60)
    bench.state("serving", made.id)
    judged = [r for r in bench.said if r.frame_seq >= 0]
    assert [r.frame_seq for r in judged] == seqs
    assert all(r.valid for r in judged)
    epochs = [r.epoch for r in judged]
    assert epochs == sorted(epochs)


def test_success_is_decided_after_the_window_and_not_by_one_frame(bench: Bench) -> None:
    bench.serve()
    verdicts = [bench.verdict(bench.send(True, i)).decision for i in range(5)]
    assert verdicts == [False, False, True, True, True]  # 0.1 s at the declared 30 Hz


def test_an_invalid_frame_is_answered_with_the_cameras_reason(bench: Bench) -> None:
    bench.serve()
    for i in range(5):
        bench.verdict(bench.send(True, i))
    reward = bench.verdict(bench.send(True, valid=False, reason="the picture is frozen"))
    assert not reward.valid and not reward.decision and "frozen" in reward.reason
    assert not bench.verdict(bench.send(True)).decision


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payload": b"not a picture"}, "not a JPEG"),
        ({"width": 640}, "its header says"),
        ({"payload": tiny.jpeg(np.zeros((9000, 9000, 3), np.uint8))}, "is 9000x9000, its header says 64x48"),
        ({"encoding": "rgb8", "payload": b"abc"}, "no 64x48 picture"),
    ],
)
def test_a_broken_frame_is_answered_and_the_next_one_judged(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    bench.serve()
    reward = bench.verdict(bench.send(True, **changes))
    assert not reward.valid and reason in reward.reason
    assert bench.verdict(bench.send(True)).valid


def test_messages_of_another_schema_are_counted_and_named_and_the_next_frame_is_judged(bench: Bench) -> None:
    bench.serve()
    bench.send(True, v=9)
    bench.until(lambda: bench.runtime.counts["messages_refused"])
    assert "schema version 9" in bench.runtime.problems
    assert bench.verdict(bench.send(True)).valid and bench.runtime.problems == ""


def test_a_stalled_camera_makes_the_verdict_no_and_names_the_camera(bench: Bench) -> None:
    bench.serve()
    for i in range(5):
        bench.verdict(bench.send(True, i))
    assert bench.said[-1].decision
    before = len(bench.said)  # on a machine that is held up it seemed stalled already
    stalled = bench.until(
        lambda: next((r for r in bench.said[before:] if r.frame_seq == -1 and "no frame" in r.reason), None)
    )
    assert not stalled.valid and not stalled.decision
    assert "gripper_cam" in bench.runtime.problems
    assert bench.verdict(bench.send(True)).valid
    assert bench.runtime.problems == ""


def _wait(bench: Bench, seconds: float) -> None:
    late_by = time.monotonic() + seconds
    while time.monotonic() < late_by:
        bench.models.receive(0.05)


def test_frames_that_waited_too_long_are_passed_over_and_each_is_reported(bench: Bench) -> None:
    bench.serve()
    late = [bench.send(True, i) for i in range(19)]
    _wait(bench, 0.6)  # the service is busy elsewhere for longer than it may lag
    newest = bench.verdict(bench.send(True, 19))
    assert newest.valid
    assert [bench.verdict(f).reason[:7] for f in late] == ["skipped"] * 19
    assert bench.runtime.counts["frames_skipped"] == bench.runtime.counts["invalid"] == 19


def test_of_old_frames_even_the_newest_is_no_news(bench: Bench) -> None:
    """As after SIGSTOP, where the queue has overflowed: it keeps the oldest."""
    bench.serve()
    late = [bench.send(True, i) for i in range(5)]
    _wait(bench, 0.6)
    said = [bench.verdict(frame) for frame in late]
    assert [(r.valid, r.decision, r.reason[:7]) for r in said] == [(False, False, "skipped")] * 5
    assert bench.verdict(bench.send(True, 5)).valid


def test_a_verdict_that_was_held_up_is_none_and_what_was_seen_before_is_no_evidence(bench: Bench) -> None:
    """As when the process is stopped while it judges a picture."""
    bench.serve()
    assert [bench.verdict(bench.send(True, i)) for i in range(3)][-1].decision
    scorer = bench.service._serving.scorer
    score = scorer.frame

    def held_up(*images: Any) -> Any:
        _wait(bench, 1.1)
        return score(*images)

    scorer.frame = held_up
    late = bench.verdict(bench.send(True, 3))
    scorer.frame = score
    assert (late.valid, late.decision, late.reason[:7]) == (False, False, "held up")
    after = bench.verdict(bench.send(True, 4))
    assert after.valid and not after.decision


def test_a_capture_time_that_is_still_to_come_is_not_passed_on(bench: Bench) -> None:
    bench.serve()
    reward = bench.verdict(bench.send(True, t_capture=clock.monotonic_ns() + 10**12))
    assert reward.valid and reward.t_capture <= reward.t_publish


def test_what_was_seen_before_skipped_frames_does_not_count_after_them(bench: Bench) -> None:
    bench.serve()
    assert [bench.verdict(bench.send(True, i)).decision for i in range(3)][-1]
    late = [bench.send(True, i) for i in range(2)]
    _wait(bench, 0.6)
    late.append(bench.send(True, 2))
    assert bench.verdict(late[-1]).valid
    assert [bench.verdict(f).decision for f in late] == [False] * 3
    assert [bench.verdict(bench.send(True, i)).decision for i in range(2)] == [False, True]


def test_what_was_seen_before_lost_frames_does_not_count_after_them(bench: Bench) -> None:
    bench.serve()
    assert [bench.verdict(bench.send(True, i)).decision for i in range(3)][-1]
    bench.camera.sent += 4  # four frames that nobody received
    after = [bench.verdict(bench.send(True, i)) for i in range(3)]
    assert all(r.valid for r in after) and [r.decision for r in after] == [False, False, True]
    assert bench.runtime.counts["frames_lost"] == 4


def test_what_was_seen_from_a_camera_that_restarted_does_not_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve()
    assert [bench.verdict(bench.send(True, i)).decision for i in range(3)][-1]
    monkeypatch.setattr(clock, "boot_id", lambda: "another process")
    bench.camera.sent = 50
    bench.said.clear()
    assert [bench.verdict(bench.send(True, i)).decision for i in range(3)] == [False, False, True]


def test_a_camera_of_two_pictures_a_second_decides(bench: Bench) -> None:
    bench.serve()
    begin, decisions = time.monotonic(), []
    for i in range(6):
        bench.until(lambda due=begin + i / 2: time.monotonic() >= due)
        decisions.append(bench.verdict(bench.send(True, i, t_capture=clock.monotonic_ns())).decision)
    assert decisions[-2:] == [True, True]
    assert bench.runtime.problems == ""


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "golden.npz", "report.html"])
def test_an_offer_with_one_byte_changed_is_refused_and_the_old_model_goes_on(bench: Bench, name: str) -> None:
    old = bench.serve()
    made = tiny.make(bench.settings.data / "bundles", gain=3.0)
    data = bytearray(made.file(name).read_bytes())
    data[len(data) // 2] ^= 1
    made.file(name).write_bytes(data)
    bench.service.commands[Offer](Offer(bundle=made.id))
    refused = bench.state("refused", made.id)
    assert name in refused.reason and refused.serving == old
    assert name in bench.runtime.problems
    assert bench.verdict(bench.send(True)).model == old


def test_a_bundle_for_another_camera_is_refused(bench: Bench) -> None:
    other = tiny.CONTRACT.model_copy(update={"key": "observation.images.top_cam"})
    made = tiny.make(bench.settings.data / "bundles", contract=other)
    bench.service.commands[Offer](Offer(bundle=made.id))
    assert "top_cam" in bench.state("refused", made.id).reason


def test_an_offer_that_nobody_has_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(UserError, match="no bundle"):
        bench.service.commands[Offer](Offer(bundle="0" * 20))


def test_an_offer_of_the_serving_bundle_changes_nothing(bench: Bench) -> None:
    model = bench.serve()
    bench.states.clear()
    bench.service.commands[Offer](Offer(bundle=model))
    assert bench.state("serving", model).epoch == 1


def test_an_offer_of_the_serving_bundle_leaves_what_was_seen_as_it_is(bench: Bench) -> None:
    model = bench.serve()
    assert [bench.verdict(bench.send(True, i)) for i in range(4)][-1].decision
    bench.service.commands[Offer](Offer(bundle=model))
    bench.until(lambda: sum(s.event == "serving" for s in bench.states) == 2)
    assert bench.verdict(bench.send(True, 5)).decision


def test_silence_is_no_step_of_the_episode(bench: Bench) -> None:
    bench.serve()
    assert bench.verdict(bench.send(True)).step == 1
    bench.until(lambda: any(r.frame_seq < 0 for r in bench.said))
    assert bench.verdict(bench.send(True)).step == 2


def test_rollback_returns_to_the_bundle_before_under_a_new_epoch(bench: Bench) -> None:
    with pytest.raises(UserError, match="no earlier bundle"):
        bench.service.commands[Rollback](Rollback())
    first, second = bench.serve(), bench.serve(gain=5.0)
    bench.service.commands[Rollback](Rollback())
    state = bench.state("rolled_back")
    assert (state.serving, state.previous, state.epoch) == (first, second, 3)
    assert bench.verdict(bench.send(True)).model == first


def test_serving_bundle_and_epoch_survive_a_restart(bench: Bench) -> None:
    bench.serve()
    model = bench.serve(gain=5.0)
    bench.stop()
    bench.start()
    state = bench.state("serving", model)
    assert state.epoch == 2
    reward = bench.verdict(bench.send(True))
    assert (reward.model, reward.epoch) == (model, 2)


def test_a_serving_bundle_damaged_while_down_is_not_served_and_the_reason_is_given(bench: Bench) -> None:
    model = bench.serve()
    bench.stop()
    (bench.settings.data / "bundles" / model / "model.onnx").write_bytes(b"")
    bench.start()
    bench.state("refused", model)
    reward = bench.verdict(bench.send(True))
    assert not reward.valid and "model.onnx" in reward.reason


def test_a_late_reader_of_model_learns_what_serves(bench: Bench) -> None:
    model = bench.serve()
    with Queued(bench.settings.topics["model"], ModelState) as late:
        seen: list[ModelState] = []

        def arrived() -> bool:
            bench.service._serving._model.poll()
            seen.extend(r.message for r in late.drain())
            return bool(seen)

        bench.until(arrived)
    assert seen[0].serving == model and seen[0].event == "serving"


def test_the_service_refuses_a_camera_slot_that_does_not_exist(stack: Settings, tmp_path: Path) -> None:
    from gripwire import settings

    flags = {"data": tmp_path, "port_base": stack.bus.port_base, "reward.camera": "top_cam"}
    runtime = Runtime("reward", settings.load(flags=flags, env={}))
    with pytest.raises(UserError, match="no such camera slot"):
        RewardService(runtime)
    runtime.close()


def test_the_process_starts_beats_and_ends_with_0_on_sigterm(stack: Settings) -> None:
    flags = ["--data", str(stack.data), "--port-base", str(stack.bus.port_base)]
    command = [sys.executable, "-m", "gripwire", "reward", "run", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        with Queued(stack.topics["health/reward"], Health) as health:
            deadline, states = time.monotonic() + WAIT_S, []
            while "degraded" not in states:
                assert time.monotonic() < deadline and process.poll() is None, states
                if beat := health.receive(0.5):
                    states.append(beat.message.state)
                    problem = beat.message.problem
        assert "no bundle yet" in problem
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.communicate()
