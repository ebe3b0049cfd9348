"""`gripwire robot teleop` and `gripwire robot run` with both arms, as processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire import control
from gripwire.bus import Latest
from gripwire.messages import JOINTS, Health, Hold, RobotAction
from gripwire.topics import Topics
from gripwire_sim import joints
from gripwire_sim.arms import Leader
from gripwire_sim.servo_bus import ServoBus
from tests.helpers import ending, run_here, wait_for

WAIT_S = 60.0


@pytest.fixture
def leader(device: Any, tmp_path: Path) -> Iterator[Leader]:
    arm = Leader(joints.to_radians(dict.fromkeys(JOINTS, 0.0) | {"gripper": 50.0}))
    bus = ServoBus(arm.chain, tmp_path / "leader")
    yield arm
    bus.close()


@pytest.fixture
def teleop(port_base: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with ending() as started:

        def start(*flags: str) -> subprocess.Popen[str]:
            command = [
                sys.executable,
                "-m",
                "gripwire",
                "robot",
                "teleop",
                "--port-base",
                str(port_base),
                *flags,
            ]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
            return started[-1]

        yield start


@pytest.mark.timeout(300)
def test_the_leader_drives_until_ctrl_c_or_until_somebody_stops_the_arm(
    device: Any,
    leader: Leader,
    robot_process: Any,
    teleop: Any,
    topics: Topics,
    port_base: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, folder = str(device.folder / "leader"), str(device.folder)
    robot_process(
        "--leader-port", port, "--leader-id", "follower", "--leader-calibration-dir", folder
    )  # fmt: skip
    with (
        Latest(topics["health/robot"], Health) as beats,
        Latest(topics["robot/action"], RobotAction) as actions,
    ):
        wait_for(beats, lambda b: b.state == "ready" and b.counts.get("states", 0) > 60, WAIT_S)
        first = teleop("--json", "--by", "ada")
        assert wait_for(actions, lambda a: a.source == "leader", WAIT_S).driver == "ada"
        leader.move({"elbow_flex": 20.0}, 0.5)
        device.wait_until(lambda: abs(device.position("elbow_flex") - 20.0) < 1.0)
        wait_for(beats, lambda b: b.rates.get("leader_goals", 0) > 60, WAIT_S)
        first.send_signal(signal.SIGINT)
        out, _ = first.communicate(timeout=WAIT_S)
        told = json.loads(out.splitlines()[-1])
        assert (first.returncode, told["ended"]) == (0, "on request")
        assert told["latency_ms"]["median"] > 0
        assert wait_for(actions, lambda a: a.source == "hold", WAIT_S).driver == ""

        second = teleop()
        wait_for(actions, lambda a: a.source == "leader", WAIT_S)
        taken = run_here(["robot", "drive", "--by", "bob", "--port-base", str(port_base)], {}, capsys)
        assert taken.returncode == 1 and "drives the arm" in taken.stderr
        control.request(topics.control("robot"), "robot", Hold())
        _, err = second.communicate(timeout=WAIT_S)
        assert second.returncode == 1
        assert "teleoperation ended" in err
