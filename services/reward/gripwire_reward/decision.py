"""From probabilities to one verdict: k of the last n frames, with hysteresis. A pure state machine."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DecisionRule(BaseModel):
    """The rule as the bundle stores it: in seconds, with the rate it was fitted at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(0.5, gt=0, lt=1, description="a frame counts for success at or above this")
    release: float = Field(0.35, gt=0, lt=1, description="a frame counts against success below this")
    window_s: float = Field(0.3, gt=0, description="length of the window of n frames")
    needed_s: float = Field(0.3, gt=0, description="how much of the window must agree: k frames")
    min_steps_s: float = Field(0.0, ge=0, description="time after a reset before success can count")
    fitted_hz: float = Field(10.0, gt=0, description="frame rate the rule was fitted at")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.release > self.threshold:
            raise ValueError("`release` must not lie above `threshold`")
        if not self.window_s / 2 < self.needed_s <= self.window_s:
            # With half or less of the window, yes and no could both be due at once.
            raise ValueError("`needed_s` must be more than half of `window_s` and at most all of it")
        return self


class Steps(BaseModel):
    """A rule in frames of one particular rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int
    n: int
    min_steps: int


def at_rate(rule: DecisionRule, rate_hz: float) -> Steps:
    """The rule's windows in frames at ``rate_hz``; serving and offline scoring both convert here.

    At the rate it was fitted at this gives back the fitted k and n. Partial frames round up for k (never
    less evidence than was asked for), to the nearest for n, and k stays within n.
    """
    n = max(1, round(rule.window_s * rate_hz))
    k = min(n, max(1, math.ceil(rule.needed_s * rate_hz - 1e-6)))
    return Steps(k=max(k, n // 2 + 1), n=n, min_steps=math.ceil(rule.min_steps_s * rate_hz - 1e-6))


class Decider:
    """Feed it one probability per frame, in order; it answers whether success is decided.

    ``None`` stands for a frame without a valid score: it forgets the window and the verdict, so that
    evidence from before a gap never adds up with evidence after it.
    """

    def __init__(self, rule: DecisionRule, rate_hz: float) -> None:
        self.rule = rule
        self.rate_hz = rate_hz
        self.steps = at_rate(rule, rate_hz)
        self._window: deque[float] = deque(maxlen=self.steps.n)
        self._seen = 0
        self.decision = False

    def reset(self) -> None:
        """A new episode begins."""
        self._window.clear()
        self._seen = 0
        self.decision = False

    def update(self, probability: float | None) -> bool:
        """Take in one frame; True when success is decided at this frame."""
        self._seen += 1
        if probability is None:
            self._window.clear()
            self.decision = False
            return False
        self._window.append(probability)
        if self.decision:
            against = sum(p < self.rule.release for p in self._window)
            self.decision = against < self.steps.k
        else:
            for_it = sum(p >= self.rule.threshold for p in self._window)
            self.decision = for_it >= self.steps.k and self._seen > self.steps.min_steps
        return self.decision


def decide_all(probabilities: Iterable[float | None], rule: DecisionRule, rate_hz: float) -> list[bool]:
    """The decision at every frame of one episode, from a fresh start."""
    decider = Decider(rule, rate_hz)
    return [decider.update(p) for p in probabilities]
