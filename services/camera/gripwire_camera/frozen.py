"""A frozen picture: a live camera has noise, so the same bytes for a second mean that nobody is looking."""

FROZEN_AFTER_NS = 1_000_000_000


class Frozen:
    """Tells whether a live source has repeated itself for ``after_ns``. Pure: time comes with the picture."""

    def __init__(self, after_ns: int = FROZEN_AFTER_NS) -> None:
        self._after_ns = after_ns
        self._last: bytes = b""
        self._since_ns = 0

    def see(self, data: bytes, t_ns: int) -> bool:
        """Note a picture (its bytes and CLOCK_MONOTONIC ns); True while it is frozen.

        The first picture, and the first that differs, is never frozen.
        """
        if data != self._last:
            self._last, self._since_ns = data, t_ns
        return t_ns - self._since_ns >= self._after_ns
