"""Where pictures come from: what every source offers, and the choice among them."""

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from gripwire.errors import UserError
from gripwire_camera import opencv
from gripwire_camera.settings import Camera

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass
class Picture:
    """One exposure: a JPEG as the source sent it, or a BGR array (height, width, 3) uint8."""

    data: "bytes | NDArray[np.uint8]"
    width: int
    height: int
    t_capture: int
    """CLOCK_MONOTONIC ns"""
    exposure_seq: int = -1


def decode(picture: Picture) -> "NDArray[np.uint8]":
    """The picture as BGR, (height, width, 3).

    Raises:
        ValueError: its JPEG is broken.
    """
    if not isinstance(picture.data, bytes):
        return picture.data
    import numpy as np

    cv2 = opencv.load()
    # An orientation tag is ignored: the reward and the recorder ignore it in JPEGs too, and a turned picture
    # would not have the size in the header.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(picture.data, np.uint8), flags)
    if image is None:
        raise ValueError("the JPEG cannot be decoded")
    return image


class SourceLost(Exception):
    """The source does not deliver; trying again may help. The text says what, where and the remedy."""


class Source(Protocol):
    """One camera. Opened, read and closed by one thread; ``interrupt`` comes from another."""

    live: bool
    patient: bool
    """It loses nothing while nobody reads: a file."""
    address: str
    broken: int
    """Pictures that arrived unusable and were thrown away."""

    def open(self) -> list[str]:
        """Connect and apply the settings; warnings about settings that were not accepted.

        Raises:
            SourceLost: nothing answers there now.
            UserError: it cannot give what the settings ask for.
        """
        ...

    def read(self) -> Picture | None:
        """The next picture, waiting for it; None at the end of a file.

        Raises:
            SourceLost: it has stopped delivering.
        """
        ...

    def interrupt(self) -> None:
        """Make a waiting ``read`` return or raise soon."""
        ...

    def close(self) -> None: ...


def choose(name: str, settings: Camera, rate: float = 1.0) -> Source:
    """The source that the settings name; what cannot exist is refused here, before the loop.

    ``rate``: how fast a recording is played; nothing else can be hurried.

    Raises:
        UserError: no source is set, or a device or file that is not there, or a malformed address.
    """
    source = settings.source
    if source is None or source == "":
        raise UserError(
            f"camera {name} has no source: set `source` in [cameras.{name}] of gripwire.toml or give "
            "--source (a device index, /dev/video0, http://..., rtsp://... or a video file)"
        )
    text = str(source)
    if text.isdigit():
        return _device(name, int(text), settings)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme:
        return _address(name, scheme, text, settings)
    path = Path(text).expanduser()
    if not path.exists():
        remedy = _what_there_is() if text.startswith("/dev/") else "check the path in `source`"
        raise UserError(f"camera {name}: {text} does not exist; {remedy}")
    if stat.S_ISCHR(path.stat().st_mode):
        return _device(name, str(path), settings)
    if not path.is_file():
        raise UserError(f"camera {name}: {text} is neither a camera nor a video file; {_what_there_is()}")
    if path.suffix == ".mcap":
        from gripwire_camera.recorded import RecordedCamera

        return RecordedCamera(name, path, settings, rate)
    from gripwire_camera.video import VideoFile

    return VideoFile(name, path, settings)


def _device(name: str, device: int | str, settings: Camera) -> Source:
    path = f"/dev/video{device}" if isinstance(device, int) else device
    if sys.platform == "linux":
        if not os.path.exists(path):
            raise UserError(f"camera {name}: there is no camera {device} ({path}); {_what_there_is()}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise UserError(
                f"camera {name}: no permission to use {path}; add yourself to the group that owns it "
                "(`sudo usermod -aG video $USER`), then log in again"
            )
    from gripwire_camera.device import Device

    return Device(name, device, settings)


def _address(name: str, scheme: str, text: str, settings: Camera) -> Source:
    try:
        url = urlsplit(text)
        _ = url.port  # parsed, and refused, only when asked for
    except ValueError as e:
        raise UserError(f"camera {name}: {text} is not an address ({e}); check `source`") from e
    if not url.hostname:
        raise UserError(
            f"camera {name}: {text} names no host; check `source`, e.g. http://192.168.1.20:8080/"
        )
    if scheme in ("http", "https"):
        from gripwire_camera.http import HttpStream

        return HttpStream(name, url, settings)
    if scheme in ("rtsp", "rtsps"):
        from gripwire_camera.device import Device

        return Device(name, text, settings)
    raise UserError(f"camera {name}: {scheme}:// is not understood; use http://, https:// or rtsp://")


def _what_there_is() -> str:
    devices = sorted(str(path) for path in Path("/dev").glob("video*")) if sys.platform == "linux" else []
    if not devices:
        return "no camera is plugged in here: check `source`, the cable and its USB port"
    return f"cameras here: {', '.join(devices)}; check `source`"


def without_password(url: Any) -> str:
    """An address fit for messages and logs."""
    host = url.hostname if url.port is None else f"{url.hostname}:{url.port}"
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{host}{url.path}{query}"
