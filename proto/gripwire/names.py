"""Names that arrive on the wire and become files or folders.

Paths never travel: whatever is not a plain name is refused here, before it is put to the file system.
"""

import re
from contextlib import suppress
from pathlib import Path

from gripwire.errors import UserError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def plain(name: str, what: str) -> str:
    """``name``, if it is one: it can stand right below a folder and nowhere else. ``what`` it is of, for a
    person.

    Raises:
        UserError: it is anything else: a path, a hidden file, too long.
    """
    if not _PLAIN.fullmatch(name):
        raise UserError(
            f"{what} `{name[:100]}`: use letters, digits, `.`, `_` and `-`, and a letter or digit first"
        )
    return name


def file_below(folder: Path, name: str) -> Path | None:
    """The file ``name`` below ``folder``, sub-folders allowed; None where there is none, or where it would be
    outside: by an absolute name, by `..`, or by a link."""
    path = folder / name
    with suppress(OSError, ValueError):  # a name that no file can have
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None
