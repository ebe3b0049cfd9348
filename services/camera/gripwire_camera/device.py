"""A camera that OpenCV reads: a V4L2 device, or an RTSP address through FFMPEG."""

import sys
from typing import Any
from urllib.parse import urlsplit

from gripwire import clock
from gripwire.errors import UserError
from gripwire_camera import opencv
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture, SourceLost, without_password

_OPEN_MS, _READ_MS = 3000, 2000


class Device:
    """A device by index or path, or an `rtsp://` address. ``t_capture`` is when grab() returned."""

    live = True
    patient = False

    def __init__(self, name: str, device: int | str, settings: Camera) -> None:
        self.broken = 0
        self._name, self._device, self._settings = name, device, settings
        self._network = isinstance(device, str) and "://" in device
        self._capture: Any = None
        if self._network:
            self.address = without_password(urlsplit(str(device)))
        else:
            self.address = f"/dev/video{device}" if isinstance(device, int) else device

    def open(self) -> list[str]:
        cv2 = opencv.load()
        if self._network:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
            self._capture = cv2.VideoCapture(str(self._device), cv2.CAP_FFMPEG, limits)
        else:
            backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
            self._capture = cv2.VideoCapture(self._device, backend)
        if not self._capture.isOpened():
            self.close()
            raise self._lost(
                "does not answer; is it on, and the address right?"
                if self._network
                else "cannot be opened; another program may be using it, or the cable be loose"
            )
        warnings = apply(self._capture, self._settings, device=not self._network)
        if not self._network:
            self._check_rate(opencv.load())
        return warnings

    def _check_rate(self, cv2: Any) -> None:
        """A driver takes the rate nearest to what it is asked for, and says which.

        Raises:
            UserError: it is another than the one in the settings.
        """
        asked, got = self._settings.fps, self._capture.get(cv2.CAP_PROP_FPS)
        if asked is None or got <= 0 or abs(got - asked) <= max(0.5, 0.02 * asked):  # some do not say
            return
        width, height = (self._capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        raise UserError(
            f"camera {self._name}: {self.address} gives {got:g} pictures a second at {width:g}x{height:g} "
            f"{self._settings.fourcc}, not the {asked:g} asked for: set `fps = {got:g}` in "
            f"[cameras.{self._name}], or a size or `fourcc` at which it is faster "
            "(`v4l2-ctl --list-formats-ext` lists them)"
        )

    def read(self) -> Picture:
        if self._capture is None or not self._capture.grab():
            raise self._lost("stopped delivering pictures; check its cable and power")
        t_capture = clock.monotonic_ns()
        ok, image = self._capture.retrieve()
        if not ok or image is None or image.ndim != 3:
            self.broken += 1
            raise self._lost('delivers pictures that cannot be decoded; try `fourcc = "YUYV"`')
        return Picture(image, image.shape[1], image.shape[0], t_capture)

    def _lost(self, what: str) -> SourceLost:
        return SourceLost(f"camera {self._name}: {self.address} {what}")

    def interrupt(self) -> None:
        """Nothing to do: a grab ends by itself, with a picture or after two seconds."""

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def apply(capture: Any, settings: Camera, device: bool) -> list[str]:
    """Set what the settings ask for on an open ``cv2.VideoCapture``, in the order drivers need: format,
    size and rate, then the automatics off, then the fixed values.

    Returns a sentence for each thing that was asked for by name and reads back otherwise.
    """
    cv2 = opencv.load()
    wanted: list[tuple[str, int, float]] = []
    if device:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width or 640)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height or 480)
        capture.set(cv2.CAP_PROP_FPS, settings.fps or 30)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        wanted += [
            ("width", cv2.CAP_PROP_FRAME_WIDTH, settings.width or 640),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, settings.height or 480),
            ("fps", cv2.CAP_PROP_FPS, settings.fps or 30),
        ]
    if settings.exposure is not None:
        manual = 1  # V4L2_EXPOSURE_MANUAL
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, manual)
        wanted.append(("exposure", cv2.CAP_PROP_EXPOSURE, settings.exposure))
    if settings.white_balance is not None:
        capture.set(cv2.CAP_PROP_AUTO_WB, 0)
        wanted.append(("white_balance", cv2.CAP_PROP_WB_TEMPERATURE, settings.white_balance))
    if settings.gain is not None:
        wanted.append(("gain", cv2.CAP_PROP_GAIN, settings.gain))
    warnings = []
    for key, prop, value in wanted:
        if key in ("exposure", "white_balance", "gain"):
            capture.set(prop, value)
        got = capture.get(prop)
        if abs(got - value) > max(0.5, 0.02 * abs(value)):
            warnings.append(f"asked for {key} {value:g}, the camera says {got:g}")
    return warnings
