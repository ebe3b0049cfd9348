"""Several files that belong together, written all or none."""

import contextlib
import errno
import os
from pathlib import Path

from gripwire.errors import UserError, no_space
from gripwire.files import fsync_dir, make_folder


def write_together(files: dict[Path, str]) -> None:
    """Write these texts, or none of them: all are written aside first, and then renamed in this order.

    Raises:
        UserError: the disk is full or a folder refuses; what was there before is there again.
    """
    aside = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    kept = {path: path.with_name(f".{path.name}.{os.getpid()}.old") for path in files}
    fresh = {path for path in files if not path.exists()}
    done: list[Path] = []
    try:
        for path, text in files.items():
            make_folder(path.parent)
            with open(aside[path], "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            with contextlib.suppress(OSError):  # nothing to keep, or a disk without hard links
                os.link(path, kept[path])
            os.replace(aside[path], path)
            done.append(path)
        fsync_dir(path.parent)
    except BaseException as e:
        for path_done in done:
            if kept[path_done].exists():
                os.replace(kept[path_done], path_done)
            elif path_done in fresh:
                path_done.unlink()
        if not isinstance(e, OSError):
            raise
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from e
        raise UserError(f"{path}: cannot be written: {e.strerror}; check that folder") from e
    finally:
        for left in (*aside.values(), *kept.values()):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
