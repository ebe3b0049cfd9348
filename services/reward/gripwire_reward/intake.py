"""Which frames are judged, and when: every one in order, or the newest at a fixed rate."""

import math
import time
from dataclasses import dataclass

from gripwire import clock
from gripwire.bus import Queued, Received
from gripwire.messages import Frame

BACKLOG_S = 0.5
"""Frames that waited longer are passed over, and each is reported: a live signal must not lag for good."""


@dataclass(frozen=True)
class Taken:
    """A frame to answer. ``skipped``: nobody looks at it, it came too late to matter."""

    received: Received[Frame]
    skipped: bool = False


class Intake:
    """Takes frames off the camera's queue.

    Without ``rate_hz`` every frame is answered. With it, on an absolute schedule, the newest that has not
    been judged yet: where the camera is slower, a tick waits for its next frame, since an old picture says
    nothing new.
    """

    def __init__(self, frames: Queued[Frame], rate_hz: float | None) -> None:
        self._frames = frames
        self._period = 1.0 / rate_hz if rate_hz else 0.0
        self._due = time.monotonic()
        self._newest: Received[Frame] | None = None
        self._gaps, self._refused = (0, 0), 0

    def next(self, wait_s: float) -> list[Taken]:
        """What to answer now, in order; empty when nothing came within ``wait_s``."""
        if self._period:
            received = self._at_rate(time.monotonic() + wait_s)
            return [_taken(received)] if received else []
        received = self._frames.receive(wait_s)
        if received is None:
            return []
        if _waited_s(received) <= BACKLOG_S:
            return [Taken(received)]
        waiting = [received, *self._frames.drain()]
        return [*(Taken(late, skipped=True) for late in waiting[:-1]), _taken(waiting[-1])]

    def _at_rate(self, deadline: float) -> Received[Frame] | None:
        while True:
            for received in self._frames.drain():
                self._newest = received
            now = time.monotonic()
            if self._newest is not None and now >= self._due:
                self._due += self._period * max(1, math.ceil((now - self._due) / self._period))
                taken, self._newest = self._newest, None
                return taken
            until = min(deadline, self._due) if self._newest is not None else deadline
            if now >= deadline:
                return None
            if (received := self._frames.receive(max(0.0, until - now))) is not None:
                self._newest = received

    def lost(self) -> tuple[int, bool]:
        """Frames that never came since the last call, and whether evidence from before still counts: not
        after a loss, nor after another publisher took over."""
        gaps = (self._frames.gaps.lost, self._frames.gaps.restarts)
        lost, broken = gaps[0] - self._gaps[0], gaps != self._gaps
        self._gaps = gaps
        return lost, broken

    def refused(self) -> tuple[int, str]:
        """Messages since the last call that could not be read, and why the last one could not."""
        count, self._refused = self._frames.refused - self._refused, self._frames.refused
        return count, self._frames.refusal


def _taken(received: Received[Frame]) -> Taken:
    """The newest there is; even that is too old where this process was stopped and the queue has overflowed,
    since a full queue keeps the oldest."""
    return Taken(received, skipped=_waited_s(received) > BACKLOG_S)


def _waited_s(received: Received[Frame]) -> float:
    message = received.message
    return (received.t_receive - message.t_publish) / 1e9 if message.host == clock.host_id() else 0.0
