"""How long the disk will last, and when to stop before it is full."""

import shutil
import time
from pathlib import Path

from gripwire.errors import UserError

_LOOK_S = 1.0
_PICTURES_TWICE = 1.5
"""An episode takes its journal's size, and while both are there about half of it again for the video."""
_USUAL_BYTES_PER_S = 1.5e6


class Disk:
    """The free space of the disk that holds ``folder``, looked at once a second.

    ``floor_mb``: an episode is not begun with less; ``stop_mb``: one that runs is ended.
    """

    def __init__(self, folder: Path, floor_mb: float) -> None:
        self._folder = folder
        self.floor_mb, self.stop_mb = floor_mb, floor_mb / 2
        self._rate = _USUAL_BYTES_PER_S
        self._before: tuple[float, int] | None = None
        self._free: float | None = None
        self._looked = 0.0

    def free_mb(self) -> float:
        """Now.

        Raises:
            UserError: the folder cannot be read.
        """
        try:
            return shutil.disk_usage(self._folder).free / 2**20
        except OSError as e:
            raise UserError(f"{self._folder}: cannot be read: {e.strerror}; check the folder") from e

    def see(self, arrived_bytes: int) -> None:
        """Note how much would have been written so far, had everything been recorded."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        if self._before is not None:
            seconds = now - self._before[0]
            rate = (arrived_bytes - self._before[1]) / seconds * _PICTURES_TWICE
            self._rate += (rate - self._rate) * min(1.0, seconds / 10.0)
        self._before, self._looked = (now, arrived_bytes), now
        try:
            self._free = self.free_mb()
        except UserError:
            self._free = None

    @property
    def nearly_full(self) -> bool:
        """As last seen: an episode that runs should end."""
        return self._free is not None and self._free < self.stop_mb

    @property
    def minutes_left(self) -> float | None:
        """Of recording, until an episode is ended for want of room."""
        if self._free is None or self._rate < 1.0:
            return None
        return round(max(0.0, self._free - self.stop_mb) * 2**20 / self._rate / 60, 1)
