"""What built datasets are made of, kept under cache/, so that the next one need not make it again.

A part is a file named by its content; a record says which part came of which ingredients. Videos are hard
links that datasets share: they take no room as long as a dataset holds them. Rows are small and copied,
because LeRobot's own tools rewrite those in place. A part that was changed nevertheless no longer has the
hash it is named by, and is made again from the source.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire_trainer.datasets.hashes import Hashes

_KINDS = ("videos", "rows", "records")
_DAYS = 60
"""Rows and records that nobody asked for so long are dropped."""


def key(*ingredients: object) -> str:
    """A name for all that something depends on."""
    return hashlib.sha256(repr(ingredients).encode()).hexdigest()[:40]


@dataclass
class Parts:
    """Parts and records below ``root``. Several builds may share it at the same time."""

    root: Path
    hashes: Hashes = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = Hashes(self.root / "hashes.json")

    def record(self, key: str) -> dict[str, Any] | None:
        """What was noted under ``key``; None when there is nothing, or nothing whole."""
        file = self._record_file(key)
        try:
            found = json.loads(file.read_text())
            os.utime(file)  # what is used stays longest
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def note(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, if the disk allows."""
        self._write(self._record_file(key), json.dumps(record).encode())

    def link(self, content: str, to: Path) -> bool:
        """Share the video of that SHA-256; False when it has to be copied from its source again."""
        part = self._part_file("videos", content)
        try:
            os.link(part, to)
        except OSError:  # not there, or on another disk, or on one without hard links
            return False
        with suppress(OSError):
            if self.hashes.of(part) == content:
                return True
        with suppress(OSError):  # changed in place, through a dataset that holds it
            part.unlink()
        to.unlink()
        return False

    def share(self, content: str, video: Path) -> None:
        """Let later datasets link to ``video``, a file of a dataset under way."""
        part = self._part_file("videos", content)
        with suppress(OSError):
            part.parent.mkdir(parents=True, exist_ok=True)
            os.link(video, part)

    def rows(self, content: str) -> bytes | None:
        """The rows of that SHA-256; None when they have to be made again."""
        part = self._part_file("rows", content)
        try:
            data = part.read_bytes()
            os.utime(part)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == content else None

    def keep_rows(self, data: bytes) -> str:
        """Keep rows, if the disk allows; their SHA-256."""
        content = hashlib.sha256(data).hexdigest()
        self._write(self._part_file("rows", content), data)
        return content

    def tidy(self) -> None:
        """Drop the videos that no dataset holds any more, and what nobody asked for in two months."""
        oldest = time.time() - _DAYS * 86400
        for file, stat in self._files():
            shared = file.relative_to(self.root).parts[0] == "videos"
            if stat.st_nlink == 1 if shared else stat.st_mtime < oldest:
                with suppress(OSError):
                    file.unlink()

    def usage(self) -> tuple[int, int]:
        """How many files are kept, and the bytes of those that no dataset holds as well."""
        stats = [stat for _, stat in self._files()]
        return len(stats), sum(stat.st_size for stat in stats if stat.st_nlink == 1)

    def clear(self) -> int:
        """Drop all of it; bytes freed. Datasets keep what they hold."""
        freed = self.usage()[1]
        for kind in _KINDS:
            shutil.rmtree(self.root / kind, ignore_errors=True)
        return freed

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for kind in _KINDS:
            for file in (self.root / kind).glob("*/*"):
                with suppress(OSError):  # another build may drop it at the same moment
                    yield file, file.stat()

    def _write(self, file: Path, data: bytes) -> None:
        """Not flushed to the disk: what a power cut left half-written has not its hash, or is no JSON."""
        aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            os.replace(aside, file)
        except OSError:  # it only saves time
            with suppress(OSError):
                aside.unlink()

    def _part_file(self, kind: str, content: str) -> Path:
        return self.root / kind / content[:2] / content

    def _record_file(self, key: str) -> Path:
        return self.root / "records" / key[:2] / f"{key}.json"
