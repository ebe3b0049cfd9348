"""The bench's camera as its clients see it: an MJPEG stream over HTTP."""

import contextlib
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from gripwire.clock import host_id, monotonic_ns
from gripwire.errors import UserError
from gripwire_sim import demonstrator, mjpeg, truth
from gripwire_sim.kinematics import Arm
from gripwire_sim.painter import Painter
from gripwire_sim.picture import Camera, Exposure, Renderer, Sensor
from gripwire_sim.scene import Scene
from gripwire_sim.web import Web
from gripwire_sim.world import World


@dataclass
class Bench:
    world: World
    ledger: truth.Ledger
    camera: Camera
    web: Web


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    world, ledger = World(seed=2), truth.Ledger(30)
    camera = Camera(world, 30.0, ledger.record)
    assert camera.ready.wait(20)
    assert camera.failure is None
    web = mjpeg.serve(camera, "127.0.0.1", 0)
    yield Bench(world, ledger, camera, web)
    web.close()
    camera.close()


@pytest.fixture(autouse=True)
def _mended(bench: Bench) -> Iterator[None]:
    yield
    bench.camera.frozen = bench.camera.dropped = False


class Stream:
    """A client that reads parts by their headers."""

    def __init__(self, web: Web) -> None:
        self._response = urllib.request.urlopen(web.url, timeout=5)
        assert self._response.headers["Content-Type"].startswith("multipart/x-mixed-replace")

    def part(self) -> tuple[dict[str, str], bytes]:
        line = self._response.readline()
        assert line == f"--{mjpeg.BOUNDARY}\r\n".encode(), line or "the stream has ended"
        headers = http.client.parse_headers(self._response)  # type: ignore[arg-type]
        body = self._response.read(int(headers["Content-Length"]))
        assert self._response.read(2) == b"\r\n"
        return dict(headers), body

    def ended(self) -> bool:
        with contextlib.suppress(AssertionError, http.client.HTTPException, OSError):
            for _ in range(100):
                self.part()
            return False
        return True

    def close(self) -> None:
        self._response.close()


def test_parts_carry_their_exposure_and_number_it_in_steps_of_one(bench: Bench) -> None:
    stream = Stream(bench.web)
    parts = [stream.part() for _ in range(10)]
    stream.close()
    seqs = [int(headers["X-Exposure-Seq"]) for headers, _ in parts]
    times = [int(headers["X-Exposure-Time"]) for headers, _ in parts]
    assert seqs == list(range(seqs[0], seqs[0] + 10))
    assert times == sorted(times)
    assert 0 < monotonic_ns() - times[-1] < 1e9
    assert {headers["X-Host"] for headers, _ in parts} == {host_id()}
    assert {headers["Content-Type"] for headers, _ in parts} == {"image/jpeg"}


def test_a_still_scene_never_gives_the_same_bytes_twice(bench: Bench) -> None:
    stream = Stream(bench.web)
    bodies = [stream.part()[1] for _ in range(20)]
    stream.close()
    assert len(set(bodies)) == 20


def test_every_exposure_has_its_truth_at_the_same_time(bench: Bench) -> None:
    stream = Stream(bench.web)
    headers, _ = stream.part()
    stream.close()
    record = bench.ledger.since(int(headers["X-Exposure-Seq"]) - 1)[0]
    assert record.seq == int(headers["X-Exposure-Seq"])
    assert record.t == int(headers["X-Exposure-Time"])


def test_opencv_opens_the_stream(bench: Bench) -> None:
    import cv2

    capture = cv2.VideoCapture(bench.web.url, cv2.CAP_FFMPEG)
    ok, picture = capture.read()
    capture.release()
    assert ok
    assert picture.shape == (480, 640, 3)


def test_a_client_that_reads_nothing_slows_no_other(bench: Bench) -> None:
    stuck = socket.create_connection((bench.web.host, bench.web.port))
    stuck.sendall(b"GET / HTTP/1.0\r\n\r\n")
    stream = Stream(bench.web)
    first = int(stream.part()[0]["X-Exposure-Seq"])
    seen = [
        int(stream.part()[0]["X-Exposure-Seq"]) for _ in range(60)
    ]  # more than the stuck one's buffers hold
    stream.close()
    stuck.close()
    assert seen == sorted(set(seen)) and seen[0] > first
    assert seen[-1] - first <= 2 * 60, "it gets at least every second picture; a busy machine may cost it one"


def test_a_client_that_pauses_gets_recent_pictures_again(bench: Bench) -> None:
    stream = Stream(bench.web)
    stream.part()
    began = bench.camera.exposures
    while bench.camera.exposures < began + 150:
        time.sleep(0.01)
    ages = [monotonic_ns() - int(stream.part()[0]["X-Exposure-Time"]) for _ in range(40)]
    stream.close()
    assert min(ages) < 0.2e9, "it catches up instead of staying five seconds behind"


def test_a_frozen_camera_repeats_itself_and_a_mended_one_does_not(bench: Bench) -> None:
    stream = Stream(bench.web)
    stream.part()
    bench.camera.frozen = True
    while (part := stream.part()) != stream.part():
        pass
    assert [stream.part() for _ in range(5)] == [part] * 5
    bench.camera.frozen = False
    while stream.part() == part:
        pass
    assert stream.part() != stream.part()
    stream.close()


def test_an_unplugged_camera_ends_its_streams_and_refuses_new_ones(bench: Bench) -> None:
    stream = Stream(bench.web)
    stream.part()
    bench.camera.dropped = True
    assert stream.ended()
    with pytest.raises(urllib.error.HTTPError, match="unplugged"):
        Stream(bench.web)
    bench.camera.dropped = False
    again = Stream(bench.web)
    again.part()
    again.close()


def test_a_port_in_use_is_said_plainly(bench: Bench) -> None:
    with pytest.raises(UserError, match=f"{bench.web.port}: another process.*--port-base"):
        mjpeg.serve(bench.camera, "127.0.0.1", bench.web.port)


@pytest.fixture(scope="module")
def drawn() -> Iterator[tuple[World, Renderer]]:
    world = World(seed=0)
    renderer = Renderer(world)
    yield world, renderer
    renderer.close()


def test_the_seed_changes_what_the_camera_sees(drawn: tuple[World, Renderer]) -> None:
    world, renderer = drawn
    pictures = []
    for seed in (1, 1, 2):
        world.reset(Scene.draw(seed))
        pictures.append(renderer.draw()[1].astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() == 0
    assert np.abs(pictures[0] - pictures[2]).mean() > 2


def test_a_dim_lamp_darkens_the_picture_and_a_reset_keeps_it_dim(drawn: tuple[World, Renderer]) -> None:
    world, renderer = drawn
    world.reset(Scene.draw(3))
    bright = renderer.draw()[1].mean()
    world.dim(0.2)
    dim = renderer.draw()[1].mean()
    world.reset(Scene.draw(3))
    assert dim < 0.7 * bright
    assert renderer.draw()[1].mean() == pytest.approx(dim)
    world.dim(1.0)
    assert renderer.draw()[1].mean() == pytest.approx(bright)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_painted_pictures_show_what_mujocos_renderer_shows(
    drawn: tuple[World, Renderer], arm_model: Arm, seed: int
) -> None:
    world, renderer = drawn
    painter = Painter(world, 640, 480)
    scene = Scene.draw(seed)
    script = demonstrator.script(arm_model, "grasp_release", scene.cube, scene.cube_yaw, seed)
    world.reset(scene)
    for i, _ in enumerate(demonstrator.rehearse(world, script)):
        if i % 25 == 0:
            theirs, ours = renderer.draw()[1].astype(int), painter.draw()[1].astype(int)
            off = np.abs(theirs - ours).max(axis=2)
            assert np.mean(off > 24) < 0.04, f"waypoint {i}: too many pixels differ"


def test_noise_is_a_webcams() -> None:
    import cv2

    grey = np.full((480, 640, 3), 128, np.uint8)
    developed = cv2.imdecode(np.frombuffer(Sensor(quality=95).develop(grey), np.uint8), cv2.IMREAD_COLOR)
    assert developed.mean() == pytest.approx(128, abs=0.5)
    assert 1.0 < developed.std() < 4.0


def test_a_part_says_how_long_its_picture_is() -> None:
    data = mjpeg.part(Exposure(seq=5, t=77, jpeg=b"12345"))
    assert b"Content-Length: 5\r\n" in data
    assert data.endswith(b"\r\n\r\n12345\r\n")
