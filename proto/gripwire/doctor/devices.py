"""Serial ports and cameras: there, and allowed to be used."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from gripwire.capsule import about
from gripwire.doctor.finding import Finding, Here
from gripwire.errors import UserError


@dataclass(frozen=True)
class Rights:
    """What the system says of a device and of this user. ``joined``: the groups in the group file, which
    count from the next login on."""

    path: str
    mode: int
    group: str
    usable: bool
    in_group: bool
    joined: bool


def serial(here: Here) -> Iterator[Finding]:
    """The arm's port and the leader's; what the motors say is for `gripwire robot check`."""
    ports = {key: here.value("robot", key) for key in ("port", "leader_port")}
    given = {key: str(port) for key, port in ports.items() if port}
    if not given:
        yield _no_arm(here)
    for key, port in given.items():
        try:
            path = _device(port)
        except UserError as e:
            yield Finding(
                "serial", "fail", f"[robot] {key} = {port}: {e}", "`gripwire robot ports` lists them"
            )
            continue
        yield device("serial", f"[robot] {key} {port}", path, _rights(path), rule(here, path))
    if _modem_manager(here) and any("ttyACM" in os.path.realpath(port) for port in given.values()):
        yield Finding(
            "serial", "warn", "ModemManager runs: it talks to an arm that was just plugged in",
            "`sudo systemctl disable --now ModemManager` where no modem is used",
        )  # fmt: skip
    if given and find_spec("gripwire_robot"):
        yield Finding("serial", "ok", "motors, calibration and supply: `gripwire robot check` asks them")


def _no_arm(here: Here) -> Finding:
    found = [f"/dev/serial/by-id/{name}" for name in here.names("dev", "serial", "by-id")]
    found = found or [f"/dev/{n}" for n in here.names("dev") if n.startswith(("ttyACM", "ttyUSB"))]
    if found:
        return Finding(
            "serial", "warn", f"[robot] port is not set; there is {', '.join(found)}",
            "set it in gripwire.toml: `gripwire robot ports` prints the line",
        )  # fmt: skip
    return Finding(
        "serial", "ok", "[robot] port is not set, and no USB serial port is plugged in (the bench needs none)"
    )


def _device(port: str) -> str:
    """The path that a setting means; the robot's own rule where it is installed."""
    if not port.startswith(("serial:", "usb:")):
        return port
    if find_spec("gripwire_robot") is None:
        raise UserError("only gripwire-robot can look up an adapter by its number; it is not installed here")
    return str(import_module("gripwire_robot.ports").find(port))


def cameras(here: Here) -> Iterator[Finding]:
    """The cameras that are devices of this machine."""
    for name in here.settings.cameras:
        source = here.value("cameras", name, "source")
        slot = f"[cameras.{name}] source"
        if source is None or source == "":
            yield _no_camera(here, slot)
            continue
        path = f"/dev/video{source}" if str(source).isdigit() else str(source)
        if "://" in path:
            yield Finding(
                "camera", "ok", f"{slot} is {about.without_passwords(path)}, not a device of this machine"
            )
        elif path.startswith("/dev/"):
            yield device("camera", f"{slot} {path}", path, _rights(path), rule(here, path))
        elif not Path(path).expanduser().exists():
            yield Finding("camera", "fail", f"{slot} {path}: there is no such file", "check the path")
        else:
            yield Finding("camera", "ok", f"{slot} is the file {path}")


def _no_camera(here: Here, slot: str) -> Finding:
    found = [f"/dev/{name}" for name in here.names("dev") if name.startswith("video")]
    if found:
        return Finding(
            "camera", "warn", f"{slot} is not set; there is {', '.join(found)}",
            f'write `source = "{found[0]}"` in gripwire.toml',
        )  # fmt: skip
    return Finding("camera", "ok", f"{slot} is not set, and no camera is plugged in (the bench needs none)")


def device(check: str, what: str, path: str, rights: Rights | None, rule: str) -> Finding:
    """What to think of a device that the settings name. Pure."""
    if rights is None:
        return Finding(
            check, "fail", f"{what} is not there",
            "plug it in, and see whether `dmesg` tells of it; in a container it must be passed through "
            "(`devices` in docker-compose.yml)",
        )  # fmt: skip
    if not stat.S_ISCHR(rights.mode):
        return Finding(check, "fail", f"{what} is not a device", "check the setting")
    if rights.usable:
        return Finding(check, "ok", f"{what} is there and may be used")
    mode = f"{stat.filemode(rights.mode)}, group {rights.group}"
    if rights.joined and not rights.in_group:
        remedy = f"you are in the group {rights.group}, but not yet in this session: log in again"
    elif rights.mode & stat.S_IWGRP and rights.group != "root":
        remedy = f"`sudo usermod -aG {rights.group} $USER`, then log in again; in a container: `group_add`"
    else:
        remedy = (
            f"write {rule} into /etc/udev/rules.d/70-gripwire.rules, `sudo udevadm control --reload`, plug "
            "it in again"
        )
    return Finding(check, "fail", f"{what} may not be used by this user ({mode})", remedy)


def rule(here: Here, path: str) -> str:
    """The line of udev rules that gives whoever sits at the machine this device."""
    kind = "video4linux" if "video" in path else "tty"
    folder = here.root / "sys/class" / kind / Path(os.path.realpath(path)).name / "device"
    for parent in (folder.resolve(), *folder.resolve().parents):
        vendor, product = (here.read(parent / name) for name in ("idVendor", "idProduct"))
        if vendor and product:
            which = f'ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}"'
            return f'`SUBSYSTEM=="{kind}", {which}, TAG+="uaccess"`'
    return f'`SUBSYSTEM=="{kind}", TAG+="uaccess"`'


def _rights(path: str) -> Rights | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    try:
        entry = grp.getgrgid(found.st_gid)
        group, members = entry.gr_name, entry.gr_mem
    except KeyError:  # a group of the machine that this container does not know by name
        group, members = str(found.st_gid), []
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = ""
    in_group = found.st_gid in (os.getgid(), *os.getgroups())
    usable = os.access(path, os.R_OK | os.W_OK)
    return Rights(path, found.st_mode, group, usable, in_group, user in members)


def _modem_manager(here: Here) -> bool:
    return any(
        here.read("proc", pid, "comm") == "ModemManager" for pid in here.names("proc") if pid.isdigit()
    )
