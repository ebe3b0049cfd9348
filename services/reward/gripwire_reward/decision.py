"""From probabilities to one verdict: k of the last n frames, with hysteresis. A pure state machine."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gripwire.errors import UserError
from gripwire_reward import gate


class DecisionRule(BaseModel):
    """The rule as the bundle stores it: in seconds, with the rate it was fitted at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(0.5, gt=0, lt=1, description="a frame counts for success at or above this")
    release: float = Field(0.35, gt=0, lt=1, description="a frame counts against success below this")
    window_s: float = Field(0.3, gt=0, description="length of the window of n frames")
    needed_s: float = Field(0.3, gt=0, description="how much of the window must agree: k frames")
    min_steps_s: float = Field(0.0, ge=0, description="time after a reset before success can count")
    fitted_hz: float = Field(10.0, gt=0, description="frame rate the rule was fitted at")
    gate: str = Field("", description="condition on the robot's own state (see gate.py); empty: none")
    latch: bool = Field(False, description="once decided, success stays for the rest of the episode")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.release > self.threshold:
            raise ValueError("`release` must not lie above `threshold`")
        if not self.window_s / 2 < self.needed_s <= self.window_s:
            # With half or less of the window, yes and no could both be due at once.
            raise ValueError("`needed_s` must be more than half of `window_s` and at most all of it")
        if self.gate:
            try:
                gate.parse(self.gate)
            except UserError as e:
                raise ValueError(str(e)) from e
        return self


def overridden(rule: DecisionRule, changes: Mapping[str, float | bool | str]) -> DecisionRule:
    """The rule with some of its fields changed. What hangs on a changed field keeps its proportion to it:
    ``release`` to ``threshold``, ``needed_s`` to ``window_s``.

    Raises:
        UserError: the result is no rule.
    """
    together = dict(changes)
    for leader, follower in (("threshold", "release"), ("window_s", "needed_s")):
        if leader in changes and follower not in changes and isinstance(new := changes[leader], float | int):
            together[follower] = getattr(rule, follower) * new / getattr(rule, leader)
    try:
        return DecisionRule.model_validate(rule.model_dump() | together)
    except ValidationError as e:
        first = e.errors()[0]
        where = f"`{'.'.join(str(part) for part in first['loc'])}`: " if first["loc"] else ""
        raise UserError(f"{where}{first['msg'].removeprefix('Value error, ')}") from e


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
    """Feed it one frame after the other; it answers whether success is decided.

    A probability of ``None`` stands for a frame without a valid score: it forgets the window and the
    verdict, so that evidence from before a gap never adds up with evidence after it. A frame at which the
    gate is shut counts against success, whatever its probability. With ``latch`` a success that was decided
    stays until :meth:`reset`; frames without a valid score are not success even then.
    """

    def __init__(self, rule: DecisionRule, rate_hz: float) -> None:
        self.rule = rule
        self.rate_hz = rate_hz
        self.steps = at_rate(rule, rate_hz)
        self._window: deque[float] = deque(maxlen=self.steps.n)
        self.reset()

    def reset(self) -> None:
        """A new episode begins."""
        self._window.clear()
        self.seen = 0
        self.decision = self.latched = False
        self._held = False

    def forget(self) -> None:
        """What was seen so far is no evidence for what comes; the episode goes on."""
        self._window.clear()
        self.decision = False

    def resume(self, before: "Decider") -> None:
        """Go on in the same episode that ``before`` was judging: its frames and its latched success count,
        its window does not."""
        self.seen, self._held = before.seen, before._held

    def update(self, probability: float | None, gate: bool = True) -> bool:
        """Take in one frame; True when success is decided at this frame."""
        self.seen += 1
        self.latched = False
        if probability is None:
            self.forget()
            return False
        self._window.append(probability if gate else 0.0)
        if self.decision:
            against = sum(p < self.rule.release for p in self._window)
            self.decision = against < self.steps.k
        else:
            for_it = sum(p >= self.rule.threshold for p in self._window)
            self.decision = for_it >= self.steps.k and self.seen > self.steps.min_steps
        decided = self.decision and gate
        if self.rule.latch:
            self.latched = self._held and not decided
            self._held = self._held or decided
            return self._held
        return decided


def decide_all(
    probabilities: Iterable[float | None],
    rule: DecisionRule,
    rate_hz: float,
    gates: Iterable[bool] | None = None,
) -> list[bool]:
    """The decision at every frame of one episode, from a fresh start. ``gates``: whether the gate was open,
    where there is one."""
    decider = Decider(rule, rate_hz)
    opened = itertools.repeat(True) if gates is None else gates
    return [decider.update(p, gate) for p, gate in zip(probabilities, opened, strict=False)]
