"""How long the motors stay on when the robot service ends, however it ends: measured at the servos.

The servos are simulated, the serial port, LeRobot's driver, the service's process and its guard are real.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gripwire import control
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Goal, Health, Hold, RobotState
from gripwire.topics import Topics
from tests.faults import table
from tests.helpers import ending, until, wait_for
from tests.robot.conftest import Device

FULL = table.IN_FULL
ROUNDS = 20 if FULL else 2
PROMISED_S = 0.2
TORQUE_OFF = "torque is off within 200 ms"
PROMISES = {
    "SIGTERM: the move": "at the rest pose within 3 s",
    "SIGSTOP, with guard_s = 2": "torque is off 2 s later",
}
REST_S = 3.0
HERE = Path(__file__).parent

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    built = Device(tmp_path)
    built.plug()
    yield built
    built.unplug()


@pytest.fixture
def health(topics: Topics) -> Iterator[Latest[Health]]:
    with Latest(topics["health/robot"], Health) as reader:
        yield reader


@pytest.fixture
def start(device: Device, port_base: int, health: Latest[Health]) -> Iterator[Start]:
    """Start a robot service with the arm stretched out, wait until it works, and set the arm in motion."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")} | {"OMP_NUM_THREADS": "1"}
    log = open(device.folder / "robot.log", "ab")  # noqa: SIM115 (closed below)
    with ending() as started:

        def start(*program: str) -> subprocess.Popen[bytes]:
            for joint in JOINTS[:5]:
                device.place(joint, 0.0)
            command = [
                sys.executable, *(program or ("-m", "gripwire")), "robot", "run",
                "--port-base", str(port_base), "--port", str(device.port),
                "--calibration-dir", str(device.folder),
            ]  # fmt: skip
            process = subprocess.Popen(command, cwd=device.folder, env=env, stderr=log)
            started.append(process)
            wait_for(health, lambda b: b.pid == process.pid and b.counts.get("states", 0) > 5)
            send(Topics(port_base), {"elbow_flex": 12.0})
            assert all(device.torque.values())
            return process

        yield start
    log.close()


def send(topics: Topics, position: dict[str, float], patience_s: float = 20.0) -> None:
    """A goal; again where a busy machine has just lost a servo's answer."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            control.request(topics.control("robot"), "robot", Goal(position=position))
            return
        except UserError as e:
            if "does not answer" not in str(e) or time.monotonic() > deadline:
                raise


def off_after(device: Device, since: float, patience_s: float = 20.0) -> float:
    """Seconds from ``since`` to torque off at the last of the six motors."""
    deadline = time.monotonic() + patience_s
    with device.turned:
        while len(device.off_at) < len(JOINTS):
            left = deadline - time.monotonic()
            assert left > 0, f"torque stayed on: {device.torque}\n{log_of(device)}"
            device.turned.wait(min(left, 0.5))
        return max(device.off_at.values()) - since


def log_of(device: Device) -> str:
    return (device.folder / "robot.log").read_text()[-3000:]


def report(what: str, seconds: list[float]) -> None:
    """The figures for docs/robot.md; shown with `pytest -rP`."""
    ms = sorted(round(1000 * s) for s in seconds)
    print(json.dumps({"what": what, "n": len(ms), "median_ms": ms[len(ms) // 2], "worst_ms": ms[-1]}))
    table.note(
        f"robot service ended: {what}",
        PROMISES.get(what, TORQUE_OFF),
        f"{ms[-1]} ms at worst of {len(ms)}",
    )


@pytest.mark.timeout(600)
def test_a_killed_service_leaves_no_torque(device: Device, start: Start) -> None:
    took = []
    for _ in range(ROUNDS):
        process = start()
        moved = dict(device.moved_by)
        began = time.monotonic()
        process.send_signal(signal.SIGKILL)
        took.append(off_after(device, began))
        process.wait()
        # A guard moves nothing: what still moved was under way to the last goal.
        assert all(device.moved_by[name] - moved[name] < 200 for name in JOINTS)
    report("SIGKILL", took)
    assert max(took) < PROMISED_S


@pytest.mark.timeout(600)
def test_an_exception_in_the_loop_leaves_no_torque_and_moves_nothing(device: Device, start: Start) -> None:
    took = []
    for _ in range(ROUNDS):
        process = start(str(HERE / "failing_robot.py"))
        began = time.monotonic()
        process.send_signal(signal.SIGUSR1)
        took.append(off_after(device, began))
        assert process.wait(20) == 70
    report("exception", took)
    assert max(took) < PROMISED_S
    assert "provoked by a test" in log_of(device)


@pytest.mark.timeout(600)
def test_sigterm_moves_to_rest_for_three_seconds_at_most_and_leaves_no_torque(
    device: Device, start: Start
) -> None:
    moves, after = [], []
    for _ in range(ROUNDS):
        process = start()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        off = off_after(device, began)
        moves.append(device.goal_at - began)
        after.append(off - moves[-1])
        assert process.wait(20) == 0
        assert device.position("shoulder_lift") == pytest.approx(-90.0, abs=4.0)
    report("SIGTERM: the move", moves)
    report("SIGTERM: torque off after the move", after)
    assert max(moves) < REST_S + PROMISED_S  # the signal is seen at the next tick
    assert max(after) < PROMISED_S


@pytest.mark.timeout(120)
def test_a_service_that_hangs_loses_its_torque_and_says_so_when_it_goes_on(
    device: Device, start: Start, topics: Topics, health: Latest[Health]
) -> None:
    process = start()
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    took = off_after(device, began)
    process.send_signal(signal.SIGCONT)
    report("SIGSTOP, with guard_s = 2", [took])
    assert 1.5 < took < 2.0 + 2 * PROMISED_S
    told = wait_for(health, lambda b: "its guard cut torque" in b.problem)
    assert "`gripwire robot hold`" in told.problem
    with Latest(topics["robot/state"], RobotState) as states:
        assert not wait_for(states, lambda state: state.valid).torque
    with pytest.raises(UserError, match="its guard cut torque"):
        control.request(topics.control("robot"), "robot", Goal(position={"elbow_flex": 10.0}))
    assert not any(device.torque.values())
    control.request(topics.control("robot"), "robot", Hold())
    control.request(topics.control("robot"), "robot", Goal(position={"elbow_flex": 10.0}))
    assert all(device.torque.values())


def test_a_service_killed_within_a_packet_leaves_no_torque(device: Device, start: Start) -> None:
    process = start()
    os.kill(process.pid, signal.SIGSTOP)
    device.chain.feed(bytes.fromhex("ffff032083"))  # a packet of 32 bytes, of which no more comes
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    took = off_after(device, began)
    report("SIGKILL within a packet", [took])
    assert took < PROMISED_S


def test_garbage_on_the_line_does_not_keep_the_guard_from_it(device: Device, start: Start) -> None:
    process = start()
    device.chain.corrupt = 0.5
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    took = off_after(device, began)
    report("SIGKILL, half of the answers corrupt", [took])
    assert took < PROMISED_S


def test_a_silent_servo_does_not_keep_the_others_on_and_goes_off_when_it_answers(
    device: Device, start: Start
) -> None:
    process = start()
    device.silence("shoulder_lift")
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    with device.turned:
        assert device.turned.wait_for(lambda: len(device.off_at) == 5, 10.0), log_of(device)
    took = max(device.off_at.values()) - began
    report("SIGKILL, one servo silent: the others", [took])
    assert took < PROMISED_S
    assert device.torque["shoulder_lift"]
    device.silence()
    off_after(device, began)


def test_a_port_that_comes_back_after_the_service_died_is_not_left_on(device: Device, start: Start) -> None:
    process = start()
    os.kill(process.pid, signal.SIGSTOP)  # so that it is the guard who finds the port again
    device.unplug()
    process.send_signal(signal.SIGKILL)
    process.wait()
    device.plug()
    off_after(device, time.monotonic())


@pytest.mark.timeout(120)
def test_a_guard_that_dies_is_missed_and_replaced(
    device: Device, start: Start, health: Latest[Health]
) -> None:
    process = start()
    os.kill(guard_of(process.pid), signal.SIGKILL)
    wait_for(health, lambda b: b.state == "degraded" and "guard" in b.problem)
    wait_for(health, lambda b: b.state == "ready")
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    assert off_after(device, began) < PROMISED_S


@pytest.mark.timeout(120)
def test_a_guard_that_comes_too_late_leaves_the_arm_to_the_service_that_has_taken_it_up(
    device: Device, start: Start
) -> None:
    process = start()
    guard = guard_of(process.pid)
    os.kill(guard, signal.SIGSTOP)  # as on a machine that swaps
    process.kill()
    process.wait()
    start()
    device.off_at.clear()
    os.kill(guard, signal.SIGCONT)
    until(lambda: "and another has the arm by now" in log_of(device), "the late guard gives way")
    assert not device.off_at and all(device.torque.values())


@pytest.mark.timeout(120)
def test_the_guard_hears_no_signal_and_ends_with_its_service(device: Device, start: Start) -> None:
    process = start()
    guard = guard_of(process.pid)
    assert os.getsid(guard) == guard
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guard, number)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert "torque is off at all motors, after" not in log_of(device)  # the guard had nothing to do
    with pytest.raises(ProcessLookupError):
        os.kill(guard, 0)


def guard_of(pid: int) -> int:
    """The guard among a service's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    named = [int(c) for c in children if b"guard.py" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert len(named) == 1, children
    return named[0]
