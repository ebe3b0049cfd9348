"""A rate that the camera cannot give: refused with a sentence, whatever kind of camera it is."""

import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import cv2
import numpy as np
import pytest

from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import Health
from gripwire.topics import Topics
from gripwire_camera import sources
from gripwire_camera.device import Device
from gripwire_camera.rate import Rate
from gripwire_camera.settings import Camera
from tests.helpers import wait_for_health

SECOND = 1_000_000_000


def _rates(times_s: list[float]) -> list[float]:
    rate = Rate()
    return [value for t in times_s if (value := rate.see(int(t * SECOND))) is not None]


def test_the_rate_is_measured_again_and_again() -> None:
    assert _rates([n / 30 for n in range(181)]) == pytest.approx([30, 30], rel=1e-3)
    assert _rates([n / 2 for n in range(20)]) == pytest.approx([2, 2, 2])


def test_a_hiccup_does_not_make_a_camera_slow() -> None:
    times = [n / 30 + (0.8 if n > 40 else 0.0) for n in range(92)]
    assert _rates(times) == pytest.approx([30], rel=1e-3)


class Streaming:
    """An HTTP camera that gives so many pictures a second; the rate can be changed meanwhile."""

    def __init__(self, server: Any, parts: Iterator[bytes], fps: float) -> None:
        self.server, self.parts, self.fps = server, parts, fps

    def until(self, done: Callable[[], bool]) -> None:
        deadline, due = time.monotonic() + 60, time.monotonic()
        while not done():
            assert time.monotonic() < deadline, "it never happened"
            try:
                self.server.send(next(self.parts))
            except OSError:  # the reader has left
                return
            due = max(due + 1 / self.fps, time.monotonic() - 0.5)
            time.sleep(max(0.0, due - time.monotonic()))


@pytest.fixture
def lively(helpers: types.SimpleNamespace) -> Iterator[bytes]:
    def parts() -> Iterator[bytes]:
        rng = np.random.default_rng(0)
        while True:
            yield helpers.part(helpers.jpeg(rng.integers(0, 40, (120, 160, 3), dtype=np.uint8)))

    return parts()


def test_a_stream_slower_than_asked_for_ends_the_service_with_a_sentence(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], lively: Iterator[bytes]
) -> None:
    server = mjpeg()
    process = camera_process("--source", server.url, "--fps", "60")
    Streaming(server, lively, 10).until(lambda: process.poll() is not None)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1, out + err
    assert "not the 60 asked for: set `fps` in [cameras.gripper_cam]" in err
    assert server.url in err and "Traceback" not in err


def test_a_stream_that_becomes_slower_later_is_reported_and_goes_on(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], lively: Iterator[bytes],
    topics: Topics,
) -> None:  # fmt: skip
    server = mjpeg()
    process = camera_process("--source", server.url, "--fps", "6")
    camera = Streaming(server, lively, 15)
    with Latest(topics["health/camera/gripper_cam"], Health) as health:

        def heard(what: Callable[[Health], bool]) -> Callable[[], bool]:
            return lambda: (last := health.get()) is not None and what(last.message)

        camera.until(heard(lambda h: h.counts.get("frames", 0) > 60))
        camera.fps = 3
        camera.until(heard(lambda h: h.state == "degraded" and "not the 6 asked for" in h.problem))
        camera.fps = 15
        camera.until(heard(lambda h: h.state == "ready"))
        wait_for_health(health, lambda h: not h.problem)
    assert process.poll() is None


@pytest.mark.parametrize("asked", [10, 30, 60])
def test_a_file_of_another_rate_is_refused(video: Callable[..., Path], asked: float) -> None:
    film = video(3, fps=50.0)
    with pytest.raises(UserError, match=f"has 50 pictures a second, not the {asked} asked for: leave `fps`"):
        sources.choose("cam", Camera(source=str(film), fps=asked))
    assert sources.choose("cam", Camera(source=str(film), fps=50)).read() is not None


def test_a_device_that_takes_another_rate_is_refused_with_the_one_it_takes(
    video: Callable[..., Path],
) -> None:
    film = str(video(3, fps=50.0))  # through OpenCV, which here as there says 50 whatever is set
    camera = Device("cam", 0, Camera(fps=60))
    camera._capture = cv2.VideoCapture(film, cv2.CAP_FFMPEG)
    with pytest.raises(
        UserError, match=r"gives 50 pictures a second at 160x120 MJPG, not the 60 asked for"
    ) as e:
        camera._check_rate(cv2)
    assert "set `fps = 50` in [cameras.cam]" in str(e.value)
    fitting = Device("cam", 0, Camera(fps=50))
    fitting._capture = camera._capture
    fitting._check_rate(cv2)
    camera.close()
