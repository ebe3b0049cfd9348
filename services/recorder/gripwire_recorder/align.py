"""Several streams on one clock, brought to one rate. Pure functions of arrays: no sockets, no clocks.

Times are CLOCK_MONOTONIC in ns as int64. They are kept as integers until a difference is taken: after
104 days of uptime a double no longer holds them exactly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]

SECOND = 1_000_000_000


def grid_start(t_start: int, first: Sequence[int]) -> int:
    """When the first row is: the start that was asked for, or the moment the last stream begins."""
    return max(t_start, *first)


def grid(start: int, end: int, fps: int, skip: int = 0) -> Times:
    """The times ``start + k / fps`` for ``k >= skip`` up to and including ``end``; int64 (n,)."""
    count = (end - start) * fps // SECOND + 1 if end >= start else 0
    index = np.arange(skip, max(skip, count), dtype=np.int64)
    return start + index * SECOND // fps


def nearest(times: Times, at: Times) -> NDArray[np.intp]:
    """For each of ``at`` the index of the closest of the ascending ``times`` (the earlier one when equal)."""
    right = np.searchsorted(times, at).clip(1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(len(at), dtype=np.intp)
    closer_left = at - times[right - 1] <= times[right] - at
    return np.where(closer_left, right - 1, right)


def interpolate(times: Times, values: Values, at: Times) -> Values:
    """``values`` (n, d) at ascending ``times``, linearly between its neighbours at each of ``at``; (m, d).

    Outside of ``times`` the first or last value holds.
    """
    x, xp = (at - times[0]).astype(np.float64), (times - times[0]).astype(np.float64)
    return np.stack([np.interp(x, xp, column) for column in values.T], axis=1)


def in_force(times: Times, values: Values, at: Times, otherwise: Values) -> Values:
    """For each of ``at`` the last of ``values`` (n, d) at or before it; ``otherwise`` (m, d) where there is
    none, or where it is NaN: from then on nothing was in force."""
    if len(times) == 0:
        return otherwise
    last = np.searchsorted(times, at, side="right") - 1
    chosen = values[last.clip(0)]
    return np.where((last >= 0)[:, None] & ~np.isnan(chosen), chosen, otherwise)


def skew_ms(times: Times, chosen: NDArray[np.intp], at: Times) -> NDArray[np.float32]:
    """How much later (or, negative, earlier) than its row each chosen picture was taken; float32 (m,)."""
    return ((times[chosen] - at) / 1e6).astype(np.float32)


def gap_ms(times: Times, at: Times) -> NDArray[np.float32]:
    """How far apart those two of the ascending ``times`` are that each of ``at`` lies between; 0 on one of
    them, and where there is none on one side the distance to the other; float32 (m,)."""
    right = np.searchsorted(times, at)
    before = times[(right - 1).clip(0)]
    after = times[right.clip(0, len(times) - 1)]
    gap = np.where(after == at, 0, after - before)
    gap = np.where(right == 0, times[0] - at, gap)
    gap = np.where(right == len(times), at - times[-1], gap)
    return (gap / 1e6).astype(np.float32)
