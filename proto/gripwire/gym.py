"""A Gymnasium environment whose reward is what the reward service says.

    env = RewardWrapper(env)
    observation, reward, terminated, truncated, info = env.step(action)
    info["gripwire"]  # model, epoch, logit, ... of this very step

Needs ``gymnasium``, which LeRobot brings along.
"""

import time
from typing import Any, SupportsFloat

import gymnasium

from gripwire.client import RewardStream
from gripwire.step import TOLERANCE_S, StepReward

FRAME_SEQ = "frame_seq"
"""An environment that knows which camera frame its observation shows puts its ``seq`` here in ``info``."""


class RewardWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Puts the reward of the matching frame into each step, and ends the episode on success.

    The frame is the one that ``info["frame_seq"]`` names, else the first one taken within the step, at most
    ``tolerance_s`` before it returned. Where there is no valid verdict the step is truncated, its reward is
    0, and ``info["gripwire"]["reason"]`` says why: a learner must not take a broken camera for a failure.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        stream: RewardStream | None = None,
        success_reward: float = 1.0,
        timeout_s: float = 0.5,
        tolerance_s: float = TOLERANCE_S,
    ) -> None:
        super().__init__(env)
        self._judge = StepReward(stream, timeout_s, tolerance_s)
        self._success_reward = success_reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As the environment's; the reward service begins a new episode."""
        out = super().reset(seed=seed, options=options)
        self._judge.begin()
        return out

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, its reward replaced."""
        begun = time.monotonic_ns()
        observation, _, terminated, truncated, info = super().step(action)
        verdict = self._judge.verdict(info.get(FRAME_SEQ), begun)
        reward = self._success_reward if verdict.success else 0.0
        return (
            observation, reward, bool(terminated or verdict.success), bool(truncated or verdict.problem),
            info | {"gripwire": verdict.info()},
        )  # fmt: skip

    def close(self) -> None:
        self._judge.close()
        super().close()
