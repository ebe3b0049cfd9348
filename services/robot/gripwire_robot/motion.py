"""Motion over time: smooth moves, and velocities from positions. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

PEAK = 1.875
"""Peak speed of a minimum-jerk move, in units of distance per duration."""


@dataclass(frozen=True)
class Move:
    """A minimum-jerk move (Flash and Hogan 1985): at rest at both ends, no jump in acceleration.

    ``start`` and ``target`` name the same joints; ``t_start`` is in seconds on any clock.
    """

    start: Mapping[str, float]
    target: Mapping[str, float]
    t_start: float
    seconds: float

    def at(self, t: float) -> dict[str, float]:
        """The pose at time ``t``."""
        if self.over(t):  # start + (target - start) can miss the target by a rounding error
            return dict(self.target)
        x = max((t - self.t_start) / self.seconds, 0.0)
        s = x * x * x * (10 + x * (6 * x - 15))
        return {j: a + s * (self.target[j] - a) for j, a in self.start.items()}

    def over(self, t: float) -> bool:
        return t >= self.t_start + self.seconds


@dataclass(frozen=True)
class Legs:
    """Moves one after another, each from where and when the one before it ends: at rest at every stop."""

    moves: tuple[Move, ...]

    @property
    def target(self) -> Mapping[str, float]:
        return self.moves[-1].target

    @property
    def t_start(self) -> float:
        return self.moves[0].t_start

    @property
    def seconds(self) -> float:
        return sum(move.seconds for move in self.moves)

    def at(self, t: float) -> dict[str, float]:
        """The pose at time ``t``."""
        return next((move for move in self.moves if not move.over(t)), self.moves[-1]).at(t)

    def over(self, t: float) -> bool:
        return self.moves[-1].over(t)


def shortest(start: Mapping[str, float], target: Mapping[str, float], speed: float) -> float:
    """Seconds a :class:`Move` needs so that no joint exceeds ``speed`` (units per second)."""
    return PEAK * max((abs(target[j] - start[j]) for j in target), default=0.0) / speed


class Velocity:
    """Joint velocities as the slope of the positions over the last ``window_s``.

    A servo reports 4096 steps a turn: from one reading to the next at 60 Hz one step is 5 degrees per
    second, over 50 ms it is 1.8. (The servos' own Present_Velocity would cost a second transfer per tick.)
    """

    def __init__(self, window_s: float = 0.05) -> None:
        self._window_ns = int(window_s * 1e9)
        self._past: deque[tuple[int, dict[str, float]]] = deque()

    def see(self, position: Mapping[str, float], t_ns: int) -> dict[str, float]:
        """Note a reading; units per second by joint, 0 until there are two."""
        self._past.append((t_ns, dict(position)))
        while len(self._past) > 2 and self._past[1][0] <= t_ns - self._window_ns:
            self._past.popleft()
        t_then, then = self._past[0]
        seconds = (t_ns - t_then) / 1e9
        return {j: (p - then[j]) / seconds if seconds > 0 and j in then else 0.0 for j, p in position.items()}

    def forget(self) -> None:
        """After a gap the past says nothing about the present."""
        self._past.clear()
