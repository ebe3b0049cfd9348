"""Where the gripper's tip goes, and the units it is told in."""

import json
from pathlib import Path

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire_sim import joints
from gripwire_sim.kinematics import Arm


@pytest.mark.parametrize("x", [0.21, 0.25, 0.29])
@pytest.mark.parametrize("y", [-0.05, 0.0, 0.05])
@pytest.mark.parametrize("z", [0.012, 0.07])
@pytest.mark.parametrize("yaw", [-0.6, 0.0, 0.6])
def test_the_tip_reaches_the_workspace_pointing_down(
    arm_model: Arm, x: float, y: float, z: float, yaw: float
) -> None:
    position, axes = arm_model.forward(arm_model.reach((x, y, z), yaw))
    assert position == pytest.approx([x, y, z], abs=0.0005)
    assert axes[2, 2] < -0.97, "within 14 degrees of straight down"
    turned = abs(axes[:, 0] @ [np.cos(yaw), np.sin(yaw), 0.0])
    assert turned > 0.99, "the jaws open along the asked direction"


def test_a_point_out_of_reach_is_refused_in_plain_words(arm_model: Arm) -> None:
    with pytest.raises(UserError, match=r"\(0.600, 0.000, 0.050\).*nearer"):
        arm_model.reach((0.6, 0.0, 0.05))


def test_every_joint_angle_survives_the_way_through_steps_and_lerobots_units() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        q = rng.uniform(joints.LOW, joints.HIGH)
        assert joints.to_radians(joints.to_lerobot(q)) == pytest.approx(q)
        back = [
            joints.radians_of(joint, joints.steps_of(joint, angle))
            for joint, angle in zip(joints.TABLE, q.tolist(), strict=True)
        ]
        assert back == pytest.approx(q, abs=np.radians(0.05))


def test_the_gripper_runs_from_closed_at_0_to_open_at_100() -> None:
    assert joints.to_lerobot(joints.LOW)["gripper"] == 0
    assert joints.to_lerobot(joints.HIGH)["gripper"] == 100


def test_the_calibration_file_is_lerobots(tmp_path: Path) -> None:
    import draccus
    from lerobot.motors import MotorCalibration

    path = joints.write_calibration(tmp_path)
    assert path == tmp_path / "bench.json"
    with path.open() as file, draccus.config_type("json"):
        loaded = draccus.load(dict[str, MotorCalibration], file)
    assert loaded["gripper"].id == 6
    assert set(json.loads(path.read_text())["gripper"]) == {
        "id", "drive_mode", "homing_offset", "range_min", "range_max",
    }  # fmt: skip
