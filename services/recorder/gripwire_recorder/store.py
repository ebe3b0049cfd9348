"""Dataset folders that are always whole: an episode is added beside the dataset, then both are exchanged.

LeRobot writes an episode into a dozen files, some of them in place; killed in between, it leaves a dataset
that does not open. So it never writes into the dataset itself but into a copy beside it (hard links for what
is never written again, so the copy costs nothing), and one atomic exchange of the two folders makes the
episode part of the dataset.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gripwire import names
from gripwire.errors import UserError
from gripwire.files import fsync_dir

_ASIDE, _OLD = ".saving", ".replaced"
_LOCK = ".recorder.lock"
_PATIENCE_S = 5.0
"""The worker of a recorder that was killed ends by itself, within a moment: so long it may keep the lock."""
# LeRobot writes these once and then only adds new ones (writer.py makes sure); all else it writes in place.
_WRITTEN_ONCE = (("data", ".parquet"), ("videos", ".mp4"), ("meta/episodes", ".parquet"))


class Incomplete(Exception):
    """What was written is not what had to be written; the text says what is missing."""


class Store:
    """The ``datasets`` folder, owned by one recorder at a time.

    Raises:
        UserError: another recorder owns it, or it cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = self._claim()

    def _claim(self) -> TextIO:
        """Make the folder and lock it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # Held until close(), and given up by the kernel should we be killed.
            lock = open(self.root / _LOCK, "w")  # noqa: SIM115
            try:
                _lock(lock)
            except OSError:
                lock.close()
                raise
        except BlockingIOError as e:
            raise UserError(
                f"another recorder writes into {self.root}: stop it, or give this one its own folder "
                "with --data"
            ) from e
        except OSError as e:
            raise UserError(
                f"{self.root}: cannot be written: {e.strerror}; check the folder's permissions, "
                "or choose another with --data"
            ) from e
        return lock

    def lock_fd(self) -> int:
        """The file that is locked: whoever else has it open holds the folder too."""
        return self._lock.fileno()

    def ensure(self) -> bool:
        """Make the folder again if someone has removed it since; whether that was necessary.

        Raises:
            UserError: another recorder has made it, or it cannot be written.
        """
        try:
            if os.path.samestat(os.stat(self.root / _LOCK), os.fstat(self._lock.fileno())):
                return False
        except OSError:
            pass  # claiming it says what is wrong
        new = self._claim()
        self._lock.close()
        self._lock = new
        return True

    def close(self) -> None:
        self._lock.close()

    def path(self, name: str) -> Path:
        """Where dataset ``name`` is or will be.

        Raises:
            UserError: not a name.
        """
        return (
            self.root / names.plain(name, "dataset name")
        ).resolve()  # the name may be a link to a folder on another disk

    def info(self, name: str) -> dict[str, Any] | None:
        """The dataset's ``meta/info.json``; None where the name is still free.

        Raises:
            UserError: the name is taken by something that no episode can be added to.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            info = json.loads((path / "meta" / "info.json").read_text())
            episodes = int(info["total_episodes"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path} is not a LeRobot dataset; name another dataset, or move it away") from e
        if episodes == 0:
            raise UserError(
                f"{path} is a dataset without a saved episode, which LeRobot cannot append to; "
                "name another dataset, or move it away"
            )
        return dict(info)

    def recover(self) -> list[str]:
        """Undo what a killed recorder left half-done; what was done, in words."""
        done = []
        linked = {path.resolve() for path in self.root.iterdir() if path.is_symlink()}

        def ours(path: Path) -> bool:
            """What else is in a folder on another disk may be another recorder's."""
            return path.parent == self.root or path in linked

        for folder in sorted({self.root} | {path.parent for path in linked}):
            for old in sorted(folder.glob(f".*{_OLD}")):
                # Only where folders cannot be exchanged in one step: the dataset may be between two names.
                path = folder / old.name.removeprefix(".").removesuffix(_OLD)
                if not ours(path):
                    continue
                if path.exists():
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    os.rename(old, path)
                    done.append(f"dataset {path.name} put back in its place")
            for aside in sorted(folder.glob(f".*{_ASIDE}")):
                name, _, _ = aside.name.removeprefix(".").removesuffix(_ASIDE).rpartition(".")
                if not ours(folder / name):
                    continue
                shutil.rmtree(aside, ignore_errors=True)
                done.append(f"{aside.name} removed: an episode whose saving was cut short")
        return done


class Staging:
    """A copy of a dataset (or room for a new one) in which one episode is written; then :meth:`publish`."""

    def __init__(self, dataset: Path) -> None:
        self.dataset = dataset
        self.path = dataset.with_name(f".{dataset.name}.{os.getpid()}{_ASIDE}")
        self.is_new = not dataset.exists()
        self._taken: dict[Path, tuple[int, int]] = {}  # what was copied, as it was: size and mtime

    def prepare(self) -> None:
        """Take the copy."""
        self.discard()
        if not self.is_new:
            for source in _files(self.dataset):
                relative = source.relative_to(self.dataset)
                self._taken[relative] = _state(source)
                _copy(source, self.path / relative, link=_written_once(relative))

    def changed_meanwhile(self) -> bool:
        """Whether someone else wrote to the dataset's own files since the copy was taken."""
        if self.is_new:
            return self.dataset.exists()
        now = {path.relative_to(self.dataset): _state(path) for path in _files(self.dataset)}
        return any(
            now.get(path) != self._taken.get(path)
            for path in now.keys() | self._taken.keys()
            if path.parts[0] in ("data", "videos", "meta")
        )

    def publish(self) -> bool:
        """Make the copy the dataset, durably; False: someone else wrote to it since the copy was taken.

        What others have put beside LeRobot's files is carried over.
        """
        self._sync()  # takes long on a busy disk, so it comes before the look
        if self.changed_meanwhile():
            return False
        if self.is_new:
            os.rename(self.path, self.dataset)
        else:
            for late in _files(self.dataset):
                relative = late.relative_to(self.dataset)
                if self._taken.get(relative) != _state(late):
                    _copy(late, self.path / relative, link=False)
            _exchange(self.path, self.dataset)
        fsync_dir(self.dataset.parent)
        self.discard()
        return True

    def _sync(self) -> None:
        for folder, _, files in os.walk(self.path):
            for name in files:
                path = Path(folder) / name
                relative = path.relative_to(self.path)
                if relative not in self._taken or not _written_once(relative):
                    with open(path, "rb") as file:
                        os.fsync(file.fileno())
            fsync_dir(Path(folder))

    def discard(self) -> None:
        """Remove the copy; after :meth:`publish`, what it has replaced."""
        shutil.rmtree(self.path, ignore_errors=True)


def _lock(file: TextIO) -> None:
    """Lock ``file``, waiting a little.

    Raises:
        BlockingIOError: someone else keeps it.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _written_once(relative: Path) -> bool:
    text = relative.as_posix()
    return any(text.startswith(f"{top}/") and text.endswith(end) for top, end in _WRITTEN_ONCE)


def _copy(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source, target)
            return
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK):
                raise
    shutil.copy2(source, target)


def _exchange(new: Path, present: Path) -> None:
    """Give each of two folders the other's name: in one step where the system can."""
    swap, at_cwd = 2, -100  # RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renamex_np(2); AT_FDCWD
    a, b = os.fsencode(new), os.fsencode(present)
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        if libc.renameat2(at_cwd, a, at_cwd, b, swap) == 0:
            return
    elif sys.platform == "darwin" and libc.renamex_np(a, b, swap) == 0:
        return
    # Some network file systems cannot: Store.recover() finishes this if we die in between.
    old = present.with_name(f".{present.name}{_OLD}")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(present, old)
    os.rename(new, present)
    os.rename(old, new)
