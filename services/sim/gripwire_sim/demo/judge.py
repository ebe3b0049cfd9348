"""How good the live reward was: pure functions of what was seen and what was true."""

from dataclasses import dataclass, field

import numpy as np

from gripwire.messages import Frame, Reward
from gripwire_sim.demo.plan import Planned


@dataclass(frozen=True)
class Point:
    """One camera frame of a fresh episode. ``t``: seconds since the episode began."""

    t: float
    exposure: int
    truth: bool
    reward: Reward | None

    @property
    def right(self) -> bool:
        """A frame without a valid reward is wrong."""
        return bool(self.reward and self.reward.valid and self.reward.above == self.truth)


@dataclass(frozen=True)
class Episode:
    """A fresh episode and its verdict."""

    planned: Planned
    points: list[Point]

    @property
    def succeeded(self) -> bool:
        """Whether the cube was ever grasped."""
        return any(p.truth for p in self.points)

    @property
    def decided(self) -> bool:
        """Whether the decision ever said success."""
        return any(p.reward.decision for p in self.points if p.reward)

    @property
    def false_success(self) -> bool:
        return self.decided and not self.succeeded

    @property
    def wrong(self) -> list[Point]:
        return [p for p in self.points if not p.right]

    @property
    def onset_error_s(self) -> float | None:
        """First frame above the threshold less first true frame; None when either never came."""
        true = [p.t for p in self.points if p.truth]
        above = [p.t for p in self.points if p.reward and p.reward.above]
        return above[0] - true[0] if true and above else None


def episode(
    planned: Planned, frames: list[Frame], rewards: dict[tuple[str, int], Reward], grasped: dict[int, bool]
) -> Episode:
    """Join frames, rewards (by the frame's boot and seq) and truth (by exposure number)."""
    began = frames[0].t_capture if frames else 0
    points = [
        Point(
            (f.t_capture - began) / 1e9, f.exposure_seq, grasped[f.exposure_seq], rewards.get((f.boot, f.seq))
        )
        for f in frames
        if f.exposure_seq in grasped
    ]
    return Episode(planned, points)


@dataclass(frozen=True)
class Ticks:
    """The reward against the camera it judges, over a stretch of time."""

    frames: int
    missed: int
    doubled: int
    largest_gap_s: float
    latency_ms: list[float] = field(repr=False)


def ticks(frames: list[Frame], rewards: list[Reward], begin_ns: int, end_ns: int) -> Ticks:
    """Every camera frame captured within [begin, end] must have exactly one reward.

    Latency is from capture to the reward's publication.
    """
    inside = [f for f in frames if begin_ns <= f.t_capture <= end_ns]
    answers: dict[tuple[str, int], list[Reward]] = {}
    for r in rewards:
        answers.setdefault((r.frame_boot, r.frame_seq), []).append(r)
    counts = [len(answers.get((f.boot, f.seq), [])) for f in inside]
    published = [r.t_publish for r in rewards if r.frame_seq >= 0 and begin_ns <= r.t_capture <= end_ns]
    gaps = np.diff(published) / 1e9 if len(published) > 1 else np.array([0.0])
    latency = [(a[0].t_publish - f.t_capture) / 1e6 for f in inside if (a := answers.get((f.boot, f.seq)))]
    return Ticks(
        len(inside), sum(c == 0 for c in counts), sum(c > 1 for c in counts), float(gaps.max()), latency
    )


def percentile(values: list[float], q: float) -> float:
    """The ``q``-th percentile, 0.0 of nothing."""
    return round(float(np.percentile(values, q)), 2) if values else 0.0
