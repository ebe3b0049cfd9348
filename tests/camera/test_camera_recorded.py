"""A recording of the bus in place of the camera: `gripwire camera run --replay RUN.mcap`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gripwire import settings
from gripwire.bus import Queued
from gripwire.errors import UserError
from gripwire.messages import Frame
from gripwire.recording.file import RecordingFile
from gripwire_camera import sources
from gripwire_camera.recorded import RecordedCamera
from gripwire_camera.settings import Camera
from tests.conftest import free_port_base
from tests.helpers import ending

PERIOD_NS = 20_000_000


def _record(path: Path, pictures: list[bytes], live: bool = True, encoding: str = "jpeg") -> Path:
    with RecordingFile(path) as file:
        for seq, picture in enumerate(pictures):
            frame = Frame(
                seq=seq, boot="b", valid=True, camera="gripper_cam", width=2, height=1, encoding=encoding,
                exposure_seq=100 + seq, live=live,
            )  # fmt: skip
            file.append("camera/gripper_cam", 10**18 + seq * PERIOD_NS, frame, picture)
    return path


def test_frames_come_as_they_were_at_the_pace_they_had(tmp_path: Path) -> None:
    pictures = [b"\xff\xd8 %d" % i for i in range(6)]
    camera = sources.choose("gripper_cam", Camera(source=str(_record(tmp_path / "run.mcap", pictures))))
    begun = time.monotonic()
    camera.open()
    taken = [camera.read() for _ in pictures]
    assert [(p.data, p.exposure_seq) for p in taken] == [(p, 100 + i) for i, p in enumerate(pictures)]
    assert time.monotonic() - begun >= 5 * PERIOD_NS / 1e9
    assert camera.read() is None


def test_a_raw_picture_is_the_same_picture(tmp_path: Path) -> None:
    camera = RecordedCamera(
        "gripper_cam", _record(tmp_path / "r.mcap", [b"abcdef"], encoding="rgb8"), Camera()
    )
    assert camera.read().data.tolist() == [[[99, 98, 97], [102, 101, 100]]]  # BGR


def test_it_is_played_over_and_over_when_asked(tmp_path: Path) -> None:
    camera = RecordedCamera("gripper_cam", _record(tmp_path / "r.mcap", [b"a", b"b"]), Camera(loop=True))
    assert [camera.read().data for _ in range(5)] == [b"a", b"b", b"a", b"b", b"a"]


def test_what_it_does_not_hold_is_said(tmp_path: Path) -> None:
    path = _record(tmp_path / "run.mcap", [b"a"])
    with pytest.raises(UserError, match=r"no frame of it; there is camera/gripper_cam: give --name"):
        RecordedCamera("wrist", path, Camera())


def test_the_service_finds_a_frozen_camera_out_again_and_ends_with_the_recording(tmp_path: Path) -> None:
    """At the robot, from frame 5 on the camera sent the very same picture for 2 s."""
    _record(tmp_path / "run.mcap", [b"%d" % i for i in range(5)] + [b"frozen"] * 100)
    stack = settings.load(flags={"port_base": free_port_base()}, env={})
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    command = [sys.executable, "-m", "gripwire", "camera", "run", "--replay", "run.mcap"]
    command += ["--port-base", str(stack.topics.port_base)]
    seen: list[Frame] = []
    with ending() as started, Queued(stack.topics["camera/gripper_cam"], Frame) as reader:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while process.poll() is None:
            if (received := reader.receive(0.2)) is not None:
                seen.append(received.message)
        log = process.stderr.read()
    assert process.returncode == 0, log
    assert seen[-1].reason == "frozen" and not seen[-1].valid and "is over after 105 pictures" in log
    assert "gripwire echo TOPIC --port-base" in log


def test_a_recording_at_another_pace_is_not_taken_for_a_camera_that_is_too_slow(tmp_path: Path) -> None:
    """`fps` is asked of a camera; a replay may be slower, and what was slow is there to be looked at."""
    path = _record(tmp_path / "run.mcap", [b"%d" % i for i in range(100)])
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    env["GRIPWIRE_CAMERAS__GRIPPER_CAM__FPS"] = "100"
    command = [sys.executable, "-m", "gripwire", "camera", "run", "--replay", str(path), "--rate", "0.5"]
    done = subprocess.run(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0 and "is over after 100 pictures" in done.stderr
