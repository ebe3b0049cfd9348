"""Arrays that are costly to make, kept under the data folder's cache/ until it grows beyond its bound.

An entry's name is the hash of all that it depends on, so nothing in it is ever stale. It is written aside and
renamed, and carries a checksum, so that a crash, a torn disk or another trainer beside this one costs an
entry at most: what cannot be read is made again.
"""

import fcntl
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

KINDS = ("pictures", "features")
_CRC_BYTES = 4
_NAME = "array"
_TRIM_TO = 0.9
"""A full cache is emptied to this share, so that not every new entry has to look at all of them."""


@dataclass(frozen=True)
class Usage:
    """What one kind of entry takes."""

    entries: int
    bytes: int


@dataclass(frozen=True)
class Cache:
    """Arrays by kind and key below ``root``, at most ``limit`` bytes of them: the least used go first.

    Any number of threads and processes may use one folder at the same time.
    """

    root: Path
    limit: int = 20 * 2**30

    def get[D: np.generic](self, kind: str, key: str) -> NDArray[D] | None:
        """The entry, read-only; None when there is none, or none that is whole."""
        file = self._file(kind, key)
        try:
            data = file.read_bytes()
            os.utime(file)  # what is used stays longest
        except OSError:
            return None
        body, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") != crc:
            return None
        try:
            array: NDArray[D] = load(body)[_NAME]
        except (SafetensorError, KeyError, ValueError):
            return None
        return array

    def put(self, kind: str, key: str, array: NDArray[np.generic]) -> None:
        """Keep an array. A cache that cannot be written (a full disk) costs time later, never the job."""
        file = self._file(kind, key)
        body = save({_NAME: np.ascontiguousarray(array)})
        aside: str | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
            with os.fdopen(handle, "wb") as out:
                out.write(body)
                out.write(zlib.crc32(body).to_bytes(_CRC_BYTES, "little"))
            # Not flushed to the disk: the checksum tells what a power cut left half-written.
            os.replace(aside, file)
        except OSError:
            if aside is not None:
                with suppress(OSError):
                    os.unlink(aside)

    def usage(self) -> dict[str, Usage]:
        """Entries and bytes by kind."""
        found: dict[str, list[int]] = {kind: [] for kind in KINDS}
        for file, size, _ in self._entries():
            found.setdefault(file.relative_to(self.root).parts[0], []).append(size)
        return {kind: Usage(len(sizes), sum(sizes)) for kind, sizes in found.items()}

    def trim(self) -> int:
        """Drop the least used entries if there is more than ``limit``; bytes freed."""
        with self._alone():
            entries = sorted(self._entries(), key=lambda e: e[2])
            total = sum(size for _, size, _ in entries)
            if total <= self.limit:
                return 0
            freed = 0
            for file, size, _ in entries:
                if total - freed <= self.limit * _TRIM_TO:
                    break
                with suppress(OSError):
                    file.unlink()
                    freed += size
            return freed

    def clear(self) -> int:
        """Drop everything; bytes freed. A job that is under way makes what it still needs again."""
        with self._alone():
            freed = sum(size for _, size, _ in self._entries())
            for kind in (*KINDS, "backbones"):
                shutil.rmtree(self.root / kind, ignore_errors=True)
            return freed

    def _file(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}.safetensors"

    def _entries(self) -> Iterator[tuple[Path, int, float]]:
        for kind in KINDS:
            for file in (self.root / kind).glob("*/*"):
                with suppress(OSError):  # another process may drop it at any moment
                    stat = file.stat()
                    yield file, stat.st_size, stat.st_mtime

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time drops entries, or two of them would drop twice as much."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
