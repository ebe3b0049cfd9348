"""The keys below the data folder: whether there are any, who may read them, and whom they let in."""

import os
import stat
from collections.abc import Iterator

from gripwire import keys
from gripwire.doctor.finding import Finding, Here
from gripwire.errors import UserError


def check(here: Here) -> Iterator[Finding]:
    """`<data>/keys`, as services and clients of this data folder read it."""
    folder = here.data / "keys"
    try:
        pair = keys.load(folder)
        machines = keys.read_allowed(folder / keys.ALLOWED) if pair else {}
    except UserError as e:
        text, _, remedy = str(e).rpartition(": ")
        yield Finding("keys", "fail", text, remedy)
        return
    if pair is None:
        # Without keys an address beyond loopback is refused with the settings, before anything is looked at.
        text = "none: nothing is encrypted, and only this machine's programs are served"
        yield Finding("keys", "ok", text)
        return
    yield rights(str(folder / keys.PAIR), os.stat(folder / keys.PAIR).st_mode)
    yield friends(machines)


def rights(path: str, mode: int) -> Finding:
    """Whoever reads the pair is this machine. Pure."""
    if mode & 0o077:
        return Finding(
            "keys", "warn", f"{path} can be read by others than its owner ({stat.filemode(mode)})",
            f"`chmod 600 {path}`, unless that group is meant to have it",
        )  # fmt: skip
    return Finding("keys", "ok", f"{path}: every endpoint is encrypted")


def friends(machines: dict[str, keys.Machine]) -> Finding:
    """Whom ``allowed.toml`` lets in. Pure."""
    told = ", ".join(f"{m.name} ({', '.join(m.roles) or 'nothing'})" for m in machines.values())
    return Finding("keys", "ok", f"other machines that are let in: {told or 'none'}")
