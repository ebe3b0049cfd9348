"""The curves of a report as numbers: what its page and its picture both draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gripwire_reward import calibration
from gripwire_reward.calibration import Calibration
from gripwire_trainer import ranking, reliability
from gripwire_trainer.figures import Judged, by_frame
from gripwire_trainer.reliability import Bins


@dataclass(frozen=True)
class Reliability:
    """Per bin that has frames: the mean predicted, the share seen with its 95 % interval, how many frames."""

    predicted: NDArray[np.float64]
    seen: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    frames: NDArray[np.float64]
    error: float


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall (m,) from the highest threshold down.

    ``served``: recall and precision at the bundle's threshold. ``judged``: those of the verdicts themselves,
    each head at its own threshold, frames that are not valid counting as no; None if nothing was positive.
    """

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    served: tuple[float, float] | None
    judged: tuple[float, float] | None
    base: float

    @property
    def begin(self) -> float:
        """Where both axes may begin so that the marked points lie within."""
        lowest = min((x for point in (self.served, self.judged) if point for x in point), default=0.0)
        return next((begin for begin in (0.9, 0.5) if lowest >= begin + 0.02), 0.0)


def raw(logit: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability without calibration."""
    return calibration.apply(logit, Calibration())


def reliability_curves(judged: Sequence[Judged]) -> tuple[Reliability, Reliability]:
    """Before and after calibration."""
    probability, logit, success = _pooled(judged)
    return _reliability(raw(logit), success), _reliability(probability, success)


def precision_recall(judged: Sequence[Judged], threshold: float) -> PrecisionRecall:
    """Over all frames that count; the ``threshold`` is the bundle's."""
    probability, _, success = _pooled(judged)
    hits, alarms = ranking.rank(probability, success).tally(np.ones(len(success)))
    total = max(1, int(success.sum()))
    above, cell = probability >= threshold, by_frame(judged)
    return PrecisionRecall(
        recall=hits / total,
        precision=hits / np.maximum(1, hits + alarms),
        served=_point(int((above & success).sum()), int(above.sum()), total),
        judged=_point(cell.hits, cell.hits + cell.false_alarms, total),
        base=float(success.mean()) if len(success) else 0.0,
    )


def _point(hits: int, said: int, total: int) -> tuple[float, float] | None:
    return (hits / total, hits / said) if said else None


def _pooled(
    judged: Sequence[Judged],
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]:
    probability = np.concatenate([e.probability[e.counted] for e in judged])
    logit = np.concatenate([e.logit[e.counted] for e in judged])
    return probability, logit, np.concatenate([e.success[e.counted] for e in judged])


def _reliability(probability: NDArray[np.float64], success: NDArray[np.bool_]) -> Reliability:
    one = np.zeros(len(success), np.intp)
    bins: Bins = reliability.tally(probability, success, one, 1)
    used = bins.frames[0] > 0
    frames, seen = bins.frames[0][used], bins.seen[0][used] / bins.frames[0][used]
    low, high = _wilson(seen, frames)
    predicted = bins.predicted[0][used] / frames
    error = float(reliability.calibration_error(bins)[0])
    return Reliability(predicted, seen, low, high, frames, error)


def _wilson(
    share: NDArray[np.float64], of: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a share (E. B. Wilson, 1927), which is no point where all or none of a few were."""
    z = 1.96
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
