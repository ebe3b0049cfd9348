"""LeRobot's camera type `gripwire`: true colours, nothing old, and what the bus cannot give is refused."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gripwire import clock
from gripwire.bus import Publisher
from gripwire.messages import Frame
from gripwire.settings import Settings

RED = (200, 60, 20)
"""RGB"""
SIZE = (48, 64)
WAIT_S = 20.0


class Sending:
    """A camera service: frames at a rate, each with its number in one pixel."""

    def __init__(self, publisher: Publisher[Frame], fps: float = 30.0, **header: Any) -> None:
        self.fps, self.header, self.encoding = fps, header, "jpeg"
        self.age_s = 0.0
        self._publisher, self._ended = publisher, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def one(self) -> None:
        image = np.empty((*SIZE, 3), np.uint8)
        image[:] = RED
        payload = image.tobytes()
        if self.encoding == "jpeg":
            payload = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
        given: dict[str, Any] = {
            "camera": "gripper_cam", "height": SIZE[0], "width": SIZE[1], "encoding": self.encoding,
            "valid": True, "t_capture": clock.monotonic_ns() - int(self.age_s * 1e9),
        }  # fmt: skip
        self._publisher.publish(Frame(**given | self.header), payload)

    def _run(self) -> None:
        while not self._ended.wait(1 / self.fps):
            self.one()

    def __enter__(self) -> "Sending":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def publisher(stack: Settings) -> Iterator[Publisher[Frame]]:
    with Publisher(stack.topics["camera/gripper_cam"]) as made:
        yield made


@pytest.fixture
def camera(stack: Settings) -> Iterator[Callable[..., Any]]:
    from lerobot.cameras.utils import make_cameras_from_configs

    from lerobot_robot_gripwire import GripwireCameraConfig

    made: list[Any] = []

    def make(**given: Any) -> Any:
        config = GripwireCameraConfig(port_base=stack.bus.port_base, **given)
        made.append(make_cameras_from_configs({"wrist": config})["wrist"])  # as any robot of LeRobot does
        return made[-1]

    yield make
    for one in made:
        if one.is_connected:
            one.disconnect()


@contextmanager
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from lerobot_robot_gripwire import bus

    monkeypatch.setattr(bus, "CONNECT_S", 0.5)
    yield


@pytest.mark.parametrize("encoding", ["jpeg", "rgb8"])
def test_pictures_are_rgb_and_the_size_is_found_out(
    publisher: Publisher[Frame], camera: Callable[..., Any], encoding: str
) -> None:
    sending = Sending(publisher)
    sending.encoding = encoding
    with sending:
        one = camera(fps=20)
        one.connect()
        assert (one.height, one.width) == SIZE
        for picture in (one.read(), one.async_read(1000 * WAIT_S), one.read_latest(5000), one.read_fresh()):
            assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
            assert np.abs(picture.reshape(-1, 3).mean(axis=0) - RED).max() < 6
            picture[0, 0] = 0  # LeRobot's writers want arrays that can be written to


def test_a_picture_is_given_once_and_then_the_next_is_waited_for(
    publisher: Publisher[Frame], camera: Callable[..., Any]
) -> None:
    with Sending(publisher):
        one = camera()
        one.connect(warmup=False)
    one.async_read(1000 * WAIT_S)
    with pytest.raises(TimeoutError, match="no new picture within 100 ms"):
        one.async_read(100)
    again = Sending(publisher)
    again.one()
    one.async_read(1000 * WAIT_S)


def test_an_old_picture_is_never_given_for_a_new_one(
    publisher: Publisher[Frame], camera: Callable[..., Any]
) -> None:
    with Sending(publisher) as sending:
        one = camera()
        one.connect(warmup=False)
        sending.age_s = 5.0
        deadline = time.monotonic() + WAIT_S
        with pytest.raises(TimeoutError, match=r"the newest `camera/gripper_cam` is 5\d\d\d ms old"):
            while time.monotonic() < deadline:
                one.read_latest(max_age_ms=1000)
                time.sleep(0.01)
        with pytest.raises(TimeoutError, match="its service has stopped or is stuck"):
            one.read_fresh()


def test_a_frozen_picture_is_none_and_the_reason_is_told(
    publisher: Publisher[Frame], camera: Callable[..., Any]
) -> None:
    with Sending(publisher) as sending:
        one = camera()
        one.connect(warmup=False)
        sending.header = {"valid": False, "reason": "frozen"}
        with pytest.raises(TimeoutError, match="`camera/gripper_cam` is not valid: frozen"):
            for _ in range(200):
                one.async_read(500)
        with pytest.raises(TimeoutError, match="not valid: frozen"):
            one.read_latest()
        sending.header = {}
        one.async_read(1000 * WAIT_S)


def test_what_the_camera_does_not_give_is_refused_in_words(
    publisher: Publisher[Frame], camera: Callable[..., Any]
) -> None:
    with Sending(publisher, fps=10):
        with pytest.raises(ConnectionError, match=r"its pictures are 64x48, not of width 640: leave `width`"):
            camera(width=640, height=480, fps=10).connect()
        slow = camera(fps=60)
        with pytest.raises(
            ConnectionError, match=r"it gives \d+\.\d pictures a second, not the 60 asked for"
        ):
            slow.connect()
        assert not slow.is_connected


def test_a_picture_that_changes_its_size_meanwhile_is_refused(
    publisher: Publisher[Frame], camera: Callable[..., Any]
) -> None:
    with Sending(publisher) as sending:
        one = camera()
        one.connect(warmup=False)
        sending.header = {"width": 32}
        with pytest.raises(ValueError, match="its pictures are 32x48, not of width 64"):
            for _ in range(200):
                one.async_read(1000 * WAIT_S)


def test_a_silent_bus_is_named_with_its_endpoint(
    stack: Settings, camera: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = stack.topics["camera/gripper_cam"].endpoint
    with (
        hurried(monkeypatch),
        pytest.raises(ConnectionError, match=f"no `camera/gripper_cam` comes at {endpoint}"),
    ):
        camera().connect()


def test_a_camera_that_is_not_in_the_settings_is_refused(
    stack: Settings, camera: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="`side` is none of gripwire's: give `name`, one of gripper_cam"):
        camera(name="side")
    (tmp_path / "gripwire.toml").write_text("[cameras.left]\nfps = 30\n[cameras.right]\nfps = 30\n")
    with pytest.raises(ValueError, match="one of left, right"):  # never another camera's picture
        camera()
