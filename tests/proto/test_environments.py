"""The reward of a step in Gymnasium environments and in LeRobot's own processor pipeline."""

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import PassiveEnvChecker

from gripwire import RewardStream
from gripwire.control import Server
from gripwire.gym import RewardWrapper
from gripwire.messages import JOINTS, Done, NewEpisode, Reward
from gripwire.settings import Settings
from tests.proto.rewards import Rewards

WAIT_S = 10.0
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "hil_serl.json"


class Arm(gymnasium.Env[Any, Any]):
    """An environment that knows nothing of success; something happens at each step."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, happens: Callable[[], Any]) -> None:
        self._happens = happens

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        info = self._happens() or {}
        return np.zeros(2, np.float32), -7.0, False, False, info if isinstance(info, dict) else {}


@pytest.fixture
def stream(stack: Settings, rewards: Rewards) -> Iterator[RewardStream]:
    with RewardStream(port_base=stack.bus.port_base) as made:
        assert rewards.publisher.wait_for_subscriber(WAIT_S)
        yield made


@pytest.fixture
def episodes(stack: Settings) -> Iterator[list[NewEpisode]]:
    """What the reward service was told about episodes."""
    told: list[NewEpisode] = []

    def note(command: NewEpisode) -> Done:
        told.append(command)
        return Done()

    server, ended = Server(stack.topics.control("reward"), {NewEpisode: note}), threading.Event()
    thread = threading.Thread(target=lambda: [server.poll(0.02) for _ in iter(ended.is_set, True)])
    thread.start()
    yield told
    ended.set()
    thread.join()
    server.close()


def _wrapped(stream: RewardStream, happens: Callable[[], Any], **how: Any) -> RewardWrapper:
    return RewardWrapper(Arm(happens), stream, timeout_s=how.pop("timeout_s", WAIT_S), **how)


def test_success_terminates_and_names_its_model(stream, rewards, episodes) -> None:
    outcomes = iter([False, True])
    env = _wrapped(stream, lambda: rewards.send(next(outcomes)), success_reward=10.0)
    env.reset()
    _, reward, terminated, truncated, info = env.step(None)
    assert (reward, terminated, truncated) == (0.0, False, False)
    _, reward, terminated, truncated, info = env.step(None)
    assert (reward, terminated, truncated) == (10.0, True, False)
    kept = info["gripwire"]
    assert (kept["model"], kept["epoch"], kept["logit"], kept["frame_seq"]) == ("a" * 20, 3, 2.5, 1)
    assert len(episodes) == 1  # the service was told that one began


def test_the_reward_is_of_the_frame_that_the_environment_shows(stream, rewards, episodes) -> None:
    for i in range(5):
        rewards.send(success=i == 2)
    env = _wrapped(stream, lambda: {"frame_seq": 2})
    assert env.step(None)[1:3] == (1.0, True)
    assert env.step(None)[4]["gripwire"]["frame_seq"] == 2


def test_a_reward_from_before_the_step_is_not_taken_for_its_own(stream, rewards, episodes) -> None:
    rewards.send(t_capture=1)
    stream.latest()
    env = _wrapped(stream, lambda: None, timeout_s=0.1)
    _, reward, terminated, truncated, info = env.step(None)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "no such reward within 0.1 s" in info["gripwire"]["reason"]


def test_what_is_not_valid_truncates_and_says_why(stream, rewards, episodes) -> None:
    env = _wrapped(stream, lambda: rewards.send(valid=False, decision=False, reason="the camera is frozen"))
    _, reward, terminated, truncated, info = env.step(None)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["gripwire"]["reason"] == "the camera is frozen" and not info["gripwire"]["valid"]


def test_gymnasiums_own_checker_accepts_it(stream, rewards, episodes) -> None:
    env = PassiveEnvChecker(_wrapped(stream, lambda: rewards.send(False)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=1)
        env.step(env.action_space.sample())


# --- LeRobot ----------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(stack: Settings, rewards: Rewards, episodes: list[NewEpisode]) -> Iterator[Any]:
    """LeRobot's own pipeline with our step in it."""
    from lerobot.processor import DataProcessorPipeline
    from lerobot.processor.converters import identity_transition

    from gripwire.lerobot import GripwireRewardStep

    # No tolerance: what was sent before the step is not its answer, however close together the two are.
    step = GripwireRewardStep(
        port_base=stack.bus.port_base, success_reward=5.0, timeout_s=WAIT_S, tolerance_s=0.0
    )
    yield DataProcessorPipeline(
        steps=[step], to_transition=identity_transition, to_output=identity_transition
    )
    if step._judge:
        step._judge.stream.close()
        step._judge.close()


def _transition(**changes: Any) -> Any:
    from lerobot.processor.converters import create_transition

    given = {"observation": {}, "reward": 0.5, "info": {"mine": 1}, "complementary_data": {"kept": 2}}
    return create_transition(**given | changes)


class Sending:
    """Rewards that come all the while, as a camera's do."""

    def __init__(self, rewards: Rewards, **of: Any) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(rewards, of))

    def _run(self, rewards: Rewards, of: Any) -> None:
        for _ in itertools.takewhile(lambda _: not self._end.wait(0.005), itertools.count()):
            rewards.send(**of)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def test_lerobots_pipeline_takes_its_reward_from_the_topic(pipeline, rewards, episodes) -> None:
    from lerobot.processor import TransitionKey

    pipeline.reset()
    with Sending(rewards, success=True):
        out = pipeline(_transition())
    assert out[TransitionKey.REWARD] == 5.0 and out[TransitionKey.DONE] is True
    assert not out[TransitionKey.TRUNCATED]
    assert out[TransitionKey.INFO]["mine"] == 1 and out[TransitionKey.INFO]["gripwire"]["model"] == "a" * 20
    data = out[TransitionKey.COMPLEMENTARY_DATA]
    assert data["kept"] == 2 and data["gripwire_epoch"] == 3.0 and data["gripwire_logit"] == 2.5
    assert len(episodes) == 1
    with Sending(rewards, success=False):
        out = pipeline(_transition())
    assert out[TransitionKey.REWARD] == 0.5 and not out[TransitionKey.DONE]
    assert len(episodes) == 1
    pipeline.reset()
    with Sending(rewards, success=False):
        pipeline(_transition())
    assert len(episodes) == 2


def test_in_lerobots_pipeline_too_what_is_not_valid_truncates(pipeline, rewards) -> None:
    from lerobot.processor import TransitionKey

    with Sending(rewards, success=True, valid=False, decision=False, reason="drift"):
        out = pipeline(_transition())
    assert out[TransitionKey.TRUNCATED] is True and out[TransitionKey.REWARD] == 0.5
    assert out[TransitionKey.INFO]["gripwire"]["reason"] == "drift"


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> Any:
    """LeRobot's modules of the actor as `python -m gripwire.lerobot` leaves them."""
    from lerobot.rl import actor, gym_manipulator

    from gripwire import lerobot

    stock: Any = gym_manipulator.RewardClassifierProcessorStep
    monkeypatch.setattr(gym_manipulator, "RewardClassifierProcessorStep", stock)
    monkeypatch.setattr(actor, "Transition", actor.Transition)
    monkeypatch.setattr(gym_manipulator, "reset_follower_position", gym_manipulator.reset_follower_position)
    lerobot.take_over()
    return gym_manipulator, actor


def test_the_example_configuration_is_lerobots_and_gets_our_step_in_place_of_a_classifier(
    taken_over: Any,
) -> None:
    import draccus
    from lerobot.rl.train_rl import TrainRLServerPipelineConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    from gripwire.lerobot import GripwireRewardStep

    register_third_party_plugins()

    with draccus.config_type("json"):
        config = draccus.parse(TrainRLServerPipelineConfig, config_path=EXAMPLE, args=[])
    assert config.env.robot.type == config.env.teleop.type == "gripwire"
    assert config.env.teleop.step_sizes == config.env.processor.inverse_kinematics.end_effector_step_sizes
    asked = config.env.processor.reward_classifier
    made = taken_over[0].RewardClassifierProcessorStep(
        pretrained_path=asked.pretrained_path, device="cpu", success_threshold=asked.success_threshold,
        success_reward=asked.success_reward, terminate_on_success=True,
    )  # fmt: skip
    assert isinstance(made, GripwireRewardStep)
    assert made.get_config() == {
        "port_base": None, "success_reward": 1.0, "terminate_on_success": True, "timeout_s": 0.5,
        "tolerance_s": 0.05,
    }  # fmt: skip
    other = taken_over[0].RewardClassifierProcessorStep(pretrained_path="gripwire:7700", success_reward=2.0)
    assert (other.port_base, other.success_reward) == (7700, 2.0)


def test_a_reset_goes_through_the_robot_service_where_the_robot_knows_one(taken_over: Any) -> None:
    """How the arm gets there: tests/lerobot. Here: the target's numbers get the motors' names, in order."""
    moved: list[dict[str, float]] = []
    robot = SimpleNamespace(bus=SimpleNamespace(motors=dict.fromkeys(JOINTS)), move_to=moved.append)
    taken_over[0].reset_follower_position(robot, np.array([1, 2, 3, 4, 5, 6], np.float32))
    assert moved == [dict(zip(JOINTS, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True))]


def test_model_and_logit_come_with_every_transition_into_lerobots_replay_buffer(
    taken_over: Any, stack: Settings, rewards: Rewards
) -> None:
    import torch
    from lerobot.rl.buffer import ReplayBuffer
    from lerobot.utils.transition import move_transition_to_device

    from gripwire.lerobot import model_id

    gym_manipulator, actor = taken_over
    path = f"gripwire:{stack.bus.port_base}"
    step = gym_manipulator.RewardClassifierProcessorStep(pretrained_path=path)
    step.timeout_s, step.tolerance_s = WAIT_S, 0.0
    buffer = ReplayBuffer(8, "cpu", state_keys=["observation.state"], storage_device="cpu")
    logits = [2.5, -1.25, 0.1]
    for number, logit in enumerate(logits):
        model = f"{number:02x}" * 10
        with Sending(rewards, logit=logit, model=model, epoch=number):
            step(_transition())
        state = {"observation.state": torch.zeros(1, 6)}
        made = actor.Transition(
            state=state, action=torch.zeros(1, 3), reward=0.0, next_state=state, done=False, truncated=False,
            complementary_info={"discrete_penalty": torch.tensor([0.0]), "is_intervention": False},
        )  # fmt: skip
        buffer.add(**move_transition_to_device(made, device="cpu"))
    step._judge.stream.close()
    step._judge.close()
    kept = buffer.complementary_info
    assert kept["gripwire_logit"][:3].flatten().tolist() == torch.tensor(logits).tolist()
    assert [model_id(row) for row in kept["gripwire_model"][:3]] == ["", "01" * 10, "02" * 10]
    assert kept["gripwire_epoch"][:3].flatten().tolist() == [0, 1, 2]
    assert set(buffer.sample(2)["complementary_info"]) == set(kept) >= {"discrete_penalty", "is_intervention"}


def test_the_verdict_carries_what_tells_models_apart(rewards: Rewards) -> None:
    from gripwire.step import Verdict

    info = Verdict(Reward(valid=True, model="m", epoch=7, logit=-1.0), "").info()
    assert (info["model"], info["epoch"], info["logit"]) == ("m", 7, -1.0)
