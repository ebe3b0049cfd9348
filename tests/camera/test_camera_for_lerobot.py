"""The option `lerobot_port`: LeRobot's own `zmq` camera sees the picture, and nobody else pays for it."""

import base64
import json
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest
import zmq

from gripwire.bus import Queued
from gripwire.messages import Frame
from gripwire.topics import SIM_TRUTH, Topics
from tests.conftest import free_port_base

WAIT_S = 30.0
RED, BLUE = (20, 60, 200), (190, 40, 10)
"""BGR"""


@pytest.fixture
def port(port_base: int) -> int:
    """Of this one and the next the stack makes no use."""
    return port_base + SIM_TRUTH + 1


@contextmanager
def streaming(server: Any, picture: Callable[[int], bytes], fps: float) -> Iterator[None]:
    """Pictures at a rate, from a thread, whoever listens."""
    ended = threading.Event()

    def send() -> None:
        number, due = 0, time.monotonic()
        while not ended.is_set():
            try:
                server.send(picture(number))
            except (OSError, AssertionError):
                continue
            number, due = number + 1, max(due + 1 / fps, time.monotonic() - 0.2)
            ended.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=send)
    thread.start()
    yield
    ended.set()
    thread.join()


def plain(helpers: types.SimpleNamespace, colour: tuple[int, int, int]) -> Callable[[int], bytes]:
    """Pictures of one colour, each with noise of its own."""

    def picture(number: int) -> bytes:
        rng = np.random.default_rng(number)
        noise = rng.integers(0, 20, (120, 160, 3), dtype=np.uint8)
        return bytes(helpers.part(helpers.jpeg(noise + np.array(colour, np.uint8))))

    return picture


@contextmanager
def lerobots_camera(port: int, name: str = "gripper_cam") -> Iterator[Any]:
    from lerobot.cameras.zmq import ZMQCamera, ZMQCameraConfig

    patient = {"server_address": "127.0.0.1", "timeout_ms": int(1000 * WAIT_S)}
    camera = ZMQCamera(ZMQCameraConfig(port=port, camera_name=name, **patient))
    camera.connect(warmup=False)
    yield camera
    camera.disconnect()


def test_lerobots_zmq_camera_sees_the_colours_as_they_are(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], helpers: types.SimpleNamespace,
    port: int,
) -> None:  # fmt: skip
    server = mjpeg()
    camera_process("--source", server.url, "--lerobot-port", str(port))
    with streaming(server, plain(helpers, RED), 30), lerobots_camera(port) as camera:
        picture = camera.async_read(timeout_ms=1000 * WAIT_S)
        assert picture.shape == (120, 160, 3)
        red, green, blue = picture.reshape(-1, 3).mean(axis=0)
        assert red == pytest.approx(RED[2] + 9.5, abs=4)
        assert green == pytest.approx(RED[1] + 9.5, abs=4)
        assert blue == pytest.approx(RED[0] + 9.5, abs=4)


def test_two_cameras_have_a_port_each(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], helpers: types.SimpleNamespace,
    port: int, tmp_path: Path,
) -> None:  # fmt: skip
    first, second = mjpeg(), mjpeg()
    (tmp_path / "gripwire.toml").write_text(
        f'[cameras.gripper_cam]\nsource = "{first.url}"\nlerobot_port = {port}\n'
        f'[cameras.side]\nsource = "{second.url}"\nencoding = "raw"\n'
    )
    camera_process("--name", "gripper_cam")
    camera_process("--name", "side", "--lerobot-port", str(port + 1))
    with (
        streaming(first, plain(helpers, RED), 30),
        streaming(second, plain(helpers, BLUE), 30),
        lerobots_camera(port) as gripper,
        lerobots_camera(port + 1, "side") as side,
    ):
        assert gripper.async_read(1000 * WAIT_S)[..., 0].mean() > 180
        assert side.async_read(1000 * WAIT_S)[..., 2].mean() > 180
        third = camera_process(
            "--name", "side", "--port-base", str(free_port_base()), "--lerobot-port", str(port)
        )
        _, err = third.communicate(timeout=WAIT_S)
    assert third.returncode == 1
    assert f"cannot use port {port} for LeRobot's `zmq` camera: something else has it" in err
    assert "[cameras.side]" in err and "Traceback" not in err


def test_a_frozen_picture_is_not_sent_as_if_it_were_new(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], helpers: types.SimpleNamespace,
    port: int,
) -> None:  # fmt: skip
    server, frozen = mjpeg(), threading.Event()
    lively = plain(helpers, RED)
    camera_process("--source", server.url, "--lerobot-port", str(port))
    with (
        streaming(server, lambda n: lively(0 if frozen.is_set() else n), 30),
        lerobots_camera(port) as camera,
    ):
        frozen.set()
        deadline = time.monotonic() + WAIT_S
        with pytest.raises(TimeoutError, match="too old"):
            while time.monotonic() < deadline:
                camera.read_latest(max_age_ms=500)
                time.sleep(0.05)
        frozen.clear()
        camera.read()


def _memory_mib(process: Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_reader_that_stops_costs_neither_memory_nor_pictures_on_the_topic(
    camera_process: Callable[..., Popen[str]], mjpeg: Callable[..., Any], helpers: types.SimpleNamespace,
    port: int, topics: Topics,
) -> None:  # fmt: skip
    server = mjpeg()
    rng = np.random.default_rng(0)
    noisy = [helpers.jpeg(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), 95) for _ in range(3)]
    assert len(noisy[0]) > 300_000  # two hundred of them would be 80 MB and more in LeRobot's format
    process = camera_process("--source", server.url, "--lerobot-port", str(port))
    context = zmq.Context()
    stuck, lively = context.socket(zmq.SUB), context.socket(zmq.SUB)
    stuck.setsockopt(zmq.RCVHWM, 1)
    for reader in (stuck, lively):
        reader.setsockopt(zmq.SUBSCRIBE, b"")
        reader.connect(f"tcp://127.0.0.1:{port}")

    def picture(number: int) -> bytes:
        return bytes(helpers.part(noisy[number % 3], X_Exposure_Seq=number))

    with Queued(topics["camera/gripper_cam"], Frame) as frames:
        with streaming(server, picture, 40):
            assert stuck.poll(1000 * WAIT_S) and lively.poll(1000 * WAIT_S)
            assert frames.receive(WAIT_S)
        sent = json.loads(stuck.recv())
        assert set(sent["images"]) == set(sent["timestamps"]) == {"gripper_cam"}
        assert base64.b64decode(sent["images"]["gripper_cam"]).startswith(b"\xff\xd8")
        assert abs(time.time() - sent["timestamps"]["gripper_cam"]) < WAIT_S
        before = 0.0
        # Each goes out when the one before has arrived at both: a busy machine then takes longer, no more.
        for number in range(100_000, 100_260):
            server.send(picture(number))
            while (received := frames.receive(WAIT_S)) and received.message.exposure_seq < 100_000:
                pass  # from the stream before
            assert received and received.message.exposure_seq == number
            assert lively.poll(1000 * WAIT_S)
            lively.recv()
            if number == 100_060:
                before = _memory_mib(process)
        grown = _memory_mib(process) - before
    context.destroy(linger=0)
    assert grown < 25, f"{grown:.0f} MiB more"
