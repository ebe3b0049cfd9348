"""Serial ports by what is plugged in, not by the order in which it was.

`/dev/ttyACM0` is whichever adapter the kernel saw first. A setting `serial:XXXX` or `usb:VID:PID:SERIAL`
means one adapter wherever it is; `/dev/serial/by-id/...` does the same on Linux and needs nothing of this.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gripwire.errors import UserError

_WRITE = "write `serial:XXXX` or `usb:VID:PID:SERIAL` as `gripwire robot ports` prints it, or a device's path"


@dataclass(frozen=True)
class Port:
    """A serial port of this machine. ``vendor`` and ``product`` are USB ids; None: not on USB."""

    device: str
    serial: str = ""
    vendor: int | None = None
    product: int | None = None
    description: str = ""

    @property
    def usb(self) -> str:
        """`usb:VID:PID:SERIAL`; empty for a port that is not on USB."""
        if self.vendor is None or self.product is None:
            return ""
        return f"usb:{self.vendor:04x}:{self.product:04x}:{self.serial}"


def present() -> list[Port]:
    """The serial ports of this machine, as pyserial finds them. (A pseudo-terminal is none of them.)"""
    from serial.tools.list_ports import comports

    return [
        Port(info.device, info.serial_number or "", info.vid, info.pid, info.description or "")
        for info in sorted(comports())
    ]


def is_path(name: str) -> bool:
    """Whether a setting names a device rather than an adapter."""
    return not name.startswith(("serial:", "usb:"))


def find(name: str, ports: Callable[[], Sequence[Port]] = lambda: present()) -> str:
    """The device that the setting ``name`` means now; a path means itself, whether it exists or not.

    Raises:
        UserError: no port, or more than one, is the one named.
    """
    return name if is_path(name) else match(name, ports())


def match(name: str, ports: Sequence[Port]) -> str:
    """The device of the one port that ``name`` (`serial:...` or `usb:...`) means. Pure.

    Raises:
        UserError: none or several are, or the name is not in one of the two forms.
    """
    kind, _, rest = name.partition(":")
    parts = rest.split(":", 2)
    if not all(parts) or (kind == "usb" and len(parts) != 3):
        raise UserError(f"the port `{name}` is incomplete: {_WRITE}")
    wanted = rest if kind == "serial" else name.lower()
    found = [p for p in ports if wanted == (p.serial if kind == "serial" else p.usb.lower())]
    if len(found) == 1:
        return found[0].device
    if found:
        devices = " and ".join(port.device for port in found)
        raise UserError(
            f"{devices} are both `{name}`: adapters without serial numbers of their own can only be told "
            "apart by where they are plugged in; set `port` to a path below /dev/serial/by-path"
        )
    there = ", ".join(f"{p.device} ({p.serial or 'no serial number'})" for p in ports if p.usb)
    raise UserError(
        f"no adapter `{name}` is plugged in: check the USB cable; "
        + (f"there is {there}" if there else "there is no USB serial port at all")
    )


def setting(port: Port, ports: Sequence[Port]) -> str:
    """What to write for this port in gripwire.toml: the shortest that means it and no other."""
    alike = [other for other in ports if other != port]
    if port.serial and not any(other.serial == port.serial for other in alike):
        return f"serial:{port.serial}"
    if port.serial and port.usb and not any(other.usb == port.usb for other in alike):
        return port.usb
    return _by_path(port.device) or port.device


def _by_path(device: str, folder: Path = Path("/dev/serial/by-path")) -> str:
    """Linux's name for the USB socket that a device is plugged into; empty if there is none."""
    links = sorted(folder.glob("*")) if folder.is_dir() else []
    return next((str(link) for link in links if os.path.realpath(link) == os.path.realpath(device)), "")


def users(device: str) -> list[str]:
    """Other programs that have ``device`` open: `gripwire robot run (process 4711)`. Linux tells; elsewhere,
    and for other people's processes, nobody is found."""
    path = os.path.realpath(device)
    out = []
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda entry: int(entry.name)):
        links = _open_files(process)
        # Whoever holds a pseudo-terminal's other end is the device, not a user of it.
        if (
            path in links.values()
            and process.name != str(os.getpid())
            and not _is_master(process, links, path)
        ):
            out.append(f"{_command(process)} (process {process.name})")
    return out


def _open_files(process: Path) -> dict[str, str]:
    """File descriptor -> what it leads to."""
    try:
        return {entry.name: os.readlink(entry) for entry in (process / "fd").iterdir()}
    except OSError:  # it is gone, or not ours
        return {}


def _is_master(process: Path, links: dict[str, str], path: str) -> bool:
    for fd, target in links.items():
        if target in ("/dev/ptmx", "/dev/pts/ptmx"):
            try:
                if f"tty-index:\t{Path(path).name}" in (process / "fdinfo" / fd).read_text().splitlines():
                    return True
            except OSError:
                continue
    return False


def _command(process: Path) -> str:
    """`gripwire robot run`, or the first words of another program's command line."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a program"
    names = [Path(word).name if word.startswith("/") else word for word in words if word]
    if len(names) > 1 and names[0].startswith("python"):
        names = names[2:] if names[1] == "-m" else names if names[1].startswith("-") else names[1:]
    return " ".join(names[:3]) or "a program"
