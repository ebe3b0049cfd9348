"""Where the tip is by our own chain of joints, held against MuJoCo's model of the arm."""

import numpy as np
import pytest

from gripwire.messages import JOINTS
from gripwire_robot import kinematics
from gripwire_robot.settings import START, Workspace
from gripwire_sim import joints
from gripwire_sim.kinematics import Arm

LIMITS = {joint.name: (float(np.degrees(joint.low)), float(np.degrees(joint.high))) for joint in joints.TABLE}


@pytest.fixture(scope="module")
def mujoco_arm() -> Arm:
    return Arm()


def test_the_tip_is_where_mujocos_model_of_the_arm_has_it(mujoco_arm: Arm) -> None:
    rng = np.random.default_rng(0)
    for q in rng.uniform(joints.LOW, joints.HIGH, (500, 6)):
        tip, axes = mujoco_arm.forward(q)
        here = kinematics.forward(joints.to_lerobot(q))
        assert np.abs(here.tip - tip).max() < 0.0005
        assert np.abs(here.axes - axes).max() < 0.002


def test_the_joints_found_bring_the_tip_there_and_keep_within_their_limits(mujoco_arm: Arm) -> None:
    rng = np.random.default_rng(1)
    for tip in rng.uniform([0.15, -0.15, 0.01], [0.32, 0.15, 0.18], (150, 3)):
        found = kinematics.inverse(tip, START, LIMITS)
        assert found.there
        reached, _ = mujoco_arm.forward(joints.to_radians(found.position | {"gripper": 40.0}))
        assert reached == pytest.approx(tip, abs=0.0005)
        assert all(LIMITS[j][0] - 1e-6 <= at <= LIMITS[j][1] + 1e-6 for j, at in found.position.items())


def test_the_gripper_points_down_where_it_can_and_its_jaws_open_along_x() -> None:
    for x in (0.21, 0.25, 0.29):
        for y in (-0.05, 0.0, 0.05):
            found = kinematics.inverse((x, y, 0.05), START, LIMITS)
            axes = kinematics.forward(found.position).axes
            assert axes[2, 2] < -0.999
            assert abs(axes[0, 0]) > 0.999


def test_the_direction_gives_way_where_the_place_needs_it() -> None:
    found = kinematics.inverse((0.36, 0.0, 0.2), START, LIMITS)
    assert found.there
    assert found.turned > 20


def test_near_the_pose_it_is_in_the_joints_turn_only_a_little() -> None:
    rng = np.random.default_rng(2)
    pose = kinematics.forward(START)
    for stray in rng.uniform(-0.01, 0.01, (50, 3)):
        found = kinematics.inverse(pose.tip + stray, START, LIMITS, pose.axes)
        assert found.there
        assert max(abs(at - START[joint]) for joint, at in found.position.items()) < 20
        assert found.turned < 1


def test_a_place_out_of_reach_is_said_to_be_and_how_near_it_comes() -> None:
    found = kinematics.inverse((0.6, 0.0, 0.05), START, LIMITS)
    assert not found.there
    assert 0.1 < found.off_m < 0.2
    nearest = kinematics.forward(found.position).tip
    assert np.linalg.norm(nearest - [0.6, 0.0, 0.05]) == pytest.approx(found.off_m)


def test_tighter_limits_of_a_calibration_are_kept() -> None:
    tight = LIMITS | {"wrist_flex": (-80.0, 80.0)}
    found = kinematics.inverse(kinematics.forward(START).tip, START, tight)
    assert found.there
    assert found.position["wrist_flex"] <= 80.0 + 1e-6


def test_the_same_question_has_the_same_answer() -> None:
    tip = (0.22, 0.11, 0.09)
    assert kinematics.inverse(tip, START, LIMITS) == kinematics.inverse(tip, START, LIMITS)


def test_the_usual_start_pose_is_within_the_usual_workspace() -> None:
    low, high = Workspace().corners()
    tip = kinematics.forward(START).tip
    assert (low < tip - 0.01).all()
    assert (tip + 0.01 < high).all()
    assert set(kinematics.ARM) < set(JOINTS)
