"""LeRobot's HIL-SERL with the reward from the topic, in place of a classifier in its control loop.

A configuration that says ``"reward_classifier": {"pretrained_path": "gripwire"}`` under ``env.processor``
runs with

    python -m gripwire.lerobot actor --config_path train_config.json

which is LeRobot's own command, whose reward classifier step is :class:`GripwireRewardStep` wherever the
configuration names no other classifier. ``gripwire:7700`` names a stack by its first port.

Needs ``lerobot`` with its ``hilserl`` extra.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.types import PipelineFeatureType, PolicyFeature
from lerobot.processor import EnvTransition, ProcessorStep, ProcessorStepRegistry, TransitionKey

from gripwire.client import RewardStream
from gripwire.step import TOLERANCE_S, StepReward

NAME = "gripwire"


@ProcessorStepRegistry.register("gripwire_reward")
@dataclass
class GripwireRewardStep(ProcessorStep):  # type: ignore[misc]
    """Sets a transition's reward by what the reward service says about its moment.

    A success sets ``success_reward`` and, if asked for, ends the episode. Without a valid verdict the
    episode is truncated and the reward stays what it was. Model id, epoch, logit and the rest are kept with
    the transition: in ``info["gripwire"]``, and as numbers in its complementary data.
    """

    port_base: int | None = None
    success_reward: float = 1.0
    terminate_on_success: bool = True
    timeout_s: float = 0.5
    tolerance_s: float = TOLERANCE_S
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
        numbers = {name: kept.get(name) for name in ("epoch", "logit", "probability")}
        out[TransitionKey.COMPLEMENTARY_DATA] = {
            **(out.get(TransitionKey.COMPLEMENTARY_DATA) or {}),
            **{f"gripwire_{name}": float(n) for name, n in numbers.items() if n is not None},
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
    classifier's ``pretrained_path``; any other classifier stays LeRobot's."""
    from lerobot.rl import gym_manipulator

    stock: Any = gym_manipulator.RewardClassifierProcessorStep

    def build(
        pretrained_path: str, success_reward: float = 1.0, terminate_on_success: bool = True, **others: Any
    ) -> Any:
        name, _, port = pretrained_path.partition(":")
        if name != NAME:
            return stock(
                pretrained_path=pretrained_path, success_reward=success_reward,
                terminate_on_success=terminate_on_success, **others,
            )  # fmt: skip
        return GripwireRewardStep(int(port) if port else None, success_reward, terminate_on_success)

    gym_manipulator.RewardClassifierProcessorStep = build


def main() -> None:
    """``actor`` or ``env`` (LeRobot's gym_manipulator), then that command's own arguments."""
    commands = {"actor": "lerobot.rl.actor", "env": "lerobot.rl.gym_manipulator"}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        raise SystemExit(f"usage: python -m gripwire.lerobot {'|'.join(commands)} ARGUMENTS")
    import importlib

    take_over()
    module = importlib.import_module(commands[sys.argv.pop(1)])
    run = getattr(module, "actor_cli", None) or module.main
    run()


if __name__ == "__main__":
    main()
