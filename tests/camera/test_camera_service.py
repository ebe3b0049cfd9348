"""The camera service as its readers see it: a process, a topic, a health topic."""

import json
import signal
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import cv2
import numpy as np
import pytest

from gripwire import clock
from gripwire.bus import Latest, Queued, Received
from gripwire.messages import Frame, Health
from gripwire.topics import Topics
from tests.helpers import wait_for_health

Start = Callable[..., Popen[str]]
Servers = Callable[..., Any]
DEADLINE_S = 20.0


@pytest.fixture
def frames(topics: Topics) -> Iterator[Queued[Frame]]:
    with Queued(topics["camera/gripper_cam"], Frame) as reader:
        yield reader


@pytest.fixture
def health(topics: Topics) -> Iterator[Latest[Health]]:
    with Latest(topics["health/camera/gripper_cam"], Health) as reader:
        yield reader


def next_frame(reader: Queued[Frame], what: Callable[[Frame], bool] = lambda _: True) -> Received[Frame]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        received = reader.receive(1.0)
        if received and what(received.message):
            return received
    raise AssertionError("no such frame came")


def pictures(helpers: types.SimpleNamespace) -> Iterator[bytes]:
    """Parts that differ a little from one to the next, as a live camera's do."""
    rng = np.random.default_rng(0)
    while True:
        noise = rng.integers(0, 40, (120, 160, 3), dtype=np.uint8)
        yield helpers.part(helpers.jpeg(helpers.numbered(3) // 2 + noise))


def stream_until(server: Any, parts: Iterator[bytes], done: Callable[[], bool], fps: float = 30.0) -> None:
    """Send pictures at a rate until something has happened."""
    deadline = time.monotonic() + DEADLINE_S
    due = time.monotonic()
    while not done():
        assert time.monotonic() < deadline, "it never happened"
        server.send(next(parts))
        due += 1 / fps
        time.sleep(max(0.0, due - time.monotonic()))


def test_a_frame_arrives_as_the_camera_sent_it(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], health: Latest[Health],
    helpers: types.SimpleNamespace,
) -> None:  # fmt: skip
    server = mjpeg()
    camera_process("--source", server.url)
    body = helpers.jpeg(helpers.numbered(77))
    part = helpers.part(body, X_Exposure_Seq=12, X_Exposure_Time=clock.monotonic_ns(), X_Host=clock.host_id())
    got: list[Received[Frame]] = []

    def arrived() -> bool:
        got.extend(frames.drain())
        return bool(got)

    stream_until(server, iter(lambda: part, None), arrived)
    frame = got[0].message
    assert got[0].payload is not None
    assert bytes(got[0].payload) == body
    assert (frame.camera, frame.width, frame.height, frame.encoding) == ("gripper_cam", 160, 120, "jpeg")
    assert (frame.valid, frame.live, frame.reason, frame.exposure_seq) == (True, True, "", 12)
    assert frame.source == server.url


def test_raw_frames_are_rgb(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], helpers: types.SimpleNamespace
) -> None:
    server = mjpeg()
    camera_process("--source", server.url, "--encoding", "raw")
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :] = (10, 60, 200)  # BGR
    got: list[Received[Frame]] = []

    def arrived() -> bool:
        got.extend(frames.drain())
        return bool(got)

    stream_until(server, iter(lambda: helpers.part(helpers.jpeg(image)), None), arrived)
    payload = got[0].payload
    assert payload is not None
    assert (got[0].message.encoding, len(payload)) == ("rgb8", 120 * 160 * 3)
    red, _, blue = np.frombuffer(payload, np.uint8).reshape(-1, 3).mean(axis=0)
    assert red > 180
    assert blue < 30


@pytest.mark.parametrize("names_its_exposure", [False, True])
def test_a_frozen_picture_is_invalid_and_a_moving_one_valid_again(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], health: Latest[Health],
    helpers: types.SimpleNamespace, names_its_exposure: bool,
) -> None:  # fmt: skip
    server = mjpeg()
    camera_process("--source", server.url)
    lively, seen = pictures(helpers), []

    def came(valid: bool) -> Callable[[], bool]:
        def check() -> bool:
            seen.extend(frames.drain())
            return bool(seen) and seen[-1].message.valid is valid

        return check

    stream_until(server, lively, came(True))
    still = next(lively)
    if names_its_exposure:  # and goes on naming the same one
        body = helpers.jpeg(helpers.numbered(7))
        still = helpers.part(body, X_Exposure_Time=clock.monotonic_ns(), X_Host=clock.host_id())
    stream_until(server, iter(lambda: still, None), came(False))
    assert seen[-1].message.reason == "frozen"
    last_good = max(f.message.seq for f in seen if f.message.valid)
    first_bad = min(f.message.seq for f in seen if not f.message.valid)
    assert first_bad == last_good + 1
    stream_until(server, lively, came(True))
    wait_for_health(health, lambda h: h.counts.get("frozen", 0) > 0 and "very same picture" in h.last_error)


def test_it_reconnects_when_the_address_comes_back(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], health: Latest[Health],
    helpers: types.SimpleNamespace,
) -> None:  # fmt: skip
    server = mjpeg()
    process = camera_process("--source", server.url)
    lively, got = pictures(helpers), []

    def arrived() -> bool:
        got.extend(frames.drain())
        return bool(got)

    stream_until(server, lively, arrived)
    server.close()
    told = wait_for_health(health, lambda h: h.state == "degraded" and server.url in h.problem)
    assert "is it on" in told.problem
    got.extend(frames.drain())
    before = len(got)
    again = mjpeg(port=server.port)
    stream_until(again, lively, lambda: got.extend(frames.drain()) or len(got) > before)  # type: ignore[func-returns-value]
    told = wait_for_health(health, lambda h: h.state == "ready")
    assert told.counts["connects"] == 2
    assert [f.message.seq for f in got[1:]] == [f.message.seq + 1 for f in got[:-1]]
    assert process.poll() is None


def test_pictures_that_waited_while_the_service_was_stopped_are_not_published_as_new(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], health: Latest[Health],
    helpers: types.SimpleNamespace,
) -> None:  # fmt: skip
    server = mjpeg()
    process = camera_process("--source", server.url)
    lively = pictures(helpers)
    stream_until(server, lively, lambda: bool(list(frames.drain())))
    process.send_signal(signal.SIGSTOP)
    old, over = [next(lively) for _ in range(8)], time.monotonic() + 1.5
    for part in old:  # it all fits into the kernel's buffers
        server.send(part)
    while time.monotonic() < over:
        list(frames.drain())
        frames.receive(0.1)
    process.send_signal(signal.SIGCONT)
    server.requests.get(timeout=DEADLINE_S)  # its first request
    server.requests.get(timeout=DEADLINE_S)  # it connects anew
    deadline = time.monotonic() + DEADLINE_S
    while not frames.socket.poll(30):
        assert time.monotonic() < deadline, "no picture comes any more"
        with suppress(OSError):  # the connection of before
            server.send(next(lively))
    came = next_frame(frames)
    assert not any(bytes(came.payload or b"-") in sent for sent in old)
    wait_for_health(health, lambda h: h.counts.get("held_up", 0) == 1)


def test_an_address_that_does_not_answer_yet_is_waited_for(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], health: Latest[Health],
    helpers: types.SimpleNamespace,
) -> None:  # fmt: skip
    server = mjpeg()
    server.close()
    process = camera_process("--source", server.url)
    told = wait_for_health(health, lambda h: h.state == "degraded" and "does not answer" in h.problem)
    assert server.url in told.problem
    assert process.poll() is None
    again, lively = mjpeg(port=server.port), pictures(helpers)
    stream_until(again, lively, lambda: frames.receive() is not None)


def test_every_picture_of_a_fast_stream_is_published_once(
    camera_process: Start, mjpeg: Servers, frames: Queued[Frame], helpers: types.SimpleNamespace
) -> None:
    server = mjpeg()
    camera_process("--source", server.url)
    lively, got = pictures(helpers), []
    stream_until(server, lively, lambda: got.extend(frames.drain()) or bool(got))  # type: ignore[func-returns-value]
    for number in range(60):
        noisy = helpers.jpeg(helpers.numbered(number))
        server.send(helpers.part(noisy, X_Exposure_Seq=1000 + number))
        time.sleep(1 / 60)
    numbers: list[int] = []
    while len(numbers) < 60:
        received = next_frame(frames, lambda f: f.exposure_seq >= 1000)
        image = cv2.imdecode(np.frombuffer(received.payload or b"", np.uint8), cv2.IMREAD_COLOR)
        assert helpers.number_in(image) == received.message.exposure_seq - 1000
        numbers.append(received.message.exposure_seq - 1000)
    assert numbers == list(range(60))


def test_a_video_that_ends_ends_the_service_with_exit_code_0(
    camera_process: Start, video: Callable[..., Path], frames: Queued[Frame], helpers: types.SimpleNamespace
) -> None:
    process = camera_process("--source", str(video(40, fps=20.0)))
    received = next_frame(frames)
    numbers = []
    while received.message.exposure_seq < 39:
        image = cv2.imdecode(np.frombuffer(received.payload or b"", np.uint8), cv2.IMREAD_COLOR)
        numbers.append((received.message.exposure_seq, helpers.number_in(image)))
        assert (received.message.live, received.message.valid) == (False, True)
        received = next_frame(frames)
    assert all(index == number for index, number in numbers)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "is over after 40 pictures" in err


def test_a_still_video_is_not_called_frozen(
    camera_process: Start, tmp_path: Path, frames: Queued[Frame], helpers: types.SimpleNamespace
) -> None:
    path = tmp_path / "still.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (160, 120))
    for _ in range(50):
        writer.write(helpers.numbered(1))
    writer.release()
    camera_process("--source", str(path))
    last = next_frame(frames, lambda f: f.exposure_seq >= 45)
    assert last.message.valid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_the_camera_is_silent(
    camera_process: Start, mjpeg: Servers, health: Latest[Health], number: signal.Signals
) -> None:
    server = mjpeg()
    process = camera_process("--source", server.url)
    wait_for_health(health, lambda h: h.state == "degraded")
    server.wait_for_client()
    process.send_signal(number)
    process.communicate(timeout=5)
    assert process.returncode == 0


def test_a_wrong_path_is_one_sentence_and_exit_code_1(camera_process: Start) -> None:
    process = camera_process("--source", "/dev/video77")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert "/dev/video77 does not exist" in json.loads(lines[0])["message"]


def test_a_camera_that_the_settings_do_not_know_is_refused(camera_process: Start, tmp_path: Path) -> None:
    (tmp_path / "gripwire.toml").write_text('[cameras.wrist]\nsource = "film.mp4"\n')
    process = camera_process("--name", "table")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "no camera `table`" in err
    assert "wrist" in err


def test_two_cameras_have_topics_of_their_own(
    camera_process: Start, video: Callable[..., Path], tmp_path: Path, port_base: int
) -> None:
    film = video(100, fps=20.0)
    (tmp_path / "gripwire.toml").write_text(
        f'[cameras.wrist]\nsource = "{film}"\n[cameras.table]\nsource = "{film}"\nloop = true\n'
    )
    both = Topics(port_base, ("wrist", "table"))
    with Queued(both["camera/wrist"], Frame) as wrist, Queued(both["camera/table"], Frame) as table:
        camera_process("--name", "wrist")
        camera_process("--name", "table")
        assert next_frame(wrist).message.camera == "wrist"
        assert next_frame(table).message.camera == "table"
