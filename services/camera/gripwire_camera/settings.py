"""The section `[cameras.<name>]` of gripwire.toml."""

from typing import Literal

from pydantic import Field

from gripwire.settings import Section


class Camera(Section):
    """One camera slot. ``None`` leaves a property as the source has it."""

    source: str | int | None = Field(
        None, description="device index or path, http(s):// MJPEG address, rtsp:// address, or a video file"
    )
    width: int | None = Field(None, gt=0, le=8192, description="pixels; devices: 640 unless set")
    height: int | None = Field(None, gt=0, le=8192, description="pixels; devices: 480 unless set")
    fps: float | None = Field(
        None, gt=0, le=1000, description="pictures a second that it has to give; devices: 30 unless set"
    )
    fourcc: str = Field("MJPG", pattern=r"^.{4}$", description="pixel format asked of a device")
    exposure: float | None = Field(None, description="fixed exposure in the driver's units (V4L2: 100 us)")
    white_balance: float | None = Field(None, gt=0, description="fixed white balance in kelvin")
    gain: float | None = Field(None, description="fixed gain in the driver's units")
    encoding: Literal["jpeg", "raw"] = Field("jpeg", description="raw: RGB8, height x width x 3 bytes")
    quality: int = Field(90, ge=1, le=100, description="JPEG quality where gripwire itself encodes")
    lerobot_port: int | None = Field(
        None, ge=1024, le=65535, description="also send LeRobot's own `zmq` camera format, on this port"
    )
    loop: bool = Field(False, description="begin a video file again at its end")
