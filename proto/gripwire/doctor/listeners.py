"""Which process listens on which TCP port: Linux's /proc/net/tcp, and who holds its sockets."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
"""State of a socket in proc_net_tcp(5)."""


@dataclass(frozen=True)
class Listener:
    """A socket that is bound. ``pid`` 0: its process is another user's, or in another container."""

    port: int
    pid: int = 0
    command: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "a process that this user cannot see (another user's, or a container's)"
        return f"{self.command or 'a process'} (pid {self.pid})"


def listeners(ports: range, root: Path = Path("/")) -> list[Listener]:
    """Who listens on any of ``ports``; nobody where there is no /proc."""
    inodes = sockets("".join(_read(root / "proc/net" / name) for name in ("tcp", "tcp6")), ports)
    owners = _owners(set(inodes.values()), root / "proc") if inodes else {}
    out = []
    for port, inode in sorted(inodes.items()):
        pid = owners.get(inode, 0)
        out.append(Listener(port, pid, command(root / "proc" / str(pid)) if pid else ""))
    return out


def sockets(table: str, ports: range) -> dict[int, str]:
    """Port -> inode of the listening sockets in the text of /proc/net/tcp. Pure."""
    found = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN and ":" in fields[1]:
            port = int(fields[1].rpartition(":")[2], 16)
            if port in ports:
                found[port] = fields[9]
    return found


def _owners(inodes: set[str], proc: Path) -> dict[str, int]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    for process in proc.glob("[0-9]*"):
        for link in _links(process / "fd"):
            if link in wanted:
                found[wanted[link]] = int(process.name)
    return found


def _links(folder: Path) -> list[str]:
    """What a process has open; nothing when it is gone, or not ours to look at."""
    links = []
    try:
        for entry in folder.iterdir():
            with suppress(OSError):  # closed meanwhile
                links.append(os.readlink(entry))
    except OSError:
        pass
    return links


def command(process: Path) -> str:
    """`gripwire robot run`, or the first words of another program's command line."""
    words = [w for w in _read(process / "cmdline").split("\0") if w]
    names = [Path(word).name if word.startswith("/") else word for word in words]
    if len(names) > 2 and names[0].startswith("python") and names[1] == "-m":
        names = names[2:]
    elif len(names) > 1 and names[0].startswith("python") and not names[1].startswith("-"):
        names = names[1:]
    return " ".join(names[:4])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
