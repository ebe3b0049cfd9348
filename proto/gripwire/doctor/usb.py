"""Whether the USB has room for what the cameras are set to send.

Cameras send isochronously: the bus must promise them their share, of at most 80 % of a high-speed bus (USB
2.0, 5.5.4; 90 % at full speed). What stands on one root port (behind one hub) shares one such bus. A camera
that compresses reserves what its own descriptor says, often as much as uncompressed pictures would take.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gripwire.doctor.finding import Finding, Here

BITS = {"YUYV": 16, "UYVY": 16, "NV12": 12, "YU12": 12, "GREY": 8, "Y800": 8, "RGB3": 24, "BGR3": 24}
"""Per pixel, of formats that are not compressed."""
COMPRESSED = 4.0
"""A detailed picture as JPEG is about a quarter of YUYV."""
HIGH_SPEED = 480.0


@dataclass(frozen=True)
class Camera:
    """A camera on the USB. ``speed``: of its link, Mbit/s; ``port``: the root port it hangs from, as
    `bus-port`; ``reserved``: Mbit/s that it holds now, 0 while it does not stream."""

    slot: str
    device: str
    width: int
    height: int
    fps: float
    fourcc: str
    speed: float
    port: str
    reserved: float = 0.0

    @property
    def compressed(self) -> bool:
        return self.fourcc.upper() not in BITS

    @property
    def needs(self) -> float:
        """Mbit/s of pictures as they are set."""
        bits = BITS.get(self.fourcc.upper(), 16 / COMPRESSED)
        return self.width * self.height * self.fps * bits / 1e6

    @property
    def raw(self) -> float:
        """What it would be uncompressed, which is what many cameras reserve."""
        return self.width * self.height * self.fps * 16 / 1e6

    def __str__(self) -> str:
        size = f"{self.width}x{self.height} {self.fourcc} at {self.fps:g} Hz"
        return f"{self.slot} ({self.device}, {size}: {self.needs:.0f} Mbit/s)"


def room(speed: float) -> float:
    """Mbit/s that isochronous traffic may have of a link of that speed."""
    return speed * (0.9 if speed < HIGH_SPEED else 0.8)


def check(here: Here) -> Iterator[Finding]:
    """The cameras that the settings name and sysfs knows to be on the USB."""
    yield from judge([c for name in here.settings.cameras if (c := find(here, name))])


def judge(found: list[Camera]) -> Iterator[Finding]:
    """Each camera by itself, and those that share a bus. Pure."""
    for camera in found:
        yield alone(camera)
    shared: dict[str, list[Camera]] = {}
    for camera in found:
        if camera.speed <= HIGH_SPEED:
            shared.setdefault(camera.port, []).append(camera)
    for port, cameras in shared.items():
        if len(cameras) > 1:
            yield together(port, cameras)


def alone(camera: Camera) -> Finding:
    holds = f", {camera.reserved:.0f} Mbit/s reserved now" if camera.reserved else ""
    if camera.needs <= room(camera.speed):
        text = f"{camera} on a link of {camera.speed:g} Mbit/s{holds}"
        return Finding("usb", "ok", text)
    smaller = 'take `fourcc = "MJPG"`' if not camera.compressed else "take a smaller picture or fewer of them"
    plug = (
        "plug it into a USB 3 port"
        if camera.speed >= HIGH_SPEED
        else "its cable or hub is of USB 1: take others"
    )
    return Finding(
        "usb", "fail",
        f"{camera} has a link of {camera.speed:g} Mbit/s, of which {room(camera.speed):.0f} can be had",
        f"{smaller} in [cameras.{camera.slot}], or {plug}",
    )  # fmt: skip


def together(port: str, cameras: list[Camera]) -> Finding:
    limit = room(min(HIGH_SPEED, max(camera.speed for camera in cameras)))
    needs, names = sum(c.needs for c in cameras), " and ".join(str(c) for c in cameras)
    remedy = "plug one of them into another port of the machine itself (not of the same hub)"
    if needs > limit:
        return Finding(
            "usb", "fail", f"{names} share USB port {port}: {needs:.0f} of {limit:.0f} Mbit/s",
            f'{remedy}, or set a smaller picture or `fourcc = "MJPG"`',
        )  # fmt: skip
    if sum(c.reserved or c.raw for c in cameras) > limit:
        return Finding(
            "usb", "warn", f"{names} share USB port {port}: {needs:.0f} of {limit:.0f} Mbit/s, but many "
            "cameras reserve as much as uncompressed pictures take, and the second then does not start",
            f"if it does not: {remedy}",
        )  # fmt: skip
    return Finding("usb", "ok", f"{names} share USB port {port}: {needs:.0f} of {limit:.0f} Mbit/s")


def find(here: Here, name: str) -> Camera | None:
    """The camera of a slot; None when it is no USB device of this machine."""
    source = here.value("cameras", name, "source")
    device = f"/dev/video{source}" if str(source).isdigit() else str(source or "")
    node = Path(os.path.realpath(here.root / device.lstrip("/"))).name
    interface = here.root / "sys/class/video4linux" / node / "device"
    if not device.startswith("/dev/") or not interface.exists():
        return None
    interface = interface.resolve()
    for folder in (interface, *interface.parents):
        speed, address = here.read(folder / "speed"), re.fullmatch(r"(\d+)-(\d+)(\.\d+)*", folder.name)
        if speed and address:
            reserved = max(
                (_reserved(here, e) for i in folder.glob(f"{folder.name}:*") for e in i.glob("ep_*")),
                default=0.0,
            )
            return Camera(
                name, device, int(_set(here, name, "width", 640)), int(_set(here, name, "height", 480)),
                float(_set(here, name, "fps", 30.0)), str(here.value("cameras", name, "fourcc") or "MJPG"),
                float(speed), f"{address[1]}-{address[2]}", reserved,
            )  # fmt: skip
    return None


def _set(here: Here, name: str, key: str, default: float) -> float:
    value = here.value("cameras", name, key)
    return value if isinstance(value, int | float) else default


def _reserved(here: Here, endpoint: Path) -> float:
    """Mbit/s that an isochronous endpoint holds: its packets every 125 us (USB 2.0, 9.6.6)."""
    if here.read(endpoint / "type") != "Isoc":
        return 0.0
    try:
        packet = int(here.read(endpoint / "wMaxPacketSize"), 16)
        interval = here.read(endpoint / "interval")
    except ValueError:
        return 0.0
    microseconds = float(interval[:-2]) * (1000 if interval.endswith("ms") else 1) if interval else 125.0
    return (packet & 0x7FF) * (1 + (packet >> 11 & 3)) * 8 / max(microseconds, 125.0)
