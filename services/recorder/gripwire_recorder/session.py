"""A session: so many episodes of so many seconds, with time to put things back before each. Pure."""

from dataclasses import dataclass
from typing import Literal

from gripwire.messages import StartSession

Act = Literal["start", "stop", "discard", "reject", "over"]


@dataclass
class Session:
    """What is to be done when. Times are monotonic seconds.

    It begins with a reset phase. Each method returns what the recorder has to do now, in order.
    """

    plan: StartSession
    now: float

    def __post_init__(self) -> None:
        self.done = 0
        self.phase: Literal["reset", "recording"] = "reset"
        self.until = self.now + self.plan.reset_seconds
        self._rejected = False

    def tick(self, now: float) -> list[Act]:
        """Time passes."""
        if now < self.until:
            return []
        return ["start"] if self.phase == "reset" else self._finish(now)

    def begun(self, now: float) -> None:
        """The recorder could begin the episode."""
        self.phase, self.until, self._rejected = "recording", now + self.plan.seconds, False

    def refused(self, now: float, again_s: float) -> None:
        """It could not: try again, for example when the camera is back."""
        self.until = now + again_s

    def cut_short(self, now: float) -> None:
        """The episode has ended by itself: it does not count."""
        self._rest(now)

    def left(self, now: float) -> float:
        """Seconds that the phase still lasts."""
        return max(0.0, self.until - now)

    def next(self, now: float) -> list[Act]:
        """End the present phase at once."""
        return ["start"] if self.phase == "reset" else self._finish(now)

    def redo(self, now: float) -> list[Act]:
        """Once more: throw away what is being recorded, or reject the last episode and record another."""
        if self.phase == "recording":
            self._rest(now)
            return ["discard"]
        if self.done == 0 or self._rejected:
            return []
        self.done -= 1
        self._rejected = True
        self.until = now + self.plan.reset_seconds
        return ["reject"]

    def end(self) -> list[Act]:
        """No further episode; the one that is being recorded is kept."""
        return ["over", "stop"] if self.phase == "recording" else ["over"]

    def _finish(self, now: float) -> list[Act]:
        self.done += 1
        self._rest(now)
        return ["over", "stop"] if self.done >= self.plan.episodes else ["stop"]

    def _rest(self, now: float) -> None:
        self.phase, self.until = "reset", now + self.plan.reset_seconds
