"""`gripwire robot calibrate` at a terminal: LeRobot's own procedure, answered and moved by a script."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gripwire.messages import JOINTS
from gripwire_sim import joints
from gripwire_sim.arms import Leader
from gripwire_sim.servo_bus import ServoBus

DEADLINE_S = 60.0
MIDDLE = (joints.LOW + joints.HIGH) / 2


class Limp(Leader):
    """Six servos on an arm that a hand moves: a leader, or a follower whose torque is off."""

    def move(self, q: np.ndarray) -> None:
        self._q = np.array(q)
        self._sense()

    @property
    def offsets(self) -> dict[str, int]:
        return {
            name: s.get("Homing_Offset") for name, s in zip(JOINTS, self.chain.servos.values(), strict=True)
        }


class Person:
    """At a terminal that runs a command: reads what it prints, types, and moves the arm."""

    def __init__(self, *command: str) -> None:
        self.screen = ""
        self._master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        env = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "robot", "calibrate", *command],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env,
        )  # fmt: skip
        os.close(slave)

    def _listen(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return True
        try:
            more = os.read(self._master, 65536)
        except OSError:  # the last one that had the terminal has gone
            return False
        self.screen += more.decode(errors="replace")
        return bool(more)

    def reads(self, words: str, times: int = 1) -> None:
        """Wait for these words."""
        deadline = time.monotonic() + DEADLINE_S
        while self.screen.count(words) < times:
            assert time.monotonic() < deadline and self._listen(1.0), f"no {words!r} in:\n{self.screen}"

    def types(self, text: str) -> None:
        os.write(self._master, text.encode())

    def sees_the_end(self) -> int:
        """The exit code; the screen as one line, as words wrap nowhere."""
        while self._listen(DEADLINE_S):
            pass
        code = self.process.wait(DEADLINE_S)
        self.screen = " ".join(self.screen.split())
        return code

    def leaves(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Limp]:
    built = Limp(MIDDLE)
    bus = ServoBus(built.chain, tmp_path / "port")
    yield built
    bus.close()


@pytest.fixture
def person(tmp_path: Path) -> Iterator[list[Person]]:
    people: list[Person] = []
    yield people
    for one in people:
        one.leaves()


def start(person: list[Person], tmp_path: Path, *flags: str) -> Person:
    command = ["--port", str(tmp_path / "port"), "--id", "mine", "--calibration-dir", str(tmp_path), *flags]
    person.append(Person(*command))
    return person[0]


def record(one: Person, arm: Limp) -> None:
    """LeRobot's two steps: the middle, then every joint from stop to stop."""
    one.reads("middle of its range of motion and press ENTER")
    arm.move(MIDDLE)
    one.types("\n")
    one.reads("Recording positions. Press ENTER to stop")
    for q in (joints.LOW, joints.HIGH):
        arm.move(q)
        one.reads("NAME", one.screen.count("NAME") + 3)  # a table for every reading
    one.types("\n")


@pytest.mark.parametrize("flags", [(), ("--leader",)])
def test_an_arm_moved_from_stop_to_stop_gets_the_calibration_that_it_was_built_with(
    arm: Limp, person: list[Person], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    one = start(person, tmp_path, *flags)
    record(one, arm)
    assert one.sees_the_end() == 0, one.screen
    assert f"the calibration is in {tmp_path / 'mine.json'}" in one.screen
    from gripwire_robot import checks

    file = checks.calibration(tmp_path / "mine.json", "")
    for joint in joints.TABLE:
        assert arm.offsets[joint.name] == file[joint.name].homing_offset
        assert file[joint.name].homing_offset == pytest.approx(joint.homing_offset, abs=1)
        if joint.name != "wrist_roll":  # LeRobot lets it turn all the way round
            assert file[joint.name].range_min == pytest.approx(joint.range_min, abs=2)
            assert file[joint.name].range_max == pytest.approx(joint.range_max, abs=2)
    assert list(tmp_path.glob("mine.json*")) == [tmp_path / "mine.json"]


def test_what_was_calibrated_before_is_kept_and_only_replaced_after_asking(
    arm: Limp, person: list[Person], tmp_path: Path
) -> None:
    joints.write_calibration(tmp_path, "mine")
    before = (tmp_path / "mine.json").read_bytes()
    one = start(person, tmp_path)
    one.reads("or type 'c' and press ENTER to run calibration")
    one.types("c\n")
    record(one, arm)
    assert one.sees_the_end() == 0, one.screen
    (kept,) = tmp_path.glob("mine.json.2*")
    assert kept.read_bytes() == before
    assert str(kept) in one.screen
    assert (tmp_path / "mine.json").read_bytes() != before


def test_breaking_off_leaves_the_file_and_says_what_the_motors_hold(
    arm: Limp, person: list[Person], tmp_path: Path
) -> None:
    joints.write_calibration(tmp_path, "mine")
    before = (tmp_path / "mine.json").read_bytes()
    one = start(person, tmp_path)
    one.reads("or type 'c'")
    one.types("c\n")
    one.reads("middle of its range of motion")
    one.types("\x04")  # Ctrl+D
    assert one.sees_the_end() == 1
    assert "broken off: nothing was written" in one.screen
    assert [file.read_bytes() for file in tmp_path.glob("mine.json*")] == [before]


def test_joints_that_were_not_moved_are_named(arm: Limp, person: list[Person], tmp_path: Path) -> None:
    one = start(person, tmp_path)
    one.reads("middle of its range of motion and press ENTER")
    one.types("\n")
    one.reads("NAME")
    one.types("\n")
    assert one.sees_the_end() == 1
    assert "shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, gripper was not moved" in one.screen
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize("answer", ["n\n", "y\n"])
def test_a_broken_file_is_replaced_only_when_told_to_and_only_by_a_whole_one(
    arm: Limp, person: list[Person], tmp_path: Path, answer: str
) -> None:
    (tmp_path / "mine.json").write_text("{")
    one = start(person, tmp_path)
    one.reads("Calibrate anew and replace it?")
    one.types(answer)
    if answer == "y\n":
        one.reads("middle of its range of motion")
        one.types("\x04")  # broken off after all
    assert one.sees_the_end() == 1
    assert [file.read_text() for file in tmp_path.glob("mine.json*")] == ["{"]


def test_an_arm_that_holds_is_let_go_only_after_a_word(
    arm: Limp, person: list[Person], tmp_path: Path
) -> None:
    for servo in arm.chain.servos.values():
        servo.set("Torque_Enable", 1)
    one = start(person, tmp_path)
    one.reads("will go limp: hold it. Go on?")
    assert all(servo.torque for servo in arm.chain.servos.values())
    one.types("y\n")
    one.reads("middle of its range of motion")
    assert not any(servo.torque for servo in arm.chain.servos.values())


def test_without_a_terminal_or_with_the_port_in_use_it_refuses(
    arm: Limp, person: list[Person], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "gripwire", "robot", "calibrate", "--port", str(tmp_path / "port")]
    blind = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "at a terminal" in blind.stderr
    first = start(person, tmp_path)
    first.reads("middle of its range of motion")
    second = Person("--port", str(tmp_path / "port"), "--calibration-dir", str(tmp_path))
    person.append(second)
    assert second.sees_the_end() == 1
    assert f"gripwire robot calibrate (process {first.process.pid}) uses the arm's port" in second.screen
