"""The pictures once more, in the format of LeRobot's own `zmq` camera (docs/wire.md)."""

import base64
import json
import threading
import time

from gripwire import clock
from gripwire.audience import Audience
from gripwire.errors import UserError
from gripwire.topics import Endpoint
from gripwire_camera import opencv
from gripwire_camera.sources import Picture, decode

_FIRST = b'{"timestamps"'
"""What every message begins with. LeRobot subscribes to everything."""
_DEPTH = 2
"""Messages kept for a reader that is behind: it wants the newest, and memory is not to grow."""
_POLL_S = 0.1


class LeRobotStream:
    """Encodes and sends in a thread of its own, the newest picture only, and only while somebody reads:
    nothing here may delay `camera/<name>`.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, name: str, host: str, port: int, quality: int) -> None:
        self.sent = 0
        self.error: BaseException | None = None
        self._name, self._quality = name, quality
        self._picture: Picture | None = None
        self._offered = threading.Condition()
        self._stop = threading.Event()
        try:
            self._audience = Audience(_FIRST, Endpoint(host, port), _DEPTH, f"camera {name}")
        except UserError as e:
            raise UserError(
                f"camera {name} cannot use port {port} for LeRobot's `zmq` camera: something else has it; "
                f"give `lerobot_port` in [cameras.{name}] another number, each camera its own"
            ) from e
        self._thread = threading.Thread(target=self._run, name="lerobot stream", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> int:
        """What came that is no subscription, and readers that were hung up on for a flood of them."""
        return self._audience.refused

    def offer(self, picture: Picture) -> None:
        """The newest picture. Never waits."""
        with self._offered:
            self._picture = picture
            self._offered.notify()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._offered:
                    self._offered.wait_for(lambda: self._picture is not None, _POLL_S)
                    picture, self._picture = self._picture, None
                self._audience.look()
                if picture is not None and self._audience.readers > 0:
                    self._send(picture)
        except BaseException as e:  # handed to the loop, which ends the service with it
            self.error = e
        finally:
            self._audience.socket.close()

    def _send(self, picture: Picture) -> None:
        try:
            jpeg = exchanged(picture, self._quality)
        except ValueError:  # counted where it is published
            return
        taken = time.time() - (clock.monotonic_ns() - picture.t_capture) / 1e9
        image = base64.b64encode(jpeg).decode()
        message = {"timestamps": {self._name: taken}, "images": {self._name: image}}
        self._audience.socket.send(json.dumps(message).encode())  # drops it for a reader that is behind
        self.sent += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3.0)


def exchanged(picture: Picture, quality: int) -> bytes:
    """A JPEG with red and blue exchanged, as LeRobot's image server makes it: it hands RGB to OpenCV's
    encoder, which takes it for BGR, and its reader does not turn them back.

    It has to be coded anew: a JPEG keeps brightness apart from colour, and red and blue weigh differently
    in it.

    Raises:
        ValueError: the picture cannot be decoded.
    """
    cv2 = opencv.load()
    image = cv2.cvtColor(decode(picture), cv2.COLOR_BGR2RGB)
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError("the picture cannot be encoded as JPEG")
    return bytes(data)
