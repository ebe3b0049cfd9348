"""What is said of an arm before it is driven: judged on data, and looked at on a real serial device."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import checks, connect
from gripwire_robot.arm import Arm
from gripwire_robot.checks import Ends, Finding, Motor
from gripwire_robot.servos import PortLost
from gripwire_robot.settings import Robot
from tests.helpers import run_here

GOOD = Motor(777, (3, 10), Ends(431, 909, 3185), 7.4, 8.0, 31.0, "")
BIG = replace(GOOD, volts=12.1, most_volts=14.0)


def motors(**changed: Motor) -> dict[str, Motor]:
    return dict.fromkeys(JOINTS, GOOD) | changed


def fed(volts: float, motor: Motor = GOOD) -> dict[str, Motor]:
    return dict.fromkeys(JOINTS, replace(motor, volts=volts))


# --- judged on data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "well", "words"),
    [
        (checks.answering(motors()), True, "all six"),
        (checks.answering({}), False, "no motor answers; check its power supply"),
        (checks.model(motors(gripper=replace(GOOD, model=1284))), False, "gripper is no STS3215"),
        (checks.firmware(motors()), True, "3.10"),
        (checks.firmware(motors(gripper=replace(GOOD, firmware=(3, 9)))), False, "3.9 in gripper; 3.10 in"),
        (checks.voltage(motors()), True, "7.4 V, right for 7.4 V motors"),
        (checks.voltage(fed(5.0)), True, "from a 5 V supply"),
        (checks.voltage(fed(12.1)), False, "12.1 V is too much for all"),
        (checks.voltage(motors(gripper=replace(GOOD, volts=3.9))), False, "3.9 V is too little for gripper"),
        (checks.voltage(fed(12.1, BIG)), True, "12.1 V, right for 12 V motors"),
        (checks.voltage(fed(7.4, BIG)), False, "by its own limit a 12 V motor"),
        (checks.temperature(motors()), True, "31 °C"),
        (checks.temperature(motors(gripper=replace(GOOD, celsius=66))), False, "hot: gripper (66 °C)"),
        (checks.alarms(motors(gripper=replace(GOOD, alarms="overload"))), False, "overload: gripper; let it"),
        (checks.written(motors(), dict.fromkeys(JOINTS, GOOD.ends)), True, "the motors hold the file's"),
        (checks.ranges(None), None, "without a calibration file"),
    ],
)  # fmt: skip
def test_each_check_says_what_it_found(finding: Finding, well: bool | None, words: str) -> None:
    assert finding.well is well
    assert words in finding.text
    assert "\n" not in finding.text


def test_a_supply_that_would_burn_the_motors_is_never_driven_on() -> None:
    assert checks.voltage(fed(12.1)).fatal
    assert not checks.firmware(motors(gripper=replace(GOOD, firmware=(3, 9)))).fatal


def test_a_calibration_that_differs_names_the_joint_the_register_and_who_writes_it() -> None:
    file = dict.fromkeys(JOINTS, GOOD.ends) | {"elbow_flex": Ends(-268, 909, 3185)}
    told = checks.written(motors(), file)
    assert not told.well
    assert "elbow_flex (its Homing_Offset is 431, the file's -268)" in told.text
    assert "`gripwire robot run` writes the file's" in told.text


def test_a_joint_that_was_not_calibrated_from_stop_to_stop_is_named() -> None:
    whole = {
        j: Ends(0, round(2047 - h / 360 * 4095), round(2047 + h / 360 * 4095)) for j, h in RANGES.items()
    }
    assert checks.ranges(whole).well
    half = checks.ranges(whole | {"wrist_flex": Ends(0, 1500, 2600)})
    assert "wrist_flex (97 of about 190 degrees)" in half.text


RANGES = dict.fromkeys(JOINTS, 100.0) | {"shoulder_pan": 110.0, "elbow_flex": 96.8, "wrist_flex": 95.0}


def test_a_motors_memory_is_read_as_feetech_lays_it_out(device: Any) -> None:
    servo = device.servos["elbow_flex"]
    motor = Motor.read(servo.read(0, 33), servo.read(56, 8), "")
    assert motor == Motor(777, (3, 10), Ends(-268, 945, 3149), 7.4, 8.0, 31.0, "")


# --- looked at on a device ----------------------------------------------------------------------------


@pytest.fixture
def check(device: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., CompletedProcess[str]]:
    """`gripwire robot check` of the device; settings by variable, flags as given."""

    def run(*flags: str, **settings: object) -> CompletedProcess[str]:
        own = {"port": device.port, "calibration_dir": device.folder} | settings
        environment = {f"GRIPWIRE_ROBOT__{key.upper()}": str(value) for key, value in own.items()}
        return run_here(["robot", "check", *flags], environment, capsys)

    return run


def test_an_arm_in_order_is_well_in_every_line_and_nothing_is_written_to_it(check: Any, device: Any) -> None:
    before = {name: bytes(servo.read(0, 48)) for name, servo in device.servos.items()}
    done = check()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "the arm"
    assert [line.split()[1] for line in lines[1:]] == [
        "port", "permission", "use", "file", "motors", "model", "voltage", "temperature", "alarms",
        "firmware", "calibration", "ranges",
    ]  # fmt: skip
    assert {line.split()[0] for line in lines[1:]} == {"ok"}
    assert {name: bytes(servo.read(0, 48)) for name, servo in device.servos.items()} == before


def test_every_trouble_is_a_line_for_people_and_an_entry_for_programs(check: Any, device: Any) -> None:
    device.silence("gripper")
    device.servos["wrist_flex"].set("Homing_Offset", 7)
    device.servos["wrist_roll"].set("Firmware_Minor_Version", 9)
    device.temperature["elbow_flex"] = 66.0
    done = check("--json")
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["well"] is False
    wrong = {entry["check"]: entry["text"] for entry in told["arm"] if not entry["well"]}
    assert set(wrong) == {"motors", "calibration", "firmware", "temperature"}
    assert "gripper (motor 6)" in wrong["motors"]
    assert "wrist_flex (its Homing_Offset is 7, the file's 95)" in wrong["calibration"]


def test_motors_that_complain_about_their_supply_are_not_taken_for_absent(check: Any, device: Any) -> None:
    for servo in device.servos.values():
        servo.supply = 121
    told = check().stdout
    assert "ok     motors" in told
    assert "12.1 V is too much for all six motors" in told


def test_the_leader_is_looked_at_too_when_it_is_set(check: Any, tmp_path: Path) -> None:
    told = check(leader_port=tmp_path / "nowhere").stdout
    assert "the leader's port" in told
    assert "does not exist" in told
    assert "no calibration" in told


@pytest.fixture
def other_program(device: Any) -> Iterator[subprocess.Popen[str]]:
    """Somebody else's program that has the port open."""
    script = "import sys; port = open(sys.argv[1], 'rb', buffering=0); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(device.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells who has a device open")
def test_a_program_that_has_the_port_open_is_named(
    check: Any, other_program: Any, robot_settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    words = f"(process {other_program.pid}) uses the arm's port"
    assert words in check().stdout
    arm = Arm(robot_settings().section("robot", Robot))
    arm.connect()
    arm.drop()
    assert words in caplog.text


def test_connecting_says_the_same_in_the_same_words(
    device: Any, robot_settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = robot_settings().section("robot", Robot)
    device.servos["wrist_roll"].set("Firmware_Minor_Version", 9)
    for servo in device.servos.values():
        servo.set("Homing_Offset", 0)
    with caplog.at_level(logging.WARNING):
        arm = Arm(settings)
        arm.connect()
        arm.drop()
    assert "3.9 in wrist_roll" in caplog.text
    assert "`gripwire robot run` writes the file's to them" in caplog.text
    for servo in device.servos.values():
        servo.supply = 121
    with pytest.raises(PortLost, match=r"12\.1 V is too much for all six motors"):
        Arm(settings).connect()


def test_without_permission_the_group_is_named(device: Any, robot_settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(UserError, match=r"no permission .* dialout"):
        connect.check(robot_settings().section("robot", Robot))
