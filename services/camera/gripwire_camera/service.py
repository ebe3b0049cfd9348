"""The camera service: pictures from a grabber to the topic, marked invalid while they are frozen."""

import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Command, Frame, Reply
from gripwire.service import Runtime
from gripwire_camera import opencv, sources
from gripwire_camera.frozen import Frozen
from gripwire_camera.grabber import Grabber
from gripwire_camera.lerobot_stream import LeRobotStream
from gripwire_camera.rate import ENOUGH, Rate
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture, decode

log = logging.getLogger("gripwire.camera")

WAIT_S = 0.05
HELD_UP_S = 1.0
"""When the loop has not turned for so long, the process was stopped or starved, and what the source, the
kernel and the queues have kept is old, though it would be stamped as if it had just come."""


class CameraService:
    """Publishes `camera/<name>`: every picture once, in order, as soon as it is there."""

    rate_hz: float | None = None

    def __init__(self, runtime: Runtime, name: str, rate: float = 1.0) -> None:
        """``rate``: of a recording that is played in place of the camera."""
        self._runtime, self._name, self._replay_rate = runtime, name, rate
        self._settings = runtime.settings.section(f"cameras.{name}", Camera)
        self._frozen = Frozen()
        self._grabber: Grabber | None = None
        self._lerobot: LeRobotStream | None = None
        self._rate = Rate()
        self._rate_known = False
        self._published = 0
        self._turned = float("inf")

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {}

    def setup(self) -> None:
        source = sources.choose(self._name, self._settings, self._replay_rate)
        self._publisher = self._runtime.publisher(f"camera/{self._name}")
        if port := self._settings.lerobot_port:
            host = self._runtime.settings.plain_bind  # LeRobot's format knows no keys
            self._lerobot = LeRobotStream(self._name, host, port, self._settings.quality)
        self._grabber = Grabber(source)

    def update(self) -> None:
        grabber = self._grabber
        assert grabber is not None
        try:
            picture = grabber.get(WAIT_S)
            if not self._held_up(grabber):
                self._publish(picture, grabber)
        except queue.Empty:
            self._held_up(grabber)
            if grabber.ended and not grabber.waiting:
                log.info("%s is over after %d pictures", grabber.source.address, self._published)
                self._runtime.stopping.set()
        if error := grabber.error or (self._lerobot and self._lerobot.error):
            raise error
        self._report(grabber)

    def _held_up(self, grabber: Grabber) -> bool:
        """Whether nobody has looked at the pictures for so long that they are not those of now."""
        now = time.monotonic()
        held_up = not grabber.source.patient and now - self._turned > HELD_UP_S
        self._turned = now
        if held_up:
            log.warning(
                "the service was held up for more than %g s; pictures from before are left", HELD_UP_S
            )
            self._runtime.count("held_up")
            grabber.renew()
        return held_up

    def _report(self, grabber: Grabber) -> None:
        self._runtime.problem("source", grabber.problem)
        counts = self._runtime.counts
        counts["dropped"] = grabber.dropped
        counts["broken"] = grabber.source.broken
        counts["connects"] = grabber.connects
        if self._lerobot:
            counts["lerobot_frames"] = self._lerobot.sent
            counts["lerobot_refused"] = self._lerobot.refused

    def _publish(self, picture: Picture, grabber: Grabber) -> None:
        source = grabber.source
        if self._published == 0:
            self._compare_size(picture)
        try:
            encoding, payload = encode(picture, self._settings)
        except ValueError:
            self._runtime.count("undecodable")
            return
        if self._held_up(grabber):  # while it was encoded
            return
        # By this clock, not by t_capture: a frozen source may go on naming the same old exposure.
        frozen = source.live and self._frozen.see(payload, clock.monotonic_ns())
        if frozen:
            self._runtime.problem(
                "frozen",
                f"camera {self._name}: {source.address} has sent the very same picture for 1 s; "
                "check the camera, or unplug it and plug it in again",
            )
            self._runtime.count("frozen")
        else:
            self._runtime.problem("frozen", "")
        self._publisher.publish(
            Frame(
                t_capture=picture.t_capture,
                valid=not frozen,
                reason="frozen" if frozen else "",
                camera=self._name,
                width=picture.width,
                height=picture.height,
                encoding=encoding,  # type: ignore[arg-type]
                exposure_seq=picture.exposure_seq,
                source=source.address,
                live=source.live,
            ),
            payload,
        )
        self._published += 1
        self._runtime.count("frames")
        if self._lerobot and not frozen:  # that format cannot say that a picture is not valid
            self._lerobot.offer(picture)
        if source.live and not source.patient and self._settings.fps:
            self._judge_rate(picture.t_capture, source.address, self._settings.fps)

    def _judge_rate(self, t_capture: int, address: str, asked: float) -> None:
        """A camera that is too slow from the start is refused; one that becomes so is reported."""
        measured = self._rate.see(t_capture)
        if measured is None:
            return
        problem = (
            f"camera {self._name}: {address} gives {measured:.3g} pictures a second, not the "
            f"{asked:g} asked for: set `fps` in [cameras.{self._name}] to what it gives, or have it give "
            "more (more light, a fixed `exposure`, a smaller picture)"
            if measured < ENOUGH * asked
            else ""
        )
        if problem and not self._rate_known:
            raise UserError(problem)
        self._rate_known = True
        self._runtime.problem("rate", problem)

    def _compare_size(self, picture: Picture) -> None:
        for key, wanted, got in (
            ("width", self._settings.width, picture.width),
            ("height", self._settings.height, picture.height),
        ):
            if wanted and wanted != got:
                log.warning("asked for %s %d, the source gives %d; passed on as it is", key, wanted, got)

    def close(self, failed: bool) -> None:
        if self._grabber:
            self._grabber.close()
        if self._lerobot:
            self._lerobot.close()


def encode(picture: Picture, settings: Camera) -> tuple[str, bytes]:
    """The frame's ``encoding`` and payload. A JPEG from the source is passed on untouched."""
    if settings.encoding == "jpeg" and isinstance(picture.data, bytes):
        return "jpeg", picture.data
    cv2, image = opencv.load(), decode(picture)
    if settings.encoding == "raw":
        return "rgb8", cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes()
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, settings.quality])
    if not ok:
        raise ValueError("the picture cannot be encoded as JPEG")
    return "jpeg", data.tobytes()


def build(name: str, rate: float = 1.0) -> Callable[[Runtime], CameraService]:
    """What :func:`gripwire.service.run` needs to make this camera."""
    return lambda runtime: CameraService(runtime, name, rate)
