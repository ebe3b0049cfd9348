"""Figures of a classifier over held-out episodes, each with its interval: pure functions of arrays.

Figures by frame are over the frames whose label is certain (``counted``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gripwire_reward.bundle import Metric
from gripwire_trainer import ranking, reliability
from gripwire_trainer.intervals import draws, interval, share_with_bound
from gripwire_trainer.onsets import earliest_onset, onset_errors


@dataclass(frozen=True)
class Judged:
    """One held-out episode: truth and what a head that never saw it said, one entry per frame.

    ``above``: ``probability >= threshold`` of a valid frame. ``threshold``: of the head that judged the
    episode, since each has its own.
    """

    name: str
    fps: float
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    logit: NDArray[np.float32]
    probability: NDArray[np.float64]
    above: NDArray[np.bool_]
    decision: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    threshold: float

    @property
    def failed(self) -> bool:
        return not self.success.any()

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where ``probability >= threshold`` agrees with the truth; never where the frame is not valid."""
        return (self.above == self.success) & self.valid


@dataclass(frozen=True)
class Confusion:
    """Counts of what was said of what is true."""

    hits: int
    false_alarms: int
    misses: int
    rejections: int


def by_frame(episodes: Sequence[Judged]) -> Confusion:
    """Over all frames that count; one that is not valid says no."""
    above = np.concatenate([e.above[e.counted] for e in episodes])
    success = np.concatenate([e.success[e.counted] for e in episodes])
    return _confusion(above, success)


def by_episode(episodes: Sequence[Judged]) -> Confusion:
    """Whether success was ever decided, against whether there ever was any. A success decided only where
    there is none is a miss."""
    decided = np.array([bool((e.decision if e.failed else e.decision & e.success).any()) for e in episodes])
    return _confusion(decided, np.array([not e.failed for e in episodes]))


def decided_early(e: Judged) -> bool:
    """Whether success was decided before the first success of the episode may have begun."""
    first = 0 if e.failed else earliest_onset(int(e.success.argmax()), e.success, e.counted)
    return bool(e.decision[:first].any())


def _confusion(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> Confusion:
    cells = np.bincount(2 * true.astype(int) + said, minlength=4).tolist()
    return Confusion(hits=cells[3], false_alarms=cells[1], misses=cells[2], rejections=cells[0])


def _changes(mask: NDArray[np.bool_]) -> int:
    return int((mask[1:] != mask[:-1]).sum())


def _counted(e: Judged) -> int:
    return int(e.counted.sum())


Ratio = Callable[[Judged], tuple[float, float]]
RATIOS: dict[str, Ratio] = {
    "frame_accuracy": lambda e: (int(e.right[e.counted].sum()), _counted(e)),
    "always_fail_accuracy": lambda e: (int((~e.success & e.counted).sum()), _counted(e)),
    "precision": lambda e: (
        int((e.above & e.success & e.counted).sum()),
        int((e.above & e.counted).sum()),
    ),
    "recall": lambda e: (
        int((e.above & e.success & e.counted).sum()),
        int((e.success & e.counted).sum()),
    ),
    "invalid_share": lambda e: (int((~e.valid).sum()), len(e.valid)),
    "flicker_per_minute": lambda e: (
        max(0, _changes(e.decision) - _changes(e.success)),
        len(e.success) / e.fps / 60,
    ),
    "brier": lambda e: (float(((e.probability - e.success)[e.counted] ** 2).sum()), _counted(e)),
}
"""Figures that are a sum over all episodes by another: what one episode adds to either."""


def all_figures(
    episodes: Sequence[Judged], raw: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> dict[str, Metric]:
    """Every figure of the report, but those that these episodes do not define: there is no onset error
    without success. ``raw`` turns logits to probabilities without calibration.

    Intervals are of the middle 95 % of 200 draws of episodes; those of shares of episodes are exact and
    one-sided.
    """
    values = _values(episodes, raw, draws(len(episodes)))
    succeeded = sum(not e.failed for e in episodes)
    found = {
        name: interval(each, succeeded if name.startswith("onset") else len(episodes))
        for name, each in values.items()
        if np.isfinite(each[0])
    }
    decided = by_episode(episodes)
    shares = {
        "false_success_rate": share_with_bound(decided.false_alarms, len(episodes) - succeeded),
        "missed_success_rate": share_with_bound(decided.misses, succeeded),
        "early_success_rate": share_with_bound(sum(map(decided_early, episodes)), succeeded),
    }
    return shares | found


def always_fail(
    episodes: Sequence[Judged], raw: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> dict[str, float]:
    """What the figures would be if "fail" were always answered, with certainty. No onset is ever found."""

    def silent(e: Judged) -> Judged:
        never, always = np.zeros(len(e.success), bool), np.ones(len(e.success), bool)
        return replace(
            e, logit=np.full(len(e.success), -100, np.float32), probability=np.zeros(len(e.success)),
            above=never, decision=never, valid=always,
        )  # fmt: skip

    values = _values([silent(e) for e in episodes], raw, draws(len(episodes), rounds=0))
    out = {n: float(v[0]) for n, v in values.items() if np.isfinite(v[0]) and not n.startswith("onset")}
    return {"false_success_rate": 0.0, "missed_success_rate": 1.0, "early_success_rate": 0.0} | out


def _values(
    episodes: Sequence[Judged],
    raw: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    counts: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Each figure once per row of ``counts``, which says how often each episode counts."""
    return _ratios(episodes, counts) | _onsets(episodes, counts) | _by_score(episodes, raw, counts)


def _ratios(episodes: Sequence[Judged], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    out = {}
    for name, ratio in RATIOS.items():
        above, below = (counts @ np.array([ratio(e) for e in episodes], np.float64)).T
        out[name] = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return out


def _onsets(episodes: Sequence[Judged], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Median and 90th percentile, in frames and in seconds."""
    found = [
        (i, error, error / e.fps)
        for i, e in enumerate(episodes)
        for error in onset_errors(e.above, e.success, e.counted)
    ]
    out: dict[str, NDArray[np.float64]] = {}
    owner = np.array([i for i, _, _ in found], np.intp)
    for unit, errors in (("frames", [f for _, f, _ in found]), ("s", [s for _, _, s in found])):
        spread = np.array([_middle(np.repeat(errors, row[owner].astype(int))) for row in counts])
        out |= {f"onset_error_median_{unit}": spread[:, 0], f"onset_error_p90_{unit}": spread[:, 1]}
    return out


def _middle(errors: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.percentile(errors, [50, 90]) if len(errors) else np.full(2, np.nan)


def _by_score(
    episodes: Sequence[Judged],
    raw: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    counts: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    owner = np.concatenate([np.full(_counted(e), i) for i, e in enumerate(episodes)])
    success = np.concatenate([e.success[e.counted] for e in episodes])
    logit = np.concatenate([e.logit[e.counted] for e in episodes])
    probability = np.concatenate([e.probability[e.counted] for e in episodes])
    # By probability: logits of heads that were calibrated apart are not on one scale.
    order = ranking.rank(probability, success)
    tallies = [order.tally(row[owner]) for row in counts]

    def error(said: NDArray[np.float64]) -> NDArray[np.float64]:
        bins = reliability.tally(said, success, owner, len(episodes))
        return reliability.calibration_error(reliability.drawn(bins, counts))

    return {
        "auroc": np.array([ranking.auroc(*each) for each in tallies]),
        "average_precision": np.array([ranking.average_precision(*each) for each in tallies]),
        "ece_before": error(raw(logit)),
        "ece_after": error(probability),
    }
