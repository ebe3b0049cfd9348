"""How often a peer may ask: a token bucket for each peer and kind of request."""

from collections import OrderedDict

_BUCKETS = 1024
"""Peers and kinds that are remembered; of more, those that were not heard of for longest are forgotten."""


class Limits:
    """Buckets that hold a second's worth of requests and fill at the rate that is allowed."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[bytes, str], tuple[float, float]] = OrderedDict()

    def allow(self, peer: bytes, kind: str, rate_hz: float, now: float) -> bool:
        """Whether one more request at ``now`` (seconds, monotonic) is within ``rate_hz``; if so it counts."""
        left, since = self._left.pop((peer, kind), (rate_hz, now))
        left = min(rate_hz, left + (now - since) * rate_hz)
        allowed = left >= 1.0
        self._left[peer, kind] = (left - allowed, now)
        if len(self._left) > _BUCKETS:
            self._left.popitem(last=False)
        return allowed
