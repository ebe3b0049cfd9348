"""LeRobot's own commands on the running bench, their arguments as a person types them."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gripwire.messages import JOINTS
from tests.helpers import wait_for
from tests.lerobot.conftest import Running

pytestmark = pytest.mark.timeout(300)
Run = Callable[..., Any]
ROBOT, TELEOP = ("--robot.type=gripwire", "--robot.id=bench"), ("--teleop.type=gripwire",)
RECORD = (
    *ROBOT, *TELEOP, "--dataset.repo_id=local/mine", "--dataset.fps=10", "--dataset.num_episodes=2",
    "--dataset.episode_time_s=2", "--dataset.reset_time_s=1", "--dataset.single_task=Grasp the cube",
    "--dataset.push_to_hub=false", "--dataset.rgb_encoder.vcodec=h264", "--play_sounds=false",
)  # fmt: skip


def _calibration(folder: Path, *whose: str) -> list[str]:
    """LeRobot makes a folder for each device; not in anybody's home."""
    return [f"--{who}.calibration_dir={folder}" for who in whose or ("robot", "teleop")]


@contextmanager
def hand_at_the_leader(bench: Running) -> Iterator[None]:
    """A person who opens and closes the leader's gripper all the while."""
    ended = threading.Event()

    def drive() -> None:
        for opening in itertools.cycle((70.0, 30.0)):
            bench.move_leader(0.6, gripper=opening)
            if ended.wait(0.7):
                return

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def run(bench: Running, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``lerobot-COMMAND``, in this process: the second import of LeRobot would take longer than the rest."""
    import importlib

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GRIPWIRE_PORT_BASE", str(bench.port_base))

    def call(command: str, *arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", [f"lerobot-{command}", *arguments])
        return importlib.import_module(f"lerobot.scripts.lerobot_{command}").main()

    return call


def _dataset(root: Path) -> Any:
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("local/mine", root=root, video_backend="pyav")


def test_record_writes_episodes_that_the_leader_drove_and_replay_drives_them(
    run: Run, bench: Running, tmp_path: Path
) -> None:
    with hand_at_the_leader(bench):
        run("record", *RECORD, f"--dataset.root={tmp_path / 'mine'}", *_calibration(tmp_path))
    wait_for(bench.actions, lambda a: a.source != "leader")  # teleoperation has ended with the recording
    dataset = _dataset(tmp_path / "mine")
    assert (dataset.num_episodes, dataset.meta.robot_type, dataset.fps) == (2, "so_follower", 10)
    names = [f"{joint}.pos" for joint in JOINTS]
    assert dataset.features["action"]["names"] == dataset.features["observation.state"]["names"] == names
    rows = [dataset[i] for i in range(len(dataset))]
    assert len(rows) > 20
    state = np.stack([row["observation.state"] for row in rows])
    action = np.stack([row["action"] for row in rows])
    grip = JOINTS.index("gripper")
    for column in (state, action):
        assert np.ptp(column[:, grip]) > 10.0, "the leader's way is in the episodes"
    assert np.abs(action - state).max() < 30.0  # degrees that the arm was behind
    picture = rows[0]["observation.images.gripper_cam"].numpy()
    assert picture.shape == (3, 480, 640)
    red, _, blue = picture.reshape(3, -1).mean(axis=1)
    assert red > blue + 0.05, "the bench's table is of light wood: red and blue are not exchanged"

    run(
        "replay", *ROBOT, "--robot.cameras={}", *_calibration(tmp_path, "robot"),
        "--dataset.repo_id=local/mine", f"--dataset.root={tmp_path / 'mine'}", "--dataset.episode=0",
        "--dataset.fps=10", "--play_sounds=false",
    )  # fmt: skip
    last = float(action[dataset.meta.episodes["dataset_to_index"][0] - 1, grip])
    wait_for(bench.actions, lambda a: abs(a.asked["gripper"] - last) < 0.1)


def test_teleoperate_goes_on_for_as_long_as_it_is_told(run: Run, bench: Running, tmp_path: Path) -> None:
    bench.move_leader(0.5, wrist_roll=10.0)
    run(
        "teleoperate", *ROBOT, "--robot.cameras={}", *TELEOP, *_calibration(tmp_path),
        "--fps=30", "--teleop_time_s=2",
    )  # fmt: skip
    assert bench.here()["wrist_roll.pos"] == pytest.approx(10.0, abs=4.0)
    assert wait_for(bench.actions, lambda a: a.source == "hold").driver == ""
