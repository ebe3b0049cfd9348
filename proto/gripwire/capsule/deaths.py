"""Tells from the heartbeats when a service died: what an automatic capsule is made of."""

from gripwire.liveness import ALIVE_PERIODS
from gripwire.messages import Health

_UP = ("ready", "degraded")


class Deaths:
    """Follows every service's heartbeat. Times in seconds of any one clock.

    A service that cannot even start is no incident: it says itself what it lacks.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Health, float]] = {}

    def see(self, beat: Health, now: float) -> str:
        """What this heartbeat tells of a death, in words; empty: nothing."""
        before = self._last.get(beat.service)
        self._last[beat.service] = (beat, now)
        if before is None or before[0].state not in _UP:
            return ""
        last = before[0]
        if beat.boot != last.boot:
            return f"{beat.service} was killed or crashed"
        # A problem is remembered after it is over: an error that ends a service comes with its last beat.
        if beat.state == "stopping" and beat.last_error != last.last_error:
            return f"{beat.service} ended: {beat.last_error}"
        return ""

    def silent(self, now: float) -> str:
        """A service that fell silent without having said that it ends; each is told once."""
        for service, (beat, heard) in self._last.items():
            if beat.state in _UP and now - heard > ALIVE_PERIODS:
                del self._last[service]
                return f"{service} has been silent for {ALIVE_PERIODS} s"
        return ""
