"""`gripwire robot run` as a process: rate, commands over the wire, signals, SIGKILL, bad input."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest

from gripwire import clock, control
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import Goal, Health, RobotAction, RobotState, Yield
from gripwire.topics import Topics
from tests.helpers import run_here, wait_for, wait_for_health

Start = Callable[..., Popen[str]]
Command = Callable[..., CompletedProcess[str]]
DEADLINE_S = 60.0


@pytest.fixture
def health(topics: Topics) -> Iterator[Latest[Health]]:
    with Latest(topics["health/robot"], Health) as reader:
        yield reader


def ready(beat: Health) -> bool:
    return beat.state in ("ready", "degraded") and beat.counts.get("states", 0) > 0


@pytest.fixture
def command(port_base: int, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `gripwire robot WORDS` against the service."""
    return lambda *words: run_here(["robot", *words, "--port-base", str(port_base)], {}, capsys)


def test_in_a_container_the_end_waits_for_the_guard_and_signals_get_through(
    robot_process: Start, device: Any, health: Latest[Health]
) -> None:
    killed = robot_process("--in-container")
    service = wait_for_health(health, ready).pid
    assert service != killed.pid and all(device.torque.values())
    os.kill(service, signal.SIGKILL)
    assert killed.wait(DEADLINE_S) == 128 + signal.SIGKILL
    assert not any(device.torque.values())
    told = robot_process("--in-container")
    wait_for_health(health, lambda beat: beat.pid != service and ready(beat))
    told.send_signal(signal.SIGTERM)
    assert told.wait(DEADLINE_S) == 0
    assert not any(device.torque.values())


def test_after_sigkill_a_new_service_takes_the_arm_up_answers_and_goes_to_rest_on_sigterm(
    robot_process: Start, device: Any, topics: Topics, health: Latest[Health], command: Command
) -> None:
    first = robot_process()
    wait_for_health(health, ready)
    control.request(topics.control("robot"), "robot", Goal(position={"elbow_flex": 15.0}))
    device.wait_until(lambda: abs(device.position("elbow_flex") - 15.0) < 0.3)
    first.kill()
    first.wait()
    device.wait_until(lambda: not any(device.torque.values()))  # its guard
    moved = device.moved_by["elbow_flex"]
    process = robot_process()
    wait_for_health(health, lambda beat: beat.pid != first.pid and ready(beat))
    assert all(device.torque.values())
    assert device.moved_by["elbow_flex"] - moved < 5  # encoder steps

    sent = control.request(topics.control("robot"), "robot", Goal(position={"elbow_flex": 10.0}))
    assert sent.position == {"elbow_flex": 10.0}
    with pytest.raises(UserError, match="no joint `elbow`"):
        control.request(topics.control("robot"), "robot", Goal(position={"elbow": 1.0}))

    control.request(topics.control("robot"), "robot", Yield())
    done = command("reset", "--seconds", "1", "--seed", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["there"], told["off"]) == (True, {})
    assert told["reached"]["gripper"] == pytest.approx(40.0, abs=1)
    assert told["tip"] == pytest.approx(told["target"]["tip"], abs=0.003)
    assert told["error_mm"] < 3.0
    assert "workspace.z" in command("reset", "--tip", "0.25,0,-0.1").stderr
    device.blocked = {"elbow_flex"}
    device.place("elbow_flex", 50.0)
    stuck = command("reset", "--seconds", "1", "--jitter-xy", "0", "--jitter-z", "0")
    assert stuck.returncode == 1
    assert "elbow_flex is +51" in stuck.stderr
    device.blocked = set()

    told = command("status", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout.splitlines()[-1])["state"]["torque"] is True
    assert "limp" in command("release").stdout
    assert not any(device.torque.values())
    assert "holding" in command("hold").stdout
    assert all(device.torque.values())

    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert time.monotonic() - begin < 6.0
    assert not any(device.torque.values())
    assert device.position("shoulder_lift") == pytest.approx(-90.0, abs=4.0)
    assert "torque is off at all motors" in err


def test_the_service_outlives_its_port_and_a_second_signal_skips_the_move_to_rest(
    robot_process: Start, device: Any, topics: Topics, health: Latest[Health]
) -> None:
    process = robot_process()
    wait_for_health(health, ready)
    device.unplug()
    told = wait_for_health(health, lambda beat: beat.state == "degraded")
    assert str(device.port) in told.problem
    with Latest(topics["robot/state"], RobotState) as states:
        state = states.wait(5.0)
        assert state
        assert not state.message.valid
        device.plug()
        wait_for_health(health, lambda beat: beat.state == "ready")
        state = states.wait(5.0, after=states.get())
        assert state
        assert state.message.valid

    device.blocked = {"shoulder_lift"}  # so the move lasts the 3 s that it may
    with Latest(topics["robot/action"], RobotAction) as actions:
        assert wait_for(actions, lambda action: action.source == "hold").valid
        process.send_signal(signal.SIGINT)
        # A supervisor passes Ctrl+C on: the same request, the move goes on.
        process.send_signal(signal.SIGTERM)
        begin = wait_for(actions, lambda action: action.source == "rest").t_capture
        still = wait_for(actions, lambda action: action.t_capture - begin > 0.7e9)
    assert still.source == "rest"
    process.send_signal(signal.SIGINT)
    device.wait_until(lambda: not any(device.torque.values()))
    assert clock.monotonic_ns() - begin < 2.8e9
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--port", "/dev/ttyNONE"), "/dev/ttyNONE does not exist"),
        (("--id", "nobody"), "there is no calibration"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(
    robot_process: Start, flags: tuple[str, ...], words: str
) -> None:
    process = robot_process(*flags)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert words in json.loads(lines[0])["message"]


def test_commands_say_when_nothing_runs(command: Command) -> None:
    status = command("status")
    assert status.returncode == 1
    assert "gripwire robot run" in status.stderr
