"""LeRobot's camera type `gripwire`: pictures of a camera service, which any number of programs may read."""

import time
from typing import Any

import cv2
import numpy as np
from lerobot.cameras import Camera
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected
from lerobot.utils.errors import DeviceNotConnectedError
from numpy.typing import NDArray

from gripwire.bus import Latest, Received
from gripwire.messages import Frame
from lerobot_robot_gripwire import bus
from lerobot_robot_gripwire.configs import GripwireCameraConfig

MEASURE_S = 1.0
SLOW = 0.8
"""Below this share of the rate that was asked for, a camera does not give it."""
READ_S = 10.0


class GripwireCamera(Camera):
    """RGB pictures, (height, width, 3) uint8, of one camera slot. Decoded only when read.

    A picture that is old or that the camera service calls not valid (frozen, say) is never returned: reading
    raises ``TimeoutError`` with the reason.
    """

    def __init__(self, config: GripwireCameraConfig) -> None:
        super().__init__(config)
        self.config = config
        stack = bus.find(config.port_base)
        self.slot = config.name or (stack.cameras[0] if len(stack.cameras) == 1 else "")
        if self.slot not in stack.cameras:
            raise ValueError(
                f"which camera? `{config.name or ''}` is none of gripwire's: give `name`, one of "
                f"{', '.join(stack.cameras)} (sections [cameras.*] of {stack.path or 'gripwire.toml'})"
            )
        self._topic = stack.topics[f"camera/{self.slot}"]
        self._reader: Latest[Frame] | None = None
        self._given: Received[Frame] | None = None
        self._decoded: tuple[Received[Frame], NDArray[np.uint8]] | None = None

    def __str__(self) -> str:
        return f"GripwireCamera({self.slot})"

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """The cameras that the settings name, whether they run or not."""
        return [{"type": "gripwire", "name": name, "id": name} for name in bus.find(None).cameras]

    @property
    def is_connected(self) -> bool:
        return self._reader is not None

    @check_if_already_connected
    def connect(self, warmup: bool = True) -> None:
        """Wait for a picture and compare it with what was asked for; with ``warmup`` its rate too.

        Raises:
            ConnectionError: none comes, or it has another size or comes more slowly.
        """
        self._reader = Latest(self._topic, Frame)
        try:
            first = self._fresh(bus.CONNECT_S)
            self._fit(first.message)
            if warmup and self.fps:
                self._check_rate(first, self.fps)
        except Exception as e:
            self.disconnect()
            raise ConnectionError(f"{self}: {e}") from e

    def look(self) -> None:
        """Find out ``width`` and ``height`` where they were not given.

        Raises:
            ConnectionError: as :meth:`connect`.
        """
        if None in (self.width, self.height) and not self.is_connected:
            self.connect(warmup=False)
            self.disconnect()

    def _fit(self, frame: Frame) -> None:
        for key, asked, got in (
            ("width", self.width, frame.width),
            ("height", self.height, frame.height),
        ):
            if asked not in (None, got):
                raise ValueError(
                    f"its pictures are {frame.width}x{frame.height}, not of {key} {asked}: leave `width` and "
                    f"`height` away, or set them in [cameras.{self.slot}] of gripwire.toml"
                )
        self.width, self.height = frame.width, frame.height

    def _check_rate(self, first: Received[Frame], asked: float) -> None:
        """More than ``asked`` is no mistake: the newest is read, whatever was in between."""
        last = first
        deadline = time.monotonic() + MEASURE_S
        while (left := deadline - time.monotonic()) > 0:
            last = self._connected().wait(left, after=last) or last
        seconds = (last.message.t_capture - first.message.t_capture) / 1e9
        rate = (last.message.seq - first.message.seq) / seconds if seconds > 0 else 0.0
        if last.message.boot == first.message.boot and rate < SLOW * asked:
            raise ValueError(
                f"it gives {rate:.1f} pictures a second, not the {asked:g} asked for: lower `fps`, or give "
                "it more light, a fixed `exposure` or a smaller picture; `gripwire hz` measures it"
            )

    # --- reading ----------------------------------------------------------------------------------------

    @check_if_not_connected
    def read(self) -> NDArray[np.uint8]:
        """The next picture to arrive."""
        self._given = self._connected().get()
        return self.async_read(1e3 * READ_S)

    @check_if_not_connected
    def async_read(self, timeout_ms: float = 200) -> NDArray[np.uint8]:
        """The newest picture, if it was not given before, else the next.

        Raises:
            TimeoutError: none came in time.
        """
        reader, before = self._connected(), self._given
        deadline = time.monotonic() + timeout_ms / 1e3
        while True:
            newest = reader.wait(max(0.0, deadline - time.monotonic()), after=before)
            if newest is None:
                raise TimeoutError(f"{self}: no new picture within {timeout_ms:g} ms; {self._problem()}")
            if not bus.judge(newest, self._topic, _usable):
                self._given = newest
                return self._decode(newest)
            before = newest

    @check_if_not_connected
    def read_latest(self, max_age_ms: int = 500) -> NDArray[np.uint8]:
        """The newest picture, at once.

        Raises:
            TimeoutError: it is older, or not valid.
        """
        newest = self._connected().get()
        if problem := bus.judge(newest, self._topic, _usable, max_age_ms / 1e3):
            raise TimeoutError(f"{self}: {problem}")
        assert newest is not None
        return self._decode(newest)

    @check_if_not_connected
    def read_fresh(self) -> NDArray[np.uint8]:
        """The newest picture if it is fresh; else the next, with some patience.

        Raises:
            TimeoutError: none came.
        """
        return self._decode(self._fresh(bus.PATIENCE_S))

    def _fresh(self, patience_s: float) -> Received[Frame]:
        return bus.fresh(self._connected(), patience_s, _usable)

    def _connected(self) -> Latest[Frame]:
        if self._reader is None:
            raise DeviceNotConnectedError(f"{self} is not connected")
        return self._reader

    def _problem(self) -> str:
        return bus.judge(self._connected().get(), self._topic, _usable) or "the camera is slow"

    def _decode(self, received: Received[Frame]) -> NDArray[np.uint8]:
        if self._decoded and self._decoded[0] is received:
            return self._decoded[1]
        self._fit(received.message)
        image = decode(received)
        self._decoded = received, image
        return image

    def disconnect(self) -> None:
        reader, self._reader = self._reader, None
        self._given = self._decoded = None
        if reader:
            reader.close()


def _usable(frame: Frame) -> str:
    return "" if frame.valid else frame.reason or "no reason is given"


def decode(received: Received[Frame]) -> NDArray[np.uint8]:
    """A frame's picture as RGB.

    Raises:
        ValueError: its payload is not what its header says.
    """
    frame, payload = received.message, received.payload
    if payload is None:
        raise ValueError(f"frame {frame.seq} of `camera/{frame.camera}` has no picture")
    data = np.frombuffer(payload, np.uint8)
    shape = (frame.height, frame.width, 3)
    if frame.encoding == "rgb8" and data.size == frame.height * frame.width * 3:
        return data.reshape(shape).copy()
    if frame.encoding == "jpeg":
        # No turning by an orientation tag, as everywhere in gripwire: the size is that of the header.
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None and image.shape == shape:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    raise ValueError(f"frame {frame.seq} of `camera/{frame.camera}` cannot be decoded")
