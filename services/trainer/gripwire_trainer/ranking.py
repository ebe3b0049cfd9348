"""How well a score ranks frames of success above the others, whatever the threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """Frames from the highest score down.

    ``cuts``: for each of the m distinct scores, the place of its last frame: a threshold cannot part ties.
    """

    order: NDArray[np.intp]
    success: NDArray[np.bool_]
    cuts: NDArray[np.intp]

    def tally(self, weight: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hits and false alarms (m,) of a threshold at each distinct score, if frame i counts ``weight[i]``
        times."""
        ranked = weight[self.order]
        hits = np.cumsum(ranked * self.success)[self.cuts]
        return hits, np.cumsum(ranked)[self.cuts] - hits


def rank(score: NDArray[np.floating], success: NDArray[np.bool_]) -> Ranking:
    """Of frames (n,) by score."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    cuts = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    return Ranking(order, success[order], cuts)


def auroc(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> float:
    """Area under the ROC curve, ties counted half; nan without both classes."""
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return float("nan")
    before = np.append(0.0, hits[:-1])
    area = np.sum(np.diff(alarms, prepend=0) * (hits + before) / 2)
    return float(area / (hits[-1] * alarms[-1]))


def average_precision(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> float:
    """Sum of precision times the recall gained, from the highest score down; nan without success."""
    if not len(hits) or not hits[-1]:
        return float("nan")
    precision = hits / np.maximum(hits + alarms, 1e-9)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])
