"""Writing files so that they are whole or absent, whatever happens in between."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gripwire.errors import UserError, no_space


def fsync_dir(path: Path) -> None:
    """Make the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(path: Path) -> None:
    """Make every file and folder below ``path`` durable."""
    for folder, _, names in os.walk(path):
        for name in names:
            with open(Path(folder) / name, "rb") as file:
                os.fsync(file.fileno())
        fsync_dir(Path(folder))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from e
        raise UserError(f"{path}: cannot be created: {e.strerror}; choose another place") from e


def _exists(path: Path) -> UserError:
    return UserError(f"{path} exists already and is never overwritten; choose another name")


def write_whole(path: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Write ``path`` beside itself, fsync, rename, fsync the folder. ``mode``: who may, less the umask.

    Raises:
        UserError: the disk is full; the old file, if any, is untouched.
    """
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_dir(path.parent)
    except OSError as e:
        aside.unlink(missing_ok=True)
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from e
        raise UserError(f"{path}: cannot be written: {e.strerror}; check the folder's permissions") from e


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that becomes ``path`` when the block ends without an exception.

    ``path`` must not exist yet; after an exception nothing is left behind.

    Raises:
        UserError: ``path`` exists, or the disk is full.
    """
    if path.exists():
        raise _exists(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)
    try:
        yield aside
        fsync_tree(aside)
        os.rename(aside, path)
        fsync_dir(path.parent)
    except OSError as e:
        shutil.rmtree(aside, ignore_errors=True)
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from e
        if e.errno in (errno.EEXIST, errno.ENOTEMPTY) and path.exists():  # another process was quicker
            raise _exists(path) from e
        raise
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
