"""The reward of one step of an environment, whatever library the environment is written for."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gripwire import control
from gripwire.client import RewardStream, RewardTimeout
from gripwire.errors import UserError
from gripwire.messages import NewEpisode, Reward

TOLERANCE_S = 0.05
"""The judged picture may be so much older than the observation: both cameras deliver at 30 Hz."""


@dataclass(frozen=True)
class Verdict:
    """What the reward service said about the moment of an observation.

    ``problem``: why there is no verdict (an episode should be cut short there); empty where there is one.
    """

    reward: Reward | None
    problem: str

    @property
    def success(self) -> bool:
        return not self.problem and self.reward is not None and self.reward.decision

    def info(self) -> dict[str, Any]:
        """What to keep with the transition, so that its reward can be told apart from other models' later."""
        kept: dict[str, Any] = {"valid": not self.problem, "reason": self.problem}
        if self.reward is not None:
            names = ("model", "epoch", "logit", "probability", "threshold", "gate", "decision", "frame_seq")
            kept |= {name: getattr(self.reward, name) for name in names}
        return kept


class StepReward:
    """Asks a stream for the verdict on each step. Without a stream of its own it opens one."""

    def __init__(
        self, stream: RewardStream | None = None, timeout_s: float = 0.5, tolerance_s: float = TOLERANCE_S
    ) -> None:
        self.stream = stream or RewardStream()
        self._owned = stream is None
        self._timeout_s, self._tolerance_s = timeout_s, tolerance_s
        self._had = 0
        self._client = control.Client(self.stream.control_endpoint, "reward")

    def begin(self) -> None:
        """Tell the service that an episode begins. A service that does not answer will be told by the first
        step."""
        with suppress(UserError):
            self._client.ask(NewEpisode(), timeout_s=self._timeout_s)

    def verdict(self, frame_seq: int | None = None, not_before_ns: int = 0) -> Verdict:
        """On the picture of now, or on this frame of the camera (or the next that was judged).

        The picture of now is none that a step before has had, and none from before ``not_before_ns``
        (CLOCK_MONOTONIC).
        """
        try:
            if frame_seq is not None:
                reward = self.stream.wait(after_frame_seq=frame_seq - 1, timeout_s=self._timeout_s)
            else:
                young = time.monotonic_ns() - int(self._tolerance_s * 1e9)
                since = max(young, not_before_ns, self._had + 1)
                reward = self.stream.wait(after_capture_ns=since, timeout_s=self._timeout_s)
        except RewardTimeout as e:
            return Verdict(None, str(e))
        self._had = reward.t_capture
        return Verdict(reward, "" if reward.valid else reward.reason or "the reward is not valid")

    def close(self) -> None:
        self._client.close()
        if self._owned:
            self.stream.close()
