"""Keys: this machine's own pair, and which machines may come in and do what.

They lie under ``<data>/keys``: ``machine.key``, the pair (TOML, readable by its owner alone), and
``allowed.toml``, which is read again whenever it changes. A key is written as 64 hexadecimal digits: ZeroMQ's
Z85 is full of characters that a shell takes for its own. A data folder without ``machine.key`` has no keys.
"""

import fcntl
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import zmq
from zmq.utils import z85

from gripwire.errors import UserError
from gripwire.files import make_folder, write_whole
from gripwire.messages import Role

log = logging.getLogger(__name__)

PAIR, ALLOWED = "machine.key", "allowed.toml"
ROLES: tuple[Role, ...] = get_args(Role)
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
"""What can name a machine in an address."""
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_WHERE = "`gripwire keys show` on that machine prints it"


@dataclass(frozen=True)
class Machine:
    """Another machine, from ``allowed.toml``. ``host``: where its services are found, as in ``[hosts]``."""

    name: str
    key: str
    roles: tuple[Role, ...]
    host: str = ""


@dataclass(frozen=True)
class Keys:
    """The pair of this machine (``public`` in hexadecimal, ``secret`` 32 bytes) and the machines it knows."""

    folder: Path
    public: str
    secret: bytes = field(repr=False)
    allowed: "Allowed"

    def roles(self, key: str) -> tuple[Role, ...]:
        """What the machine with this public key may do here; nothing, if it is not known."""
        if key == self.public:
            return ROLES
        return next((m.roles for m in self.allowed.machines().values() if m.key == key), ())

    def name(self, key: str) -> str:
        """What the machine with this public key is called here."""
        named = (m.name for m in self.allowed.machines().values() if m.key == key)
        return "this machine" if key == self.public else next(named, "an unknown machine")

    def server(self, host: str) -> str:
        """The public key that services at ``host`` must show: that of the machine known to be there, else our
        own, since a container of this machine has a host name too."""
        machines = self.allowed.machines().values()
        return next((m.key for m in machines if host == (m.host or m.name)), self.public)


class Allowed:
    """``allowed.toml``, read again when it changes. Safe to use from several threads.

    A file that cannot be read lets nobody in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._machines: Mapping[str, Machine] = {}

    def machines(self) -> Mapping[str, Machine]:
        """By name; the same object until the file changes."""
        try:
            stat = self.path.stat()
            now: tuple[int, int, int] | None = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            now = None
        if now != self._seen:
            try:
                self._machines = read_allowed(self.path)
            except UserError as e:
                log.error("%s; until then no other machine is let in", e)
                self._machines = {}
            self._seen = now
        return self._machines


def read_allowed(path: Path) -> dict[str, Machine]:
    """The machines of an ``allowed.toml``, by name; none where there is no file.

    Raises:
        UserError: it is not what `gripwire keys allow` writes; the text names the machine.
    """
    try:
        tree = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read ({e}): mend it, or remove it and allow machines anew") from e
    machines: dict[str, Machine] = {}
    entries = tree.get("machines", {})
    if not isinstance(entries, dict):
        raise UserError(f"{path}: `machines` is a table of tables, [machines.NAME]; mend it")
    for name, entry in entries.items():
        try:
            extra = set(entry) - {"key", "roles", "host"}
            machine = Machine(name, str(entry["key"]), tuple(entry["roles"]), str(entry.get("host", "")))
            unknown = set(machine.roles) - set(ROLES)
        except (KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{path}: [machines.{name}] needs `key` and `roles`; mend it") from e
        if extra or not _KEY.fullmatch(machine.key) or unknown:
            raise UserError(
                f"{path}: [machines.{name}]: `key` is 64 hexadecimal digits, `roles` are of "
                f"{', '.join(ROLES)}, and only `host` may be added; mend it"
            )
        machines[name] = machine
    return machines


def load(folder: Path) -> Keys | None:
    """The keys in ``folder``; None where there are none.

    Raises:
        UserError: they are there and cannot be read, or others can read them.
    """
    path = folder / PAIR
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            tree = tomllib.load(file)
        public, secret = tree["public"], bytes.fromhex(tree["secret"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise UserError(
            f"{path}: cannot be read ({e.strerror}): it belongs to the user who runs the stack; run this as "
            "that user, or have the stack run as you"
        ) from e
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not a pair of keys: `gripwire keys new --replace` makes another") from e
    if mode & 0o007:
        raise UserError(f"{path}: everybody on this machine can read it: `chmod 600 {path}`")
    if len(secret) != 32 or public_of(secret) != public:
        raise UserError(f"{path}: its two keys do not belong together: `gripwire keys new --replace`")
    return Keys(folder, public, secret, Allowed(folder / ALLOWED))


def public_of(secret: bytes) -> str:
    """The public key that belongs to a secret one."""
    return bytes(z85.decode(zmq.curve_public(z85.encode(secret)))).hex()


def create(folder: Path, replace: bool = False) -> Keys:
    """Make this machine's pair: on disk whole, or not at all.

    Raises:
        UserError: there is one already, and ``replace`` was not asked for.
    """
    path = folder / PAIR
    _, secret_z85 = zmq.curve_keypair()
    secret = bytes(z85.decode(secret_z85))
    text = (
        "# This machine's pair of keys. Whoever reads `secret` is this machine: keep it here.\n"
        f'public = "{public_of(secret)}"\nsecret = "{secret.hex()}"\n'
    )
    with _alone_in(folder):
        if path.exists() and not replace:
            raise UserError(
                f"{path}: this machine has keys already; --replace makes new ones, which every other machine "
                "must be told"
            )
        write_whole(path, text, mode=0o600)
    keys = load(folder)
    assert keys is not None
    return keys


def allow(
    keys: Keys,
    name: str,
    key: str | None,
    roles: tuple[Role, ...] = (),
    host: str = "",
    replace: bool = False,
) -> Machine:
    """Let a machine in. ``key`` None: one that is known gets these roles. Without roles one that is known
    keeps its own, another one may watch.

    Raises:
        UserError: not a name or a key, one of them is taken, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r}: a machine's name is letters, digits, `.`, `_` and `-`, 63 at most")
    if host and not HOST.fullmatch(host):
        raise UserError(
            f"{host[:80]!r}: give the name or the address at which {name} is reached, as in [hosts]"
        )
    with _changing(keys) as machines:
        known = machines.get(name)
        key = key.strip().lower() if key else (known.key if known else None)
        if key is None:
            raise UserError(f"{name}: not known yet: give its key; {_WHERE}")
        if not _KEY.fullmatch(key):
            raise UserError(f"{key[:80]!r}: a key is 64 hexadecimal digits; {_WHERE}")
        if key == keys.public:
            raise UserError(
                "that is this machine's own key, which may do everything; give the other machine's"
            )
        if known and known.key != key and not replace:
            raise UserError(
                f"{name} has another key here: `gripwire keys revoke {name}` first, or give --replace"
            )
        if other := next((m.name for m in machines.values() if m.key == key and m.name != name), ""):
            raise UserError(f"that key is known here as {other}: allow {other}, or revoke it first")
        roles = roles or (known.roles if known else ("watch",))
        ordered = tuple(role for role in ROLES if role in roles)
        machines[name] = Machine(name, key, ordered, host or (known.host if known else ""))
    return machines[name]


def revoke(keys: Keys, name: str) -> Machine:
    """Let a machine in no more.

    Raises:
        UserError: it is not known, or the file cannot be read or written.
    """
    with _changing(keys) as machines:
        if name not in machines:
            raise UserError(f"{name}: no such machine here; there are: {', '.join(machines) or 'none'}")
        return machines.pop(name)


@contextmanager
def _changing(keys: Keys) -> Iterator[dict[str, Machine]]:
    """The machines, to be changed; written whole at the end of the block. One process at a time."""
    with _alone_in(keys.folder):
        machines = read_allowed(keys.allowed.path)
        yield machines
        write_whole(keys.allowed.path, _toml(machines))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time changes what lies in ``folder``; it is made if it is not there."""
    make_folder(folder)
    try:
        lock = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as e:
        raise UserError(f"{folder}: cannot be written: {e.strerror}; check the folder's permissions") from e
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _toml(machines: Mapping[str, Machine]) -> str:
    text = (
        "# Machines that may come in, and what each may do. `gripwire keys allow` and `revoke` write this.\n"
    )
    for machine in machines.values():
        roles = ", ".join(f'"{role}"' for role in machine.roles)
        text += f'\n[machines."{machine.name}"]\nkey = "{machine.key}"\nroles = [{roles}]\n'
        text += f'host = "{machine.host}"\n' if machine.host else ""
    return text
