"""`gripwire recorder run --replay`: a recorded run is the episode that it was, in a folder of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from gripwire.messages import (
    DiscardEpisode,
    EpisodeState,
    Frame,
    MarkEpisode,
    RobotAction,
    RobotState,
    StartEpisode,
    StopEpisode,
)
from gripwire.recording.file import Recording, RecordingFile
from gripwire_recorder.alone import commands
from tests.recorder.rig import HEIGHT, WIDTH, joints, picture

MS = 1_000_000


class Tape:
    """A recording written by hand; times in milliseconds since it began."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, RecordingFile(path)

    def say(self, at_ms: float, state: Any, **more: Any) -> None:
        said = EpisodeState(state=state, dataset="grasp", task="grasp the cube", **more)
        self._file.append("episode", int(at_ms * MS), said, None)

    def bench(self, seconds: float) -> None:
        """A camera and an arm, 30 and 60 times a second."""
        for seq in range(int(seconds * 60)):
            at = int(seq * 1000 / 60 * MS) + 10**15
            header = {"seq": seq, "boot": "arm", "valid": True, "t_capture": at, "t_publish": at}
            self._file.append(
                "robot/state", at, RobotState(position=joints(seq), torque=True, **header), None
            )
            self._file.append("robot/action", at, RobotAction(position=joints(seq), **header), None)
            if seq % 2 == 0:
                header |= {"seq": seq // 2, "boot": "camera"}
                _, jpeg = cv2.imencode(".jpg", picture(seq // 2))
                frame = Frame(camera="gripper_cam", width=WIDTH, height=HEIGHT, encoding="jpeg", **header)
                self._file.append("camera/gripper_cam", at, frame, jpeg.tobytes())

    def close(self) -> Recording:
        self._file.close()
        return Recording(self.path)


def _kinds(recording: Recording) -> list[tuple[int, str]]:
    return [(asked.at // MS, type(asked.command).__name__) for asked in commands(recording)]


def test_what_was_asked_is_read_off_what_the_recorder_said(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "run.mcap")
    tape.say(0, "idle")
    tape.say(10, "recording", rows=0)
    tape.say(20, "recording", rows=5, verdict="success")
    tape.say(30, "recording", rows=9, verdict="success")
    tape.say(40, "saving", rows=10)
    tape.say(50, "idle", saved=1)
    tape.say(60, "recording", saved=1)
    tape.say(70, "idle", saved=1)  # thrown away: one more is not saved
    asked = commands(tape.close())
    assert [(a.at // MS, a.command) for a in asked] == [
        (10, StartEpisode(task="grasp the cube", dataset="grasp")),
        (20, MarkEpisode(success=True)),
        (40, StopEpisode()),
        (60, StartEpisode(task="grasp the cube", dataset="grasp")),
        (70, DiscardEpisode()),
    ]


def test_an_episode_begun_anew_was_thrown_away_first(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "run.mcap")
    tape.say(10, "recording", rows=7)
    tape.say(20, "recording", rows=0)
    assert _kinds(tape.close()) == [(10, "StartEpisode"), (20, "DiscardEpisode"), (20, "StartEpisode")]


def test_a_run_without_episodes_is_one_episode(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "run.mcap")
    tape.say(10, "idle")
    assert _kinds(tape.close()) == [(0, "StartEpisode")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tape = Tape(tmp_path / "run.mcap")
    start = 10**9  # the bench's first moment, in ms
    tape.bench(4.0)
    tape.say(start, "idle")
    tape.say(start + 1000, "recording")
    tape.say(start + 2000, "recording", rows=10, verdict="success")
    tape.say(start + 3000, "saving", rows=20)
    tape.close()
    return tape.path


def test_a_recorded_run_becomes_the_episode_that_it_was_in_nobodys_folder(run: Path, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    env |= {"TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gripwire", "recorder", "run", "--replay", run.name],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    folder = Path(re.search(r"what is recorded goes to (.*)", done.stderr)[1])
    assert folder.is_relative_to(tmp_path) and not (tmp_path / "data").exists()
    info = json.loads((folder / "grasp" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 1
    # From the command that began it to the one that ended it there are 2 s, at 10 rows a second. A busy
    # machine is late with both.
    assert 15 <= info["total_frames"] <= 25
    assert "MarkEpisode: success from now on" in done.stderr
