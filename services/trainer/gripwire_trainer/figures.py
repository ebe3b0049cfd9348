"""Figures of a classifier over held-out episodes, each with its interval: pure functions of arrays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gripwire_reward.bundle import Metric


@dataclass(frozen=True)
class Judged:
    """One held-out episode: truth and what a head that never saw it said, one entry per frame."""

    name: str
    fps: float
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    logit: NDArray[np.float32]
    probability: NDArray[np.float64]
    above: NDArray[np.bool_]
    decision: NDArray[np.bool_]

    @property
    def failed(self) -> bool:
        return not self.success.any()


def auroc(score: NDArray[np.floating], success: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks, ties counted half; nan without both classes."""
    positives, negatives = int(success.sum()), int((~success).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][success].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(score: NDArray[np.floating], success: NDArray[np.bool_]) -> float:
    """Sum of precision times the recall gained, from the highest score down; nan without success."""
    if not success.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits, ranked = np.cumsum(success[order]), score[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    recall, precision = hits[last_of_tie] / hits[-1], hits[last_of_tie] / (np.flatnonzero(last_of_tie) + 1)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def calibration_error(probability: NDArray[np.floating], success: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: |mean probability - share of success| over equal bins, weighted by "
    "frames."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gap = 0.0
    for i in np.unique(which):
        inside = which == i
        gap += inside.mean() * abs(probability[inside].mean() - success[inside].mean())
    return float(gap)


def onset_errors(above: NDArray[np.bool_], success: NDArray[np.bool_]) -> list[int]:
    """For every beginning of success, how many frames off the nearest beginning of ``above`` is.

    One that is never answered, because ``above`` never begins, counts as the whole episode's length.
    """
    true = np.flatnonzero(np.diff(success, prepend=False) & success)
    said = np.flatnonzero(np.diff(above, prepend=False) & above)
    return [int(np.abs(said - t).min()) if len(said) else len(success) for t in true]


def share_with_bound(hits: int, of: int) -> Metric:
    """A share of episodes with its exact one-sided 95 % upper bound (Clopper-Pearson): none in 20 proves
    only a rate below 13.9 %."""
    if of == 0:
        return Metric(value=0.0, low=0.0, high=1.0, episodes=0)

    def at_most(rate: float) -> float:
        return sum(math.comb(of, i) * rate**i * (1 - rate) ** (of - i) for i in range(hits + 1))

    low, high = hits / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 0.05 else (low, middle)
    return Metric(value=hits / of, low=0.0, high=high, episodes=of)


def bootstrap(
    episodes: Sequence[Judged], figure: Callable[[Sequence[Judged]], float], rounds: int = 200
) -> Metric:
    """A figure with its 95 % interval from resampling whole episodes: frames of one are not independent."""
    rng = np.random.default_rng(0)
    value = figure(episodes)
    drawn = [
        figure([episodes[i] for i in rng.integers(len(episodes), size=len(episodes))]) for _ in range(rounds)
    ]
    finite = [x for x in drawn if math.isfinite(x)] or [value]
    low, high = np.percentile(finite, [2.5, 97.5])
    return Metric(value=value, low=float(low), high=float(high), episodes=len(episodes))


def frame_accuracy(episodes: Sequence[Judged]) -> float:
    """Share of counted frames where ``probability >= threshold`` agrees with the truth."""
    right = sum(int((e.above == e.success)[e.counted].sum()) for e in episodes)
    return right / max(1, sum(int(e.counted.sum()) for e in episodes))


def always_fail(episodes: Sequence[Judged]) -> float:
    """What answering "fail" to every frame would score."""
    right = sum(int((~e.success)[e.counted].sum()) for e in episodes)
    return right / max(1, sum(int(e.counted.sum()) for e in episodes))


def flicker_per_minute(episodes: Sequence[Judged]) -> float:
    """Changes of the decision beyond the true ones, per minute."""

    def changes(x: NDArray[np.bool_]) -> int:
        return int((x[1:] != x[:-1]).sum())

    extra = sum(max(0, changes(e.decision) - changes(e.success)) for e in episodes)
    return extra / max(1e-9, sum(len(e.success) / e.fps for e in episodes) / 60)


def all_figures(
    episodes: Sequence[Judged], raw: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> dict[str, Metric]:
    """Every figure of the report. ``raw`` turns logits to probabilities without calibration."""
    failed = [e for e in episodes if e.failed]
    succeeded = [e for e in episodes if not e.failed]
    onsets = [error / e.fps for e in succeeded for error in onset_errors(e.above, e.success)]
    frames_off = [error for e in succeeded for error in onset_errors(e.above, e.success)]

    def pooled(
        figure: Callable[..., float], of: Callable[[Judged], NDArray[np.floating]]
    ) -> Callable[..., float]:
        return lambda part: figure(
            np.concatenate([of(e)[e.counted] for e in part]),
            np.concatenate([e.success[e.counted] for e in part]),
        )

    def plain(value: float) -> Metric:
        return Metric(value=value, episodes=len(episodes))

    return {
        "frame_accuracy": bootstrap(episodes, frame_accuracy),
        "always_fail_accuracy": plain(always_fail(episodes)),
        "false_success_rate": share_with_bound(sum(bool(e.decision.any()) for e in failed), len(failed)),
        "missed_success_rate": share_with_bound(sum(not e.decision.any() for e in succeeded), len(succeeded)),
        "onset_error_median_frames": plain(float(np.median(frames_off))),
        "onset_error_p90_frames": plain(float(np.percentile(frames_off, 90))),
        "onset_error_median_s": plain(float(np.median(onsets))),
        "flicker_per_minute": plain(flicker_per_minute(episodes)),
        "auroc": bootstrap(episodes, pooled(auroc, lambda e: e.logit)),
        "average_precision": bootstrap(episodes, pooled(average_precision, lambda e: e.logit)),
        "ece_before": plain(pooled(calibration_error, lambda e: raw(e.logit))(episodes)),
        "ece_after": bootstrap(episodes, pooled(calibration_error, lambda e: e.probability)),
    }
