"""A camera's true rate, by its pictures: an address cannot be asked for it, a device may promise too much."""

from itertools import pairwise
from statistics import median

WINDOW_S = 3.0
ENOUGH = 0.8
"""A camera that gives so much of the rate gives it."""


class Rate:
    """Pictures a second, once in ``WINDOW_S``. Pure: time comes with the picture.

    By the median of the intervals, so that a hiccup of a busy machine or network does not count.
    """

    def __init__(self) -> None:
        self._times: list[int] = []

    def see(self, t_ns: int) -> float | None:
        """Note a picture (CLOCK_MONOTONIC ns); the rate, at the end of each window."""
        self._times.append(t_ns)
        if t_ns - self._times[0] < WINDOW_S * 1e9:
            return None
        times, self._times = self._times, [t_ns]
        interval = median(later - earlier for earlier, later in pairwise(times))
        return 1e9 / max(interval, 1)
