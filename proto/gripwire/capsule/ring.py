"""The last minutes of the bus in short recordings, of which the oldest goes when a new one comes."""

import logging
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gripwire import clock
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.files import make_folder
from gripwire.recording.file import RecordingFile
from gripwire.topics import Topics

log = logging.getLogger(__name__)

SEGMENT_S = 10.0
FLUSH_S = 0.5
"""So much is lost when the process is killed. Nothing is synced: a ring is not worth a disk's breath."""
_LOOK_S = 1.0
_TRY_AGAIN_S = 5.0
_SAME_RUN_S = 30.0
"""What an earlier process left and is older than this belongs to another run."""
_RESUME_BYTES = 64 << 20
BEFORE = "before"
"""The folder beside the segments that keeps the ring of the run before this one."""


@dataclass(frozen=True)
class Segment:
    """A part of the ring that takes no more. ``began`` and ``ended``: CLOCK_MONOTONIC, seconds."""

    path: Path
    began: float
    ended: float
    bytes: int


class Ring:
    """Keeps ``minutes`` of messages, in at most ``megabytes``, while the disk has ``floor_mb`` to spare.

    For one thread, but for :attr:`paused` and :meth:`extent`. Nothing here raises for want of a disk: then
    the ring is paused, and says why.
    """

    def __init__(
        self, folder: Path, topics: Topics, minutes: float, megabytes: float, floor_mb: float,
        segment_s: float = SEGMENT_S,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.paused = ""
        """Why nothing is kept at the moment; empty while it is."""
        self._topics = topics
        self._keep_s, self._bytes, self._floor = minutes * 60, int(megabytes * 1e6), int(floor_mb * 2**20)
        self._segment_s = segment_s
        self._current: RecordingFile | None = None
        self._began = self._flushed = self._looked = 0.0
        self._again = 0.0
        self._latched: dict[str, Received[Any]] = {}
        self._held: frozenset[Path] = frozenset()
        make_folder(folder)
        self._segments = self._adopt()

    def _adopt(self) -> list[Segment]:
        """What an earlier process left: the beginning of this ring, or, of another run, put aside."""
        left = segments(self.folder)
        now, wall = time.monotonic(), time.time()
        if left and _boot(left[-1]) == _this_boot() and abs(wall - left[-1].stat().st_mtime) < _SAME_RUN_S:
            files = [(path, path.stat()) for path in left]
            return [
                Segment(path, _began(path), now - (wall - stat.st_mtime), stat.st_size)
                for path, stat in files
            ]
        if left:
            before = self.folder / BEFORE
            shutil.rmtree(before, ignore_errors=True)
            make_folder(before)
            for path in left:
                path.rename(before / path.name)
            log.info("an earlier run left its last minutes; `gripwire capsule save --before` saves them")
        for path in self.folder.glob("*.mcap"):  # of a run before that one
            path.unlink(missing_ok=True)
        return []

    # --- writing ------------------------------------------------------------------------------------------

    def write(self, topic: str, received: Received[Any]) -> None:
        """Append a message."""
        if topic in self._topics and self._topics[topic].latched:
            self._latched[topic] = received
        file = self._current or self._open()
        if file is None:
            return
        try:
            file.write(topic, received)
        except UserError as e:
            self._pause(str(e))

    def tend(self) -> None:
        """Flush, begin a new segment, drop the oldest: whatever is due. Call it a few times a second."""
        now = time.monotonic()
        try:
            if self._current and now - self._flushed >= FLUSH_S:
                self._current.flush()
                self._flushed = now
        except UserError as e:
            self._pause(str(e))
        if self._current and (
            now - self._began >= self._segment_s or self._current.size() > self._bytes // 8
        ):
            self.turn()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._drop(now)

    def turn(self) -> list[Path]:
        """End the segment that is being written; all that there are now, oldest first."""
        file, self._current = self._current, None
        if file is not None:
            try:
                file.close(durable=False)
            except UserError as e:
                self._pause(str(e))
            self._segments.append(Segment(file.path, self._began, time.monotonic(), _size(file.path)))
        return [segment.path for segment in self._segments]

    def _open(self) -> RecordingFile | None:
        """A new segment, which begins with what latched topics said last; None while paused."""
        now = time.monotonic()
        if now < self._again:
            return None
        # When it was paused for that, it wants some more, or it would come and go.
        if self._free() < self._floor + (_RESUME_BYTES if self.paused else 0):
            self._pause(
                f"paused: the disk that holds {self.folder} has less than {self._floor >> 20} MB left "
                "([recorder] min_free_mb): free some space"
            )
            return None
        try:
            # Named by the clock that nobody sets, and by the kernel's run, in which it counts.
            file = RecordingFile(self.folder / f"{_this_boot()}-{int(now * 1000):013d}.mcap")
            for topic, received in self._latched.items():
                file.write(topic, received)
        except UserError as e:
            self._pause(str(e))
            return None
        self._current, self._began, self._flushed, self.paused = file, now, now, ""
        return file

    def _pause(self, why: str) -> None:
        file, self._current = self._current, None
        if file is not None:
            file.give_up()
            self._segments.append(Segment(file.path, self._began, time.monotonic(), _size(file.path)))
        self.paused, self._again = why, time.monotonic() + _TRY_AGAIN_S

    def _drop(self, now: float) -> None:
        """Remove what is too old, and the oldest while it is too much or others need the room."""
        used = sum(segment.bytes for segment in self._segments) + (
            self._current.size() if self._current else 0
        )
        free = self._free()
        for segment in list(self._segments):
            if segment.path in self._held:
                return
            if now - segment.ended <= self._keep_s and used <= self._bytes and free >= self._floor:
                return
            segment.path.unlink(missing_ok=True)
            self._segments.remove(segment)
            used, free = used - segment.bytes, free + segment.bytes
        if free < self._floor and self._current:
            self.turn()  # what comes is refused by _open, which says why

    def _free(self) -> int:
        with suppress(OSError):
            return shutil.disk_usage(self.folder).free
        return 0

    # --- asked by others --------------------------------------------------------------------------------

    def hold(self) -> list[Path]:
        """End the present segment and keep all there are until :meth:`release`."""
        paths = self.turn()
        self._held = frozenset(paths)
        return paths

    def release(self) -> None:
        self._held = frozenset()

    def extent(self) -> tuple[float, int]:
        """Seconds from its beginning to now, and bytes."""
        segments_, file = list(self._segments), self._current
        if not segments_ and file is None:
            return 0.0, 0
        began = segments_[0].began if segments_ else self._began
        end = time.monotonic() if file else segments_[-1].ended
        return end - began, sum(s.bytes for s in segments_) + (_size(file.path) if file else 0)

    def close(self) -> None:
        """Finish the present segment; the ring stays on the disk."""
        self.turn()


def segments(folder: Path) -> list[Path]:
    """The parts of the newest ring in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    newest: tuple[float, str] = (0.0, "")
    for path in folder.glob("*-*.mcap"):
        with suppress(OSError):  # it may be dropped at this very moment
            newest = max(newest, (path.stat().st_mtime, _boot(path)))
    return sorted(folder.glob(f"{newest[1]}-*.mcap")) if newest[1] else []


def _this_boot() -> str:
    return clock.host_id().replace("-", "")[:12]


def _boot(path: Path) -> str:
    return path.stem.split("-")[0]


def _began(path: Path) -> float:
    with suppress(ValueError, IndexError):
        return int(path.stem.split("-")[1]) / 1000
    return time.monotonic()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
