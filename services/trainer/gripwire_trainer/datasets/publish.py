"""A dataset appears whole under its name or not at all, also when its build is killed or another one runs."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gripwire.files import folder_whole, fsync_dir

_STALE_S = 60.0


@contextmanager
def published(out: Path, replace: bool, lock: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` when the block ends without an exception.

    A dataset that ``replace`` replaces stays until the new one is complete, and is deleted last.

    Raises:
        UserError: ``out`` exists, and is not to be replaced; or the disk is full.
    """
    if not replace:
        with folder_whole(out) as aside:
            yield aside
        return
    fresh = out.with_name(f".{out.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with folder_whole(fresh) as aside:
        yield aside
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    with _alone(lock):
        if out.exists():
            out.rename(old)
        fresh.rename(out)
        fsync_dir(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(datasets: Path, lock: Path) -> None:
    """Remove what builds that were killed left under ``datasets``: `.NAME.PID.tmp` and the like.

    A dataset that was just being replaced gets its name back. A folder shared with another machine or
    container holds ids that mean nothing here, so what was touched within the last minute stays: a build
    writes more often.
    """
    left = [path for kind in ("tmp", "new", "old") for path in datasets.glob(f".*.{kind}")]
    left += [path for kind in ("tmp", "new", "old") for path in datasets.glob(f"*/.*.{kind}")]
    for path in left:
        pid = path.name.split(".")[-2]
        if not path.is_dir() or not pid.isdecimal() or _alive(int(pid)):
            continue
        with contextlib.suppress(FileNotFoundError), _alone(lock):  # another build sweeps as well
            out = path.with_name(path.name.removeprefix(".").rpartition(f".{pid}.")[0])
            if path.suffix == ".old" and not out.exists():
                path.rename(out)
            elif time.time() - max(p.lstat().st_mtime for p in (path, *path.rglob("*"))) > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Names change hands by two renames, and between them no other process may look."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
