"""When a reset may be called 'there': what the bus says, told by publishers on real sockets."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gripwire import clock, control
from gripwire.bus import Latest, Publisher
from gripwire.messages import JOINTS, Health, Reset, RobotAction, RobotState, Underway
from gripwire.topics import Topics
from gripwire_robot import client
from tests.helpers import wait_for, wait_for_health

TARGET = {joint: 10.0 for joint in JOINTS}


@dataclass(frozen=True)
class Bus:
    """What a robot service says of an arm that is where it was sent, and how that can go wrong."""

    valid: bool = True
    torque: bool = True
    position: dict[str, float] = field(default_factory=lambda: dict(TARGET))
    speed: float = 0.0
    frozen: bool = False
    state_boot: str = ""
    source: str = "reset"
    sent: dict[str, float] = field(default_factory=lambda: dict(TARGET))
    asked: dict[str, float] = field(default_factory=lambda: dict(TARGET))
    before: bool = False
    """The goal in force is from before the reset."""


class Telling:
    """Publishes states and actions at 60 Hz until it is told to stop."""

    def __init__(self, topics: Topics, says: Bus) -> None:
        self._says = says
        self._states = Publisher[RobotState](topics["robot/state"])
        self._actions = Publisher[RobotAction](topics["robot/action"])
        self._stop = threading.Event()
        self._frozen_at = clock.monotonic_ns()
        self.t_begin = clock.monotonic_ns()
        self._t_sent = self.t_begin - 1 if says.before else clock.monotonic_ns()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        assert self._states.wait_for_subscriber(20)
        assert self._actions.wait_for_subscriber(20)
        self._thread.start()

    def _run(self) -> None:
        says = self._says
        while not self._stop.wait(1 / 60):
            state = RobotState(
                position=says.position, valid=says.valid, torque=says.torque,
                reason="" if says.valid else "no",
                velocity=dict.fromkeys(JOINTS, says.speed), tip=(0.25, 0.0, 0.07),
                t_capture=self._frozen_at if says.frozen else 0,
            )  # fmt: skip
            action = RobotAction(
                position=says.sent, asked=says.asked, source=says.source, valid=True, t_capture=self._t_sent
            )
            self._states.publish(state)
            self._actions.publish(action)

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        self.stop()
        self._states.close()
        self._actions.close()


Judge = Callable[..., client.Arrival]


@pytest.fixture
def judge(topics: Topics) -> Iterator[Judge]:
    """What the client says of a bus like this; ``meanwhile`` runs once states come."""
    made: list[Telling] = []

    def run(
        says: Bus, patience_s: float = 1.0, meanwhile: Callable[[Telling], Any] | None = None
    ) -> client.Arrival:
        telling = Telling(topics, says)
        made.append(telling)
        with client.readers(topics) as (states, actions):
            telling.start()
            assert states.wait(20) and actions.wait(20)
            if meanwhile:
                meanwhile(telling)
            move = Underway(position=TARGET, tip=(0.25, 0.0, 0.07), t_begin=telling.t_begin)
            return client.wait_until_there(states, actions, move, patience_s)

    yield run
    for telling in made:
        telling.close()


def test_an_arm_that_stands_where_it_was_sent_is_there(judge: Judge) -> None:
    arrival = judge(Bus(position={**TARGET, "elbow_flex": 12.0}), patience_s=20.0)
    assert (arrival.problem, arrival.off) == ("", {})
    assert arrival.position["elbow_flex"] == 12.0
    assert arrival.tip == (0.25, 0.0, 0.07)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (Bus(valid=False), "its state is not valid (no)"),
        (Bus(torque=False), "its torque is off"),
        (Bus(position={**TARGET, "elbow_flex": 14.0}), "it stands elsewhere: elbow_flex is +4.0 off"),
        (Bus(position={"gripper": 10.0}), "nobody knows where shoulder_pan, shoulder_lift"),
        (Bus(speed=30.0), "does not stand still"),
        (Bus(before=True), "the move has not begun"),
        (Bus(sent={**TARGET, "gripper": 60.0}), "not sent all the way"),
        (Bus(source="leader"), "`leader` has taken over"),
        (Bus(asked={**TARGET, "gripper": 60.0}), "another reset has taken over"),
    ],
)
def test_whatever_else_the_bus_says_is_not_there_and_says_why(judge: Judge, says: Bus, words: str) -> None:
    assert words in judge(says).problem


def test_a_state_captured_before_the_moves_end_proves_nothing(judge: Judge) -> None:
    """It shows the arm in place and is repeated for ever: only new readings count."""
    assert "no state came after the move's end" in judge(Bus(frozen=True)).problem


def test_states_that_stop_are_no_arrival(judge: Judge) -> None:
    arrival = judge(Bus(speed=30.0), patience_s=30.0, meanwhile=Telling.stop)
    assert "`robot/state` has been silent for" in arrival.problem


def test_no_state_at_all_is_no_arrival(topics: Topics) -> None:
    with client.readers(topics) as (states, actions):
        arrival = client.wait_until_there(states, actions, Underway(position=TARGET), 0.3)
    assert "no `robot/state` arrives" in arrival.problem
    assert arrival.position == {}


def test_a_service_that_dies_in_mid_move_never_reads_as_there(
    robot_process: Callable[..., Any], device: Any, topics: Topics
) -> None:
    first = robot_process()
    with (
        client.readers(topics) as (states, actions),
        Latest(topics["health/robot"], Health) as health,
    ):
        wait_for_health(health, lambda beat: beat.state == "ready")
        move = control.request(topics.control("robot"), "robot", Reset(seconds=2.0, seed=1))
        wait_for(actions, lambda action: action.source == "reset" and action.t_capture > move.t_begin)
        first.kill()
        first.wait()
        again = threading.Thread(target=robot_process)  # the supervisor's part
        again.start()
        arrival = client.wait_until_there(states, actions, move, 20.0)
        again.join()
    # Which of the two depends on how fast this machine starts another one.
    assert "restarted in mid-move" in arrival.problem or "as if the service had died" in arrival.problem


def test_a_servo_that_falls_silent_in_mid_move_is_named(
    robot_process: Callable[..., Any], device: Any, topics: Topics
) -> None:
    robot_process()
    with (
        client.readers(topics) as (states, actions),
        Latest(topics["health/robot"], Health) as health,
    ):
        wait_for_health(health, lambda beat: beat.state == "ready")
        move = control.request(topics.control("robot"), "robot", Reset(seconds=1.0, seed=1))
        wait_for(actions, lambda action: action.source == "reset" and action.t_capture > move.t_begin)
        device.silence("wrist_flex")
        arrival = client.wait_until_there(states, actions, move, 1.5)
        device.silence()  # so that the service's guard finds every motor at the end
    assert "wrist_flex (does not answer)" in arrival.problem
