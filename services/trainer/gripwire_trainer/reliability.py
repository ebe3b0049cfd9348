"""Whether a probability means what it says: predicted against seen, bin by bin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Bins:
    """Sums over the frames of each equal bin of probability, (..., BINS): how many frames, the
    probabilities predicted for them, and the successes among them."""

    frames: NDArray[np.float64]
    predicted: NDArray[np.float64]
    seen: NDArray[np.float64]


def tally(
    probability: NDArray[np.floating], success: NDArray[np.bool_], owner: NDArray[np.intp], episodes: int
) -> Bins:
    """Bins of each episode, (episodes, BINS). ``owner`` (n,) is the episode of each frame."""
    which = owner * BINS + np.clip((probability * BINS).astype(np.intp), 0, BINS - 1)

    def sums(of: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        counted = np.bincount(which, weights=of, minlength=episodes * BINS)
        return counted.reshape(episodes, BINS).astype(np.float64)

    return Bins(sums(), sums(probability), sums(success.astype(np.float64)))


def drawn(bins: Bins, counts: NDArray[np.float64]) -> Bins:
    """Bins of all episodes together, each counted as often as the rows of ``counts`` say, (r, BINS)."""
    return Bins(counts @ bins.frames, counts @ bins.predicted, counts @ bins.seen)


def calibration_error(bins: Bins) -> NDArray[np.float64]:
    """Expected calibration error (...,): |mean probability - share of success|, weighted by frames."""
    frames = bins.frames.sum(-1)
    gap = np.abs(bins.predicted - bins.seen).sum(-1)
    return np.divide(gap, frames, out=np.full_like(gap, np.nan), where=frames > 0)
