"""LeRobot's HIL-SERL with the reward from the topic, in place of a classifier in its control loop.

A configuration that says ``"reward_classifier": {"pretrained_path": "gripwire"}`` under ``env.processor``
runs with

    python -m gripwire.lerobot learner --config_path train_config.json
    python -m gripwire.lerobot actor --config_path train_config.json

which are LeRobot's own commands. Its reward classifier step is :class:`GripwireRewardStep` wherever the
configuration names no other classifier, and its transitions take the model's id, epoch, logit and
probability along into the learner's replay buffer. ``gripwire:7700`` names a stack by its first port. Unlike
LeRobot's, these commands also know the devices that plug-ins bring: robot, camera and leader ``gripwire``.

Needs ``lerobot`` with its ``hilserl`` extra.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lerobot.configs.types import PipelineFeatureType, PolicyFeature
from lerobot.processor import EnvTransition, ProcessorStep, ProcessorStepRegistry, TransitionKey

from gripwire.client import RewardStream
from gripwire.step import TOLERANCE_S, StepReward

NAME = "gripwire"
_MODEL_BYTES = 10


def complementary(kept: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What tells rewards of different models apart, as LeRobot's replay buffer keeps it: float32, one row.

    ``gripwire_epoch``, ``gripwire_logit`` and ``gripwire_probability`` (1,), NaN where there was no verdict;
    ``gripwire_model`` (1, 10), the bytes of the bundle's id, zero where there was none (:func:`model_id`).
    """
    numbers = {name: kept.get(name) for name in ("epoch", "logit", "probability")}
    out = {
        f"gripwire_{name}": torch.tensor([math.nan if number is None else float(number)])
        for name, number in numbers.items()
    }
    model = bytes.fromhex(kept.get("model") or "").ljust(_MODEL_BYTES, b"\0")
    return out | {"gripwire_model": torch.tensor([list(model)], dtype=torch.float32)}


def model_id(row: Iterable[float]) -> str:
    """The bundle's id from a row of ``gripwire_model``; empty where there was none."""
    data = bytes(int(value) for value in row)
    return data.hex() if any(data) else ""


@ProcessorStepRegistry.register("gripwire_reward")
@dataclass
class GripwireRewardStep(ProcessorStep):  # type: ignore[misc]
    """Sets a transition's reward by what the reward service says about its moment.

    A success sets ``success_reward`` and, if asked for, ends the episode. Without a valid verdict the
    episode is truncated and the reward stays what it was. Model id, epoch, logit and the rest are kept with
    the transition: in ``info["gripwire"]``, and as numbers in its complementary data (:func:`complementary`).
    """

    port_base: int | None = None
    success_reward: float = 1.0
    terminate_on_success: bool = True
    timeout_s: float = 0.5
    tolerance_s: float = TOLERANCE_S
    last: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)
    _judge: StepReward | None = field(default=None, init=False, repr=False)
    _begun: bool = field(default=False, init=False, repr=False)

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        out = transition.copy()
        verdict = self._opened().verdict()
        if verdict.success:
            out[TransitionKey.REWARD] = self.success_reward
            out[TransitionKey.DONE] = bool(out.get(TransitionKey.DONE)) or self.terminate_on_success
        if verdict.problem:
            out[TransitionKey.TRUNCATED] = True
        kept = verdict.info()
        out[TransitionKey.INFO] = {**(out.get(TransitionKey.INFO) or {}), "gripwire": kept}
        self.last = complementary(kept)
        out[TransitionKey.COMPLEMENTARY_DATA] = {
            **(out.get(TransitionKey.COMPLEMENTARY_DATA) or {}),
            **self.last,
        }
        return out

    def _opened(self) -> StepReward:
        if self._judge is None:
            self._judge = StepReward(RewardStream(port_base=self.port_base), self.timeout_s, self.tolerance_s)
        if not self._begun:
            self._judge.begin()
            self._begun = True
        return self._judge

    def reset(self) -> None:
        """The next transition is the first of an episode."""
        self._begun = False

    def get_config(self) -> dict[str, Any]:
        names = ("port_base", "success_reward", "terminate_on_success", "timeout_s", "tolerance_s")
        return {name: getattr(self, name) for name in names}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Observations and actions stay what they are."""
        return features


def take_over() -> None:
    """Have LeRobot build :class:`GripwireRewardStep` where a configuration names ``gripwire`` as the reward
    classifier's ``pretrained_path``, its actor hand on what the step keeps, and its environment reset the
    robot ``gripwire`` by the robot service; any other classifier or robot stays LeRobot's."""
    from lerobot.rl import actor, gym_manipulator

    classifier: Any = gym_manipulator.RewardClassifierProcessorStep
    reset_by_port: Any = gym_manipulator.reset_follower_position
    transition: Any = actor.Transition
    made: list[GripwireRewardStep] = []

    def build(
        pretrained_path: str, success_reward: float = 1.0, terminate_on_success: bool = True, **others: Any
    ) -> Any:
        name, _, port = pretrained_path.partition(":")
        if name != NAME:
            return classifier(
                pretrained_path=pretrained_path, success_reward=success_reward,
                terminate_on_success=terminate_on_success, **others,
            )  # fmt: skip
        made.append(GripwireRewardStep(int(port) if port else None, success_reward, terminate_on_success))
        return made[-1]

    def hand_on(**fields: Any) -> Any:
        # Of a transition's complementary data the actor hands on two entries of its own, nothing else.
        if made:
            fields["complementary_info"] = (fields.get("complementary_info") or {}) | made[-1].last
        return transition(**fields)

    def reset(robot: Any, target: Iterable[float]) -> None:
        if hasattr(robot, "move_to"):  # it has no serial port to write to, and knows when the arm is there
            robot.move_to(dict(zip(robot.bus.motors, map(float, target), strict=True)))
        else:
            reset_by_port(robot, target)

    gym_manipulator.RewardClassifierProcessorStep = build
    gym_manipulator.reset_follower_position = reset
    actor.Transition = hand_on


def main() -> None:
    """``learner``, ``actor`` or ``env`` (LeRobot's gym_manipulator), then that command's own arguments."""
    commands = {
        "learner": ("lerobot.rl.learner", "train_cli"),
        "actor": ("lerobot.rl.actor", "actor_cli"),
        "env": ("lerobot.rl.gym_manipulator", "main"),
    }
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        raise SystemExit(f"usage: python -m gripwire.lerobot {'|'.join(commands)} ARGUMENTS")
    import importlib

    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    take_over()
    module, run = commands[sys.argv.pop(1)]
    getattr(importlib.import_module(module), run)()


if __name__ == "__main__":
    main()
