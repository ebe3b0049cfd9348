"""SHA-256 of files, taken once while a file stays as it is, also by the next process."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from gripwire.errors import UserError
from gripwire.files import write_whole

_SETTLED_NS = 2 * 10**9
"""A file touched more recently may change once more without its time of change telling."""

Seen = tuple[int, int, int]


class Hashes:
    """What was hashed, remembered in the file ``memo`` by path, size, time of change and inode."""

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        self._known: dict[str, tuple[Seen, str]] = {}
        self._fresh = False
        with suppress(OSError, ValueError, TypeError, AttributeError):  # it only saves time
            stored = json.loads(memo.read_text())
            self._known = {path: (tuple(seen), digest) for path, (seen, digest) in stored.items()}

    def of(self, path: Path) -> str:
        """The file's SHA-256.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        stat = path.stat()
        seen = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        known = self._known.get(str(path))
        if known and known[0] == seen:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._known[str(path)] = (seen, digest)
            self._fresh = True
        return digest

    def save(self) -> None:
        """Remember for the next process, as far as the disk allows; files that are gone are forgotten."""
        if not self._fresh:
            return
        kept = {path: known for path, known in self._known.items() if Path(path).exists()}
        with suppress(UserError):
            write_whole(self._memo, json.dumps(kept))
        self._fresh = False
