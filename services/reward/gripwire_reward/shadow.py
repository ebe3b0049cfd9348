"""Shadow scoring: what a new model says about live frames before it serves, beside the serving one."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.messages import Disagreement
from gripwire_reward.scorer import Scorer

MOST = 20
_WAITING = 4
"""Frames that may wait: the newer model is not to lag behind, and misses some if it is slow."""


@dataclass(frozen=True)
class Comparison:
    """On how many frames two models were compared, and where they differ: the worst first."""

    frames: int = 0
    disagreements: tuple[Disagreement, ...] = ()


_Shown = tuple[int, Sequence[NDArray[np.uint8]], float | None]


class Shadow:
    """The loop shows it each frame that it has judged; another thread runs the new model on them."""

    def __init__(self, serving: Scorer, offered: Scorer) -> None:
        self._thresholds = [s.bundle.manifest.decision.threshold for s in (serving, offered)]
        self._offered = offered
        self._shown: queue.Queue[tuple[int, Sequence[NDArray[np.uint8]], float | None]] = queue.Queue(
            _WAITING
        )

    def show(self, frame_seq: int, images: Sequence[NDArray[np.uint8]], probability: float | None) -> None:
        """A frame and what the serving model says of it (None: not valid). Never waits."""
        try:
            self._shown.put_nowait((frame_seq, images, probability))
        except queue.Full:
            return

    def run(self, seconds: float, ending: threading.Event) -> Comparison:
        """Compare for so long, or until ``ending``."""
        deadline, frames = time.monotonic() + seconds, 0
        found: list[Disagreement] = []
        while (left := deadline - time.monotonic()) > 0 and not ending.is_set():
            try:
                seq, images, said = self._shown.get(timeout=min(left, 0.1))
            except queue.Empty:
                continue
            frames += 1
            offered = self._judge(images)
            if self._above(0, said) != self._above(1, offered):
                found.append(Disagreement(frame_seq=seq, serving=said, offered=offered))
        found.sort(key=lambda d: -abs((d.serving or 0.0) - (d.offered or 0.0)))
        return Comparison(frames, tuple(found[:MOST]))

    def _judge(self, images: Sequence[NDArray[np.uint8]]) -> float | None:
        try:
            score = self._offered.frame(*images)
        except UserError:
            return None
        return None if self._offered.strange(score.drift) else score.probability

    def _above(self, which: int, probability: float | None) -> bool:
        return probability is not None and probability >= self._thresholds[which]
