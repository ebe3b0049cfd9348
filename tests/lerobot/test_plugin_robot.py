"""LeRobot's robot type `gripwire`, on the running bench: what SO101Follower does, by the bus."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire.messages import JOINTS, Drive, Goal, Hold, Yield
from tests.helpers import wait_for
from tests.lerobot.conftest import Running

KEYS = [f"{joint}.pos" for joint in JOINTS]


@pytest.fixture
def robot(mended: Running, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from lerobot.robots import make_robot_from_config

    from lerobot_robot_gripwire import GripwireRobotConfig

    made: list[Any] = []

    def make(**given: Any) -> Any:
        config = GripwireRobotConfig(
            id="bench", port_base=mended.port_base, calibration_dir=tmp_path / "calibration", **given
        )
        made.append(make_robot_from_config(config))
        return made[-1]

    yield make
    for one in made:
        if one.is_connected:
            one.disconnect()


def test_its_features_are_those_of_lerobots_own_follower(robot: Callable[..., Any], tmp_path: Path) -> None:
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    from lerobot_robot_gripwire import GripwireCameraConfig

    camera = {"gripper_cam": GripwireCameraConfig(name="gripper_cam", width=640, height=480, fps=30)}
    ours = robot()  # every camera of the stack, their size found out
    stock = SO101Follower(
        SO101FollowerConfig(port="/dev/null", id="x", calibration_dir=tmp_path, cameras=dict(camera))
    )
    assert ours.action_features == stock.action_features
    assert ours.observation_features == stock.observation_features
    assert (ours.name, ours.robot_type) == (stock.name, stock.robot_type)
    assert ours.is_calibrated
    with pytest.raises(RuntimeError, match="the robot service has the arm's port: stop it, calibrate"):
        ours.calibrate()


def test_it_observes_and_moves_the_arm_and_leaves_it_held(robot: Callable[..., Any], mended: Running) -> None:
    one = robot()
    one.connect()
    seen = one.get_observation()
    assert list(seen) == [*KEYS, "gripper_cam"]
    assert seen["gripper_cam"].shape == (480, 640, 3)
    here = mended.here()
    assert all(abs(seen[key] - here[key]) < 2.0 for key in KEYS)
    goal = {**{key: seen[key] for key in KEYS}, "shoulder_pan.pos": seen["shoulder_pan.pos"] + 60.0}
    sent = one.send_action(goal)
    # No farther than the service lets it go at once: what was really sent is what is returned.
    assert sent["shoulder_pan.pos"] == pytest.approx(seen["shoulder_pan.pos"] + 20.0, abs=2.0)
    told = wait_for(mended.actions, lambda a: a.source == "lerobot")
    assert told.driver == one.by and told.asked["shoulder_pan"] == pytest.approx(goal["shoulder_pan.pos"])
    wait_for(mended.states, lambda s: s.position["shoulder_pan"] > seen["shoulder_pan.pos"] + 10.0)
    one.disconnect()
    held = wait_for(mended.actions, lambda a: a.driver == "")
    assert held.valid and wait_for(mended.states, lambda s: s.valid).torque


def test_whoever_else_drives_is_not_pushed_aside_and_cannot_push_in(
    robot: Callable[..., Any], mended: Running
) -> None:
    mended.ask("robot", Drive(by="somebody", lease_s=60.0))
    with pytest.raises(ConnectionError, match="somebody drives the arm"):
        robot(cameras={}).connect()
    mended.ask("robot", Yield(by="somebody"))
    one = robot(cameras={})
    one.connect()
    with pytest.raises(UserError, match="drives the arm"):
        mended.ask("robot", Goal(position={"gripper": 20.0}, by="somebody"))
    one.send_action(mended.here())
    mended.ask("robot", Hold(by="a person"))
    with pytest.raises(UserError, match="held by a person"):
        one.send_action(mended.here())


def test_a_frozen_camera_is_told_instead_of_observed_again(
    robot: Callable[..., Any], mended: Running
) -> None:
    one = robot()
    one.connect()
    mended.fault("camera-freeze")
    with pytest.raises(TimeoutError, match="`camera/gripper_cam` is not valid: frozen"):
        mended.until_it_raises(one.get_observation)
    mended.fault("clear")
    one.cameras["gripper_cam"].async_read(20_000)  # it comes back without connecting anew
    assert list(one.get_observation()) == [*KEYS, "gripper_cam"]


def test_an_arm_of_which_a_joint_is_unknown_is_told_instead_of_observed(
    robot: Callable[..., Any], mended: Running
) -> None:
    one = robot(cameras={})
    one.connect()
    mended.fault("servo-silent", "elbow_flex")
    with pytest.raises(TimeoutError, match="`robot/state` is not valid: elbow_flex"):
        mended.until_it_raises(one.get_observation)


def test_a_stack_that_does_not_run_is_named(mended: Running, tmp_path: Path, monkeypatch) -> None:
    from lerobot_robot_gripwire import GripwireRobot, GripwireRobotConfig, bus

    monkeypatch.setattr(bus, "CONNECT_S", 0.5)
    config = GripwireRobotConfig(port_base=mended.port_base + 64, calibration_dir=tmp_path, cameras={})
    with pytest.raises(ConnectionError, match=r"no `robot/state` comes at .*: is gripwire running"):
        GripwireRobot(config).connect()


def test_hil_serls_environment_finds_what_it_asks_of_a_bus(
    robot: Callable[..., Any], mended: Running
) -> None:
    one = robot(cameras={})
    one.connect()
    assert list(one.bus.motors) == list(JOINTS)
    present = one.bus.sync_read("Present_Position")
    assert np.allclose([present[j] for j in JOINTS], [mended.here()[f"{j}.pos"] for j in JOINTS], atol=2.0)
    assert set(one.bus.sync_read("Present_Current")) == set(JOINTS)
    with pytest.raises(ValueError, match="has no Goal_Time"):
        one.bus.sync_read("Goal_Time")
    one.move_to({**{j: present[j] for j in JOINTS}, "gripper": 55.0}, seconds=0.8)
    assert mended.here()["gripper.pos"] == pytest.approx(55.0, abs=4.0)
