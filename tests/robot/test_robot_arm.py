"""The arm under LeRobot's driver, with servos that fall silent, garble and lose power."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire.settings import Settings
from gripwire_robot import connect
from gripwire_robot.arm import Arm
from gripwire_robot.servos import PortLost
from gripwire_robot.settings import Robot


@pytest.fixture
def arm(robot_settings: Callable[..., Settings]) -> Any:
    """An arm that is connected."""
    built = Arm(robot_settings().section("robot", Robot))
    built.connect()
    yield built
    built.drop()


def test_connecting_holds_the_present_pose_and_moves_nothing(device: Any, robot_settings: Any) -> None:
    device.place("elbow_flex", 33.0)
    device.servos["elbow_flex"].set("Goal_Position", 100)  # what an earlier program left there
    arm = Arm(robot_settings().section("robot", Robot))
    arm.connect()
    arm.read()
    assert all(device.torque.values())
    assert device.moved_by["elbow_flex"] < 2  # encoder steps
    assert arm.position["elbow_flex"] == pytest.approx(33.0, abs=0.1)
    arm.drop()


def test_connecting_to_an_arm_that_holds_does_not_move_it(device: Any, robot_settings: Any) -> None:
    for name, servo in device.servos.items():
        device.place(name, 20.0)
        servo.set("Torque_Enable", 1)
    arm = Arm(robot_settings().section("robot", Robot))
    arm.connect()
    assert all(device.moved_by[name] < 2 for name in JOINTS)
    assert all(device.position(name) == pytest.approx(20.0, abs=0.2) for name in JOINTS)
    arm.drop()


def test_a_calibration_that_the_motors_do_not_have_is_written_to_them(
    device: Any, robot_settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for servo in device.servos.values():
        servo.set("Homing_Offset", 0)
    arm = Arm(robot_settings().section("robot", Robot))
    arm.connect()
    assert device.servos["shoulder_lift"].get("Homing_Offset") == 431
    assert "differs from" in caplog.text
    arm.drop()


def test_the_limits_are_the_calibrations(arm: Any) -> None:
    low, high = arm.limits["wrist_flex"]
    assert (low, high) == (pytest.approx(-95.0, abs=0.2), pytest.approx(95.0, abs=0.2))
    assert arm.limits["gripper"] == (0.0, 100.0)


def test_a_silent_servo_leaves_the_others_read(arm: Any, device: Any) -> None:
    arm.cut_torque()  # so that a hand can move it
    arm.read()
    device.silence("elbow_flex")
    device.place("wrist_roll", 45.0)
    reading = arm.read()
    assert not reading.fresh
    assert arm.silent == {"elbow_flex": "does not answer"}
    assert arm.faults["elbow_flex"] == "does not answer"
    assert arm.position["wrist_roll"] == pytest.approx(45.0, abs=0.2)
    assert arm.position["elbow_flex"] == pytest.approx(0.0, abs=0.2)  # its last good value
    assert arm.retries > 0


def test_a_silent_servo_costs_little_after_it_is_known(arm: Any, device: Any) -> None:
    device.silence("elbow_flex")
    arm.read()
    begin = time.process_time()  # waiting for an answer is a busy loop in the driver
    for _ in range(60):
        arm.read()
    assert time.process_time() - begin < 0.3


def test_a_servo_that_returns_holds_where_it_is_and_not_where_it_was_sent(arm: Any, device: Any) -> None:
    arm.read()
    arm.send({"elbow_flex": 10.0})
    device.silence("elbow_flex")
    arm.read()
    device.power_cycle("elbow_flex")
    device.place("elbow_flex", -25.0)  # it sank
    device.silence()
    back: list[str] = []
    deadline = time.monotonic() + 5
    while not back:
        assert time.monotonic() < deadline
        back = arm.read().back
    assert back == ["elbow_flex"]
    assert device.torque["elbow_flex"]
    assert device.goal("elbow_flex") == pytest.approx(-25.0, abs=0.2)
    assert arm.read().fresh


def test_a_servo_that_returns_to_a_limp_arm_stays_limp(arm: Any, device: Any) -> None:
    device.silence("gripper")
    arm.read()
    assert arm.cut_torque() == {"gripper": "does not answer"}
    assert device.torque == dict.fromkeys(JOINTS, False) | {"gripper": True}
    device.silence()
    deadline = time.monotonic() + 5
    while device.torque["gripper"]:
        assert time.monotonic() < deadline
        arm.read()


def test_no_goal_is_written_to_a_silent_servo(arm: Any, device: Any) -> None:
    device.silence("gripper")
    arm.read()
    assert arm.send({"gripper": 70.0, "elbow_flex": 5.0}) == {"elbow_flex": 5.0}


def test_corrupt_packets_are_repeated_and_counted_and_give_no_wrong_position(arm: Any, device: Any) -> None:
    arm.cut_torque()
    for i, name in enumerate(JOINTS):
        device.place(name, 10.0 + i)
    device.chain.corrupt = 0.05
    fresh = 0
    for _ in range(150):
        fresh += arm.read().fresh
        for i, name in enumerate(JOINTS):
            if name in arm.position:
                assert arm.position[name] == pytest.approx(10.0 + i, abs=0.2)
    assert arm.retries > 0
    assert fresh > 100


def test_torque_is_cut_at_the_others_when_one_servo_is_silent(arm: Any, device: Any) -> None:
    device.silence("shoulder_lift")
    failures = arm.cut_torque()
    assert failures == {"shoulder_lift": "does not answer"}
    assert [name for name, on in device.torque.items() if on] == ["shoulder_lift"]


def test_a_motor_that_keeps_its_torque_is_named(arm: Any, device: Any) -> None:
    device.refuses_torque_off = {"gripper"}
    device.silence("elbow_flex")
    assert set(arm.cut_torque()) >= {"elbow_flex"}


def test_an_overheated_motor_obeys_and_its_alarm_is_reported(arm: Any, device: Any) -> None:
    device.temperature["gripper"] = 85.0
    arm.read()
    for _ in range(6):
        arm.watch()
    assert arm.temperature["gripper"] == 85.0
    assert arm.faults == {"gripper": "alarm: overheated"}
    assert arm.read().fresh
    assert arm.cut_torque() == {}
    assert not any(device.torque.values())


def test_a_reading_brings_temperature_and_current_of_every_motor(arm: Any, device: Any) -> None:
    device.temperature["elbow_flex"] = 62.0
    device.load["wrist_roll"] = -0.5
    arm.read()
    assert arm.temperature == dict.fromkeys(JOINTS, 31.0) | {"elbow_flex": 62.0}
    assert arm.current["wrist_roll"] == pytest.approx(1200, abs=10)
    assert arm.current["gripper"] == 0


def test_a_motor_that_lost_its_torque_unnoticed_is_reported(arm: Any, device: Any) -> None:
    device.power_cycle("elbow_flex")
    for _ in range(12):
        arm.watch()
    assert "lost its torque" in arm.faults["elbow_flex"]
    assert not arm.torque
    assert arm.hold() == {}
    assert arm.torque
    assert arm.faults == {}


def test_a_port_that_vanishes_is_one_kind_of_error_everywhere(arm: Any, device: Any) -> None:
    arm.read()
    device.unplug()
    for act in (arm.read, lambda: arm.send({"gripper": 50.0}), arm.watch, arm.hold, arm.cut_torque):
        with pytest.raises(PortLost, match="is gone"):
            act()


def test_two_programs_do_not_drive_one_arm(arm: Any, robot_settings: Any) -> None:
    with pytest.raises(PortLost, match="another gripwire drives the arm"):
        Arm(robot_settings().section("robot", Robot)).connect()


def test_a_missing_motor_is_named_and_the_others_do_not_go_on_holding(
    device: Any, robot_settings: Any
) -> None:
    for servo in device.servos.values():  # an earlier process left it holding
        servo.set("Torque_Enable", 1)
    device.silence("elbow_flex", "gripper")
    with pytest.raises(PortLost, match=r"no answer from elbow_flex \(motor 3\), gripper \(motor 6\)"):
        Arm(robot_settings().section("robot", Robot)).connect()
    deadline = time.monotonic() + 5
    while [name for name, on in device.torque.items() if on] != ["elbow_flex", "gripper"]:
        assert time.monotonic() < deadline


def test_an_arm_without_power_is_told_from_a_missing_port(device: Any, robot_settings: Any) -> None:
    device.silence(*JOINTS)
    with pytest.raises(PortLost, match="no motor answers; check its power supply"):
        Arm(robot_settings().section("robot", Robot)).connect()


def test_another_kind_of_motor_is_named(device: Any, robot_settings: Any) -> None:
    device.servos["wrist_roll"].set("Model_Number", 1284)
    with pytest.raises(PortLost, match="wrist_roll is no STS3215"):
        Arm(robot_settings().section("robot", Robot)).connect()


def test_corrupt_packets_do_not_end_the_start(device: Any, robot_settings: Any) -> None:
    device.chain.corrupt = 0.01
    arm = Arm(robot_settings().section("robot", Robot))
    arm.connect()
    assert all(device.torque.values())
    arm.drop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-20], "cannot be read"),
        (
            lambda text: json.dumps({"gripper": json.loads(text)["gripper"]}),
            "nothing usable about shoulder_pan",
        ),
        (lambda text: text.replace('"range_max": 3', '"range_max": -3'), "nothing usable about"),
    ],
)
def test_a_broken_calibration_names_the_file_and_the_remedy(
    device: Any, robot_settings: Any, change: Callable[[str], str], words: str
) -> None:
    path = device.folder / "follower.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError) as refused:
        Arm(robot_settings().section("robot", Robot)).connect()
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert "gripwire robot calibrate --port" in str(refused.value)


def test_what_can_be_known_beforehand_is_said_at_once(device: Any, robot_settings: Any) -> None:
    def refusal(**robot: object) -> str:
        with pytest.raises(UserError) as refused:
            connect.check(robot_settings(**robot).section("robot", Robot))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "no serial port is set" in refusal(port="")
    assert "/dev/ttyNONE does not exist" in refusal(port="/dev/ttyNONE")
    missing = refusal(id="other")
    assert "there is no calibration" in missing
    assert f"--id other --calibration-dir {device.folder}" in missing
