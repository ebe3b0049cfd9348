"""Is a topic alive, on rate and valid? A pure function of times and messages."""

from collections import deque
from dataclasses import dataclass
from statistics import median

from gripwire import clock
from gripwire.bus import Gaps, Received
from gripwire.messages import Message, RobotAction
from gripwire.topics import Topic

ALIVE_PERIODS = 10
REPETITION_NS = 50_000_000
"""A latched message that arrives so long after it was published is a repetition."""
ON_RATE = (0.8, 1.2)


@dataclass(frozen=True)
class Liveness:
    """What is known of a topic at one moment. Times in seconds, None where nothing is known."""

    seen: bool
    alive: bool
    on_rate: bool
    valid: bool
    rate_hz: float | None
    age_s: float | None
    delay_ms: float | None
    lost: int
    publisher: str
    reason: str


class Meter:
    """Collects a topic's messages and judges it.

    ``alive``: the last message is younger than ten periods (at least 50 ms, so that a reader's own hiccup
    is not a publisher's death). ``on_rate``: 0.8 to 1.2 of the declared rate over the window. ``valid``:
    alive, and its publisher vouches for it.
    """

    def __init__(self, topic: Topic, window_s: float = 3.0) -> None:
        self.topic = topic
        self.gaps = Gaps()
        self._window_ns = int(window_s * 1e9)
        self._arrivals: deque[int] = deque()
        self._delays: deque[float] = deque(maxlen=200)
        self._last: Message | None = None
        self._heard = 0

    def see(self, received: Received[Message]) -> None:
        """Note a message."""
        message, now = received.message, received.t_receive
        self.gaps.see(message)
        self._last, self._heard = message, now
        repeated = self.topic.latched and message.host == clock.host_id()
        if repeated and now - message.t_publish > REPETITION_NS:
            return  # the last message sent again for a new reader: it says nothing about the rate
        self._arrivals.append(now)
        while self._arrivals[0] < now - self._window_ns:
            self._arrivals.popleft()
        # Between hosts the clocks have nothing in common; a latched message may be hours old by right.
        if message.host == clock.host_id() and self.topic.rate_hz:
            # An action is repeated until there is another: how old the goal is, is no delay.
            since = message.t_publish if isinstance(message, RobotAction) else message.t_capture
            self._delays.append((now - since) / 1e6)

    def judge(self, now_ns: int) -> Liveness:
        """The verdict at ``now_ns`` (CLOCK_MONOTONIC)."""
        last = self._last
        if last is None:
            return Liveness(False, False, False, False, None, None, None, 0, "", "nothing received")
        age = (now_ns - self._heard) / 1e9
        declared = self.topic.rate_hz
        rate = self._rate(now_ns)
        alive = declared is None or age < max(ALIVE_PERIODS / declared, 0.05)
        on_rate = declared is None or (
            rate is not None and ON_RATE[0] * declared <= rate <= ON_RATE[1] * declared
        )
        reason = str(getattr(last, "reason", "") or getattr(last, "problem", ""))
        return Liveness(
            True, alive, on_rate, alive and last.valid, rate, age,
            median(self._delays) if self._delays else None, self.gaps.lost, last.boot,
            reason if alive else f"silent for {age:.1f} s",
        )  # fmt: skip

    def _rate(self, now_ns: int) -> float | None:
        recent = [t for t in self._arrivals if t >= now_ns - self._window_ns]
        if len(recent) < 2:
            return None
        return (len(recent) - 1) * 1e9 / (recent[-1] - recent[0])
