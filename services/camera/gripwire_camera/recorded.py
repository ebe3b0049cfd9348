"""A camera's frames out of a recording of the bus (`gripwire record`), as a stand-in for the camera."""

import threading
import time
from pathlib import Path

import numpy as np

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Frame
from gripwire.recording.file import Recorded, Recording
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture


class RecordedCamera:
    """Plays `camera/<name>` of the recording ``path`` as the camera gave it, ``rate`` times as fast.

    Pauses are as they were. A picture that was frozen comes again and is found out again.

    Raises:
        UserError: it is no recording, or has no frame of this camera.
    """

    patient = True

    def __init__(self, name: str, path: Path, settings: Camera, rate: float = 1.0) -> None:
        self.address = str(path)
        self.broken = 0
        self._topic, self._rate, self._loop = f"camera/{name}", rate, settings.loop
        self._recording = Recording(path)
        self._stop = threading.Event()
        self._frames = self._recording.messages({self._topic})
        self._next = next(self._frames, None)
        if self._next is None:
            there = ", ".join(t for t in self._recording.contents().counts if t.startswith("camera/"))
            raise UserError(
                f"camera {name}: {path} has no frame of it; "
                + (f"there is {there}: give --name" if there else "")
            )
        first = self._next.message
        self.live = isinstance(first, Frame) and first.live
        self._began_at = self._next.log_time
        self._started = 0.0

    def open(self) -> list[str]:
        self._started = time.monotonic()
        return []

    def read(self) -> Picture | None:
        recorded = self._take()
        if recorded is None or not isinstance(frame := recorded.message, Frame):
            return None
        due = self._started + (recorded.log_time - self._began_at) / 1e9 / self._rate
        if self._stop.wait(max(0.0, due - time.monotonic())):
            return None
        if (behind := time.monotonic() - due) > 1.0:  # the machine slept: go on from here instead of racing
            self._started += behind
        data = recorded.payload or b""
        if frame.encoding == "jpeg":
            return Picture(data, frame.width, frame.height, clock.monotonic_ns(), frame.exposure_seq)
        image = np.frombuffer(data, np.uint8).reshape(frame.height, frame.width, 3)[:, :, ::-1]
        return Picture(
            np.ascontiguousarray(image), frame.width, frame.height, clock.monotonic_ns(), frame.exposure_seq
        )

    def _take(self) -> Recorded | None:
        if self._next is None and self._loop:
            self._frames = self._recording.messages({self._topic})
            self._next, self._started = next(self._frames, None), time.monotonic()
        taken, self._next = self._next, None
        if taken is not None:
            self._next = next(self._frames, None)
        return taken

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        pass
