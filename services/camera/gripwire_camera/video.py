"""A video file played at its own rate, as a stand-in for a camera."""

import threading
import time
from pathlib import Path
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire_camera import opencv
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture


class VideoFile:
    """Plays ``path``; ``exposure_seq`` is the frame's index in the file, 0-based.

    Raises:
        UserError: the file is no video, or one of another rate than asked for.
    """

    live = False
    patient = True

    def __init__(self, name: str, path: Path, settings: Camera) -> None:
        self.address = str(path)
        self.broken = 0
        self._name, self._path, self._settings = name, path, settings
        self._capture: Any = self._open()
        self._stop = threading.Event()
        self._index = 0
        self._played = 0
        self._started = 0.0

    def _open(self) -> Any:
        cv2 = opencv.load()
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened() or capture.get(cv2.CAP_PROP_FRAME_WIDTH) <= 0:
            raise UserError(f"camera {self._name}: {self._path} is no video that can be read; check `source`")
        own, asked = capture.get(cv2.CAP_PROP_FPS), self._settings.fps
        if not 0 < own <= 1000:  # it does not say
            own = asked or 30.0
        if asked and abs(asked - own) > 0.02 * own:
            raise UserError(
                f"camera {self._name}: {self._path} has {own:.4g} pictures a second, not the {asked:g} asked "
                f"for: leave `fps` away (--fps), or set it to {own:.4g}"
            )
        self._period = 1.0 / own
        return capture

    def open(self) -> list[str]:
        self._started = time.monotonic()
        return []

    def read(self) -> Picture | None:
        image = self._next()
        if image is None:
            return None
        due = self._started + self._played * self._period
        self._stop.wait(max(0.0, due - time.monotonic()))
        behind = time.monotonic() - due
        if behind > 1.0:  # the machine slept: go on from here instead of racing
            self._started += behind
        picture = Picture(image, image.shape[1], image.shape[0], clock.monotonic_ns(), self._index)
        self._index += 1
        self._played += 1
        return picture

    def _next(self) -> Any:
        if self._stop.is_set():
            return None
        ok, image = self._capture.read()
        if not ok and self._settings.loop and self._index > 0:
            self._capture.release()
            self._capture = self._open()
            self._index = 0
            ok, image = self._capture.read()
        return image if ok else None

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._capture.release()
