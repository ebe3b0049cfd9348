"""A bundle from another machine, in pieces, verified by the hash that is its name.

The first file is the manifest, whose hash is the id that was asked for; it has size and hash of every other.
So nothing is believed that whoever sends could have changed.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gripwire import names
from gripwire.errors import UserError
from gripwire.messages import BundlePart, ReadBundle
from gripwire_reward import bundle as bundles_

log = logging.getLogger(__name__)

PART = 512 * 1024
"""Bytes of a piece: a reply may have twice as many."""
MAX_TOTAL = 2 * 2**30
"""Bytes of all files together."""
ANSWER_S = 5.0
"""For each piece."""
PATIENCE_S = 600.0
"""For all of it, however fast each piece comes."""

Ask = Callable[[ReadBundle, float], BundlePart]
"""The command, and for how many seconds to wait; as :meth:`gripwire.control.Client.ask`."""


def read(bundles: Path, command: ReadBundle) -> BundlePart:
    """A piece of a file of a bundle under ``bundles``.

    Raises:
        UserError: there is no such bundle or file.
    """
    folder = bundles_.find(command.bundle, bundles)
    path = folder / names.plain(command.file, "a bundle's file")
    if not path.is_file() or path.is_symlink():
        raise UserError(f"bundle {folder.name} has no file {command.file}")
    with path.open("rb") as file:
        file.seek(command.offset)
        return BundlePart(data=file.read(PART), size=path.stat().st_size)


def fetch(bundle: str, bundles: Path, ask: Ask, going_on: Callable[[], bool] = lambda: True) -> Path:
    """Bring a bundle here, piece by piece; its folder under ``bundles``. ``ask`` whoever has it.

    Raises:
        UserError: who has it does not answer, or what comes is not that bundle; nothing is left behind.
    """
    began = time.monotonic()

    def pieces(file: str, size: int | None) -> Iterator[bytes]:
        at, most = 0, bundles_.MAX_MANIFEST if size is None else size
        while True:
            if not going_on() or time.monotonic() - began > PATIENCE_S:
                raise UserError(
                    f"bundle {bundle}: given up on after {time.monotonic() - began:.0f} s; offer it again"
                )
            part = ask(ReadBundle(bundle=bundle, file=file, offset=at), ANSWER_S)
            if part.size > most or (size is not None and part.size != size):
                raise UserError(f"bundle {bundle}: {file} has {part.size} bytes, {most} are due; {_REMEDY}")
            if len(part.data) != min(PART, part.size - at):
                raise UserError(
                    f"bundle {bundle}: a piece of {file} came with {len(part.data)} bytes; {_REMEDY}"
                )
            yield part.data
            at += len(part.data)
            if at >= part.size:
                return

    data = b"".join(pieces(bundles_.MANIFEST, None))
    if bundles_.identity(data) != bundle:
        raise UserError(f"bundle {bundle}: what came is another one, or changed on the way; {_REMEDY}")
    entries = _entries(bundle, data)
    with bundles_.staging(bundles) as aside:
        for name, entry in entries.items():
            digest = hashlib.sha256()
            with (aside / name).open("wb") as out:
                for piece in pieces(name, entry.size):
                    digest.update(piece)
                    out.write(piece)
            if digest.hexdigest() != entry.sha256:
                raise UserError(f"bundle {bundle}: {name} changed on the way (its hash differs); {_REMEDY}")
        (aside / bundles_.MANIFEST).write_bytes(data)
        folder = bundles_.publish(aside, bundle)
    megabytes = sum(entry.size for entry in entries.values()) / 1e6
    log.info("bundle %s fetched: %.1f MB in %.1f s", bundle, megabytes, time.monotonic() - began)
    return folder


_REMEDY = "train again, or copy the bundle from where it was made"


def _entries(bundle: str, manifest: bytes) -> dict[str, bundles_.FileEntry]:
    """The files that are due, by name."""
    entries = bundles_.parse(manifest, f"bundle {bundle}: {bundles_.MANIFEST}").files
    for name in entries:
        if names.plain(name, f"bundle {bundle}: a file named") == bundles_.MANIFEST:
            raise UserError(f"bundle {bundle}: its {bundles_.MANIFEST} lists itself; {_REMEDY}")
    if (total := sum(entry.size for entry in entries.values())) > MAX_TOTAL:
        raise UserError(
            f"bundle {bundle}: {total / 2**30:.1f} GiB, more than the {MAX_TOTAL / 2**30:g} that are taken "
            "over the network; copy it by hand if it is to be that large"
        )
    return entries
