"""The gripper camera: what it sees, when, and with what noise."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gripwire_sim.scene import CAMERA
from gripwire_sim.world import Snapshot, World

if TYPE_CHECKING:
    from gripwire_sim.painter import Painter

log = logging.getLogger("gripwire.sim")

WIDTH, HEIGHT = 640, 480
_NOISE_SIGMA = 2.2
"""Grey levels of 255: an inexpensive webcam in a lit room."""
_NOISE_MARGIN = 64


@dataclass(frozen=True)
class Exposure:
    """One picture, numbered. ``t`` is CLOCK_MONOTONIC ns at which the scene was as the picture shows it."""

    seq: int
    t: int
    jpeg: bytes


class Renderer:
    """Draws the wrist camera's view. To be made and used in one thread (an OpenGL context belongs to one)."""

    def __init__(self, world: World) -> None:
        import mujoco

        self._world = world
        self._data = mujoco.MjData(world.model)
        self._pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self._renderer = mujoco.Renderer(world.model, HEIGHT, WIDTH)
        # Shadows triple the time of a frame; the rest has nothing to show on this table.
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
            self._renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0

    def draw(self) -> tuple[Snapshot, NDArray[np.uint8]]:
        """The scene of this moment: (480, 640, 3) RGB, valid until the next call."""
        snapshot = self._world.expose(self._data)
        self._renderer.update_scene(self._data, camera=CAMERA)
        self._renderer.render(out=self._pixels)
        return snapshot, self._pixels

    def close(self) -> None:
        self._renderer.close()


def open_renderer(world: World) -> "Renderer | Painter":
    """MuJoCo's own renderer, or the painter on a machine whose OpenGL does not draw."""
    try:
        return Renderer(world)
    except Exception as e:  # every backend raises its own kind
        from gripwire_sim.painter import Painter

        log.warning(
            "OpenGL (MUJOCO_GL=%s) does not draw here (%s): the pictures are painted instead, without "
            "highlights; for MuJoCo's own, `apt install libegl1 libgl1-mesa-dri libopengl0` (no GPU needed)",
            os.environ.get("MUJOCO_GL", ""), type(e).__name__,
        )  # fmt: skip
        return Painter(world, WIDTH, HEIGHT)


class Sensor:
    """Turns a perfect picture into a camera's: noise that is never twice the same, then JPEG."""

    def __init__(self, quality: int = 88) -> None:
        import cv2

        self._cv2: Any = cv2
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, quality]
        self._rng = np.random.default_rng()
        size = (HEIGHT + _NOISE_MARGIN, WIDTH + _NOISE_MARGIN)
        # Each place once before any comes again: for two minutes no two pictures of a still scene are equal.
        self._places, self._next = self._rng.permutation(_NOISE_MARGIN**2), 0
        luma = self._rng.normal(0, _NOISE_SIGMA, (*size, 1))
        chroma = self._rng.normal(0, _NOISE_SIGMA / 3, (*size, 3))
        self._noise = np.clip(np.round(luma + chroma), -127, 127).astype(np.int8)

    def develop(self, rgb: NDArray[np.uint8]) -> bytes:
        """(480, 640, 3) RGB -> JPEG. The noise is one large tile laid on at ever other places: cheap, and the
        same place comes back once in 4096 frames."""
        y, x = divmod(int(self._places[self._next % len(self._places)]), _NOISE_MARGIN)
        self._next += 1
        noise = self._noise[y : y + HEIGHT, x : x + WIDTH]
        noisy = self._cv2.add(rgb, noise, dtype=self._cv2.CV_8U)
        bgr = self._cv2.cvtColor(noisy, self._cv2.COLOR_RGB2BGR)
        return self._cv2.imencode(".jpg", bgr, self._quality)[1].tobytes()


class Camera:
    """Exposes at a steady rate and hands the newest picture to whoever waits.

    ``on_exposure`` gets the number and the world's snapshot of every exposure, before the picture is out.
    Numbers go on across restarts of the bench on one machine, so that a number means one picture only.
    """

    def __init__(self, world: World, rate_hz: float, on_exposure: Callable[[int, Snapshot], None]) -> None:
        self.frozen = False
        self.dropped = False
        self.exposures = 0
        self.late = 0
        self.cost_ms = 0.0
        """Smoothed time from the exposure to the JPEG."""
        self.failure: Exception | None = None
        self.drawn_by = ""
        self._world, self._period, self._on_exposure = world, 1.0 / rate_hz, on_exposure
        # More than any rate has grown by when the bench starts again.
        self._seq = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 5_000_000
        self._news = threading.Condition()
        self._latest: Exposure | None = None
        self._published = 0
        self._stop = threading.Event()
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def wait(self, after: int, timeout_s: float) -> tuple[int, Exposure] | None:
        """The newest picture and its place in the stream, once that is beyond ``after``; None if it takes
        longer than ``timeout_s``. Pass the place back as the next ``after``, beginning with 0."""
        with self._news:
            if not self._news.wait_for(lambda: self._published > after, timeout_s) or not self._latest:
                return None
            return self._published, self._latest

    def _run(self) -> None:
        try:
            renderer = open_renderer(self._world)
            self.drawn_by = type(renderer).__name__.lower()
        except Exception as e:
            self.failure = e
            self.ready.set()
            return
        try:
            self._expose_for_ever(renderer)
        except Exception as e:
            log.exception("the simulated camera failed")
            self.failure = e
        finally:
            renderer.close()
            self.ready.set()

    def _expose_for_ever(self, renderer: "Renderer | Painter") -> None:
        sensor = Sensor()
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if time.monotonic() - due > self._period:
                self.late += 1
                due = time.monotonic()  # a camera that is late does not expose twice to make up for it
            due += self._period
            if self.dropped:
                continue
            if not (self.frozen and self._latest):
                self._expose(renderer, sensor)
            with self._news:
                self._published += 1
                self._news.notify_all()
            self.ready.set()

    def _expose(self, renderer: "Renderer | Painter", sensor: Sensor) -> None:
        snapshot, pixels = renderer.draw()
        self._seq += 1
        self._on_exposure(self._seq, snapshot)
        exposure = Exposure(self._seq, snapshot.t, sensor.develop(pixels))
        took_ms = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - snapshot.t) / 1e6
        self.cost_ms += (took_ms - self.cost_ms) * (0.1 if self.exposures else 1.0)
        self.exposures += 1
        with self._news:
            self._latest = exposure

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
