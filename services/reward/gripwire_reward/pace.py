"""How many frames a second a camera really gives."""

import itertools
import statistics
from collections import deque

from gripwire.messages import Frame

STALL_PERIODS = 10
"""Without a frame for so many periods, the camera is stalled and the verdict is no."""

_WINDOW = 31
_SOON = 4
"""Frames after which a camera that is far slower than declared is known to be so."""


class Pace:
    """Measures a camera's rate by when its pictures were taken; until then ``nominal_hz`` is believed."""

    def __init__(self, nominal_hz: float) -> None:
        self._nominal_hz = nominal_hz
        self._captures: deque[int] = deque(maxlen=_WINDOW)

    def note(self, frame: Frame) -> None:
        """Take in the next frame."""
        if self._captures and frame.t_capture <= self._captures[-1]:
            self._captures.clear()  # another publisher, or its clock began anew
        self._captures.append(frame.t_capture)

    def hz(self) -> float:
        """Frames per second as captured lately; until enough have come, what the camera is declared to give.

        A camera that is plainly slower than declared is believed after a few frames: its pauses are no
        stalls. One that seems faster is not, since a burst at the start proves nothing.
        """
        if len(self._captures) < _SOON:
            return self._nominal_hz
        measured = 1e9 / statistics.median(b - a for a, b in itertools.pairwise(self._captures))
        full = len(self._captures) == _WINDOW
        return measured if full or measured < self._nominal_hz / 1.5 else self._nominal_hz

    def differs(self, rate_hz: float) -> bool:
        """Whether windows in frames that were made for ``rate_hz`` are wrong by now."""
        return abs(rate_hz / self.hz() - 1) > 0.2

    def stalled(self, silence_ns: int) -> bool:
        """Whether a camera that gave nothing for so long has stopped."""
        return silence_ns >= STALL_PERIODS * 1e9 / self.hz()
