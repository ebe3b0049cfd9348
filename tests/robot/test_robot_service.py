"""The robot service's commands and messages, its loop turned tick by tick on a real serial device."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gripwire.bus import Queued
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Goal, Hold, Release, Reset, RobotAction, RobotState
from gripwire.topics import Topics

Drive = Callable[..., Any]
FAR = {"max_relative_target": 500.0}


@pytest.fixture
def states(topics: Topics) -> Iterator[Queued[RobotState]]:
    with Queued(topics["robot/state"], RobotState) as reader:
        yield reader


@pytest.fixture
def actions(topics: Topics) -> Iterator[Queued[RobotAction]]:
    with Queued(topics["robot/action"], RobotAction) as reader:
        yield reader


def ask(driven: Any, command: Any) -> Any:
    return driven.service.commands[type(command)](command)


def latest(driven: Any, reader: Queued[Any]) -> Any:
    """The newest message published, which may still be on its way."""
    tell = driven.service._tell
    publisher = tell.states if reader.topic.name == "robot/state" else tell.actions
    while (received := reader.receive(5.0)) is not None:
        if received.message.seq == publisher.sent - 1:
            return received.message
    raise AssertionError("nothing was published")


def listen(driven: Any, *readers: Queued[Any]) -> None:
    """Turn until every reader is connected, and forget what came."""
    waiting = list(readers)
    driven.turn_until(lambda: not [r for r in waiting if r.receive() is None] or not waiting)
    for reader in readers:
        list(reader.drain())


def test_a_state_says_where_the_arm_is_and_that_it_holds(
    drive: Drive, device: Any, states: Queued[RobotState]
) -> None:
    device.place("shoulder_lift", -40.0)
    driven = drive()
    listen(driven, states)
    driven.turn(70)
    state = latest(driven, states)
    assert (state.valid, state.torque, state.faults, state.reason) == (True, True, {}, "")
    assert state.position["shoulder_lift"] == pytest.approx(-40.0, abs=0.2)
    assert set(state.position) == set(state.velocity) == set(state.temperature) == set(JOINTS)


def test_a_goal_moves_the_arm_and_the_reply_and_the_action_say_what_was_sent(
    drive: Drive, device: Any, actions: Queued[RobotAction]
) -> None:
    driven = drive()
    listen(driven, actions)
    sent = ask(driven, Goal(position={"elbow_flex": 12.0, "gripper": 60.0}, source="script")).position
    assert sent == {"elbow_flex": 12.0, "gripper": 60.0}
    driven.turn_until(lambda: driven.service._pursuit.goal.position["elbow_flex"] == 12.0)
    action = latest(driven, actions)
    assert (action.valid, action.source) == (True, "script")
    assert action.position["elbow_flex"] == action.asked["elbow_flex"] == 12.0
    assert action.position["wrist_roll"] == pytest.approx(0.0, abs=0.2)  # it stays where it was told to be
    driven.turn_until(lambda: abs(device.position("elbow_flex") - 12.0) < 0.2)


def test_a_far_goal_is_limited_around_where_the_arm_is(
    drive: Drive, device: Any, actions: Queued[RobotAction]
) -> None:
    driven = drive(max_relative_target=15.0)
    device.blocked = set(JOINTS)
    listen(driven, actions)
    for _ in range(3):  # it does not add up while the arm cannot follow
        sent = ask(driven, Goal(position={"elbow_flex": 80.0})).position
        driven.turn()
    assert sent["elbow_flex"] == pytest.approx(15.0, abs=0.2)
    driven.turn_until(lambda: driven.service._pursuit.goal.position["elbow_flex"] == sent["elbow_flex"])
    driven.turn()  # what is read comes after what was written
    assert device.goal("elbow_flex") == pytest.approx(15.0, abs=0.2)
    action = latest(driven, actions)
    assert (action.position["elbow_flex"], action.asked["elbow_flex"]) == (sent["elbow_flex"], 80.0)


def test_an_action_tells_when_it_was_sent_and_goes_on_being_told(
    drive: Drive, actions: Queued[RobotAction]
) -> None:
    from gripwire import clock

    driven = drive()
    listen(driven, actions)
    before = clock.monotonic_ns()
    ask(driven, Goal(position={"gripper": 55.0}))
    after = clock.monotonic_ns()
    driven.turn(5)
    told = latest(driven, actions)
    assert before <= told.t_capture <= after
    assert told.seq >= 4


def test_two_goals_within_one_tick_are_both_told(drive: Drive, actions: Queued[RobotAction]) -> None:
    driven = drive()
    listen(driven, actions)
    ask(driven, Goal(position={"gripper": 52.0}))
    ask(driven, Goal(position={"gripper": 54.0}))
    driven.turn()
    told = [actions.receive(5.0) for _ in range(2)]
    assert [t and t.message.asked["gripper"] for t in told] == [52.0, 54.0]


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"elbow_flex": math.nan}, "finite"),
        ({"tail": 1.0}, "no joint `tail`"),
        ({"elbow_flex": 150.0}, "its range is -97 to 97"),
        ({}, "at least one joint"),
    ],
)
def test_a_bad_goal_is_refused_and_changes_nothing(
    drive: Drive, device: Any, goal: dict[str, float], words: str
) -> None:
    driven = drive()
    driven.turn()
    before = {name: device.goal(name) for name in JOINTS}
    with pytest.raises(UserError, match=words):
        ask(driven, Goal(position=goal))
    with pytest.raises(UserError, match=words):
        ask(driven, Reset(position=goal))
    driven.turn(3)
    assert {name: device.goal(name) for name in JOINTS} == before


def test_a_reset_goes_smoothly_to_the_pose_and_the_replies_do_not_wait(
    drive: Drive, device: Any, actions: Queued[RobotAction]
) -> None:
    driven = drive()
    listen(driven, actions)
    begin = time.monotonic()
    ask(driven, Reset(position={"elbow_flex": 60.0, "wrist_roll": -30.0}, seconds=0.6))
    assert time.monotonic() - begin < 0.3
    driven.turn_until(lambda: not driven.service._pursuit.moving)
    driven.turn_until(lambda: abs(device.position("elbow_flex") - 60.0) < 0.3)
    assert 0.5 < time.monotonic() - begin < 3.0
    told = [received.message for received in actions.drain()]
    while told[-1].seq < driven.service._tell.actions.sent - 1:
        received = actions.receive(5.0)
        assert received
        told.append(received.message)
    assert {action.source for action in told} == {"reset"}
    assert all(action.asked["elbow_flex"] == 60.0 for action in told)
    way = [action.position["elbow_flex"] for action in told]
    assert way == sorted(way)
    assert way[-1] == 60.0
    assert device.position("wrist_roll") == pytest.approx(-30.0, abs=0.3)


def test_a_reset_without_a_pose_goes_to_the_start_pose(drive: Drive, device: Any) -> None:
    driven = drive(start_pose={"shoulder_pan": 14.0, "gripper": 80.0})
    ask(driven, Reset(seconds=0.3, jitter_xy=0.0, jitter_z=0.0))
    driven.turn_until(
        lambda: abs(device.position("shoulder_pan") - 14) < 0.3 and abs(device.position("gripper") - 80) < 0.5
    )


def test_the_newest_command_wins(drive: Drive, device: Any) -> None:
    driven = drive(**FAR)
    ask(driven, Reset(position={"elbow_flex": 60.0}, seconds=1.0))
    driven.turn(5)
    ask(driven, Goal(position={"elbow_flex": -20.0}))
    driven.turn_until(lambda: abs(device.position("elbow_flex") + 20.0) < 0.3)
    driven.turn(20)
    assert device.position("elbow_flex") == pytest.approx(-20.0, abs=0.3)


def test_a_reset_that_is_too_fast_or_endless_is_refused(drive: Drive) -> None:
    driven = drive()
    with pytest.raises(UserError, match=r"at least 0\.7 s"):
        ask(driven, Reset(position={"elbow_flex": 90.0}, seconds=0.1))
    for seconds in (0.0, -1.0, math.nan, 61.0):
        with pytest.raises(UserError, match="at most 60 seconds"):
            ask(driven, Reset(position={"elbow_flex": 9.0}, seconds=seconds))


def test_a_blocked_arm_is_not_pushed_on_by_a_reset(drive: Drive, device: Any) -> None:
    driven = drive(max_relative_target=10.0)
    device.blocked = {"elbow_flex"}
    ask(driven, Reset(position={"elbow_flex": 60.0}, seconds=0.5))
    driven.turn_until(lambda: not driven.service._pursuit.moving)
    assert device.goal("elbow_flex") == pytest.approx(10.0, abs=0.2)


def test_release_makes_it_limp_and_hold_keeps_the_pose_it_is_in(
    drive: Drive, device: Any, states: Queued[RobotState], actions: Queued[RobotAction]
) -> None:
    driven = drive()
    listen(driven, states, actions)
    ask(driven, Release())
    driven.turn()
    assert not any(device.torque.values())
    assert not latest(driven, states).torque
    assert not latest(driven, actions).valid
    device.place("elbow_flex", 44.0)
    driven.turn()
    ask(driven, Hold())
    driven.turn(3)
    assert all(device.torque.values())
    assert device.position("elbow_flex") == pytest.approx(44.0, abs=0.2)
    action = latest(driven, actions)
    assert (action.valid, action.source) == (True, "hold")
    assert action.position["elbow_flex"] == pytest.approx(44.0, abs=0.2)


def test_a_goal_for_a_limp_arm_turns_torque_on_where_each_joint_is(drive: Drive, device: Any) -> None:
    driven = drive()
    ask(driven, Release())
    device.place("elbow_flex", 44.0)
    driven.turn()
    ask(driven, Goal(position={"gripper": 55.0}))
    driven.turn_until(lambda: abs(device.position("gripper") - 55.0) < 0.5)
    assert all(device.torque.values())
    assert device.position("elbow_flex") == pytest.approx(44.0, abs=0.2)


def test_a_silent_servo_makes_states_invalid_and_names_the_joint(
    drive: Drive, device: Any, states: Queued[RobotState]
) -> None:
    driven = drive()
    listen(driven, states)
    device.silence("wrist_flex")
    driven.turn()
    state = latest(driven, states)
    assert not state.valid
    assert state.faults == {"wrist_flex": "does not answer"}
    assert state.reason == "wrist_flex (does not answer)"
    assert state.retries > 0
    driven.turn_until(lambda: "wrist_flex (does not answer)" in driven.runtime.problems)
    sent = ask(driven, Goal(position={"wrist_flex": 9.0, "elbow_flex": 9.0})).position
    assert sent == {"elbow_flex": 9.0}
    with pytest.raises(UserError, match="wrist_flex does not answer"):
        ask(driven, Goal(position={"wrist_flex": 9.0}))
    device.silence()
    driven.turn_until(lambda: not driven.runtime.problems)
    driven.turn()
    assert latest(driven, states).valid


def test_a_goal_from_before_a_silence_is_void_for_the_joint_that_returns(drive: Drive, device: Any) -> None:
    driven = drive(**FAR)
    device.blocked = {"wrist_flex"}
    ask(driven, Goal(position={"wrist_flex": 70.0}))
    device.silence("wrist_flex")
    driven.turn(2)
    device.power_cycle("wrist_flex")
    device.blocked = set()
    device.silence()
    driven.turn_until(lambda: device.torque["wrist_flex"])
    driven.turn(10)
    assert device.position("wrist_flex") == pytest.approx(0.0, abs=0.3)


def test_a_short_silence_does_not_make_the_arm_forget_its_goal(
    drive: Drive, device: Any, states: Queued[RobotState]
) -> None:
    driven = drive(**FAR)
    device.blocked = {"gripper"}  # it grips something
    ask(driven, Goal(position={"gripper": 10.0}))
    driven.turn_until(lambda: device.goal("gripper") == pytest.approx(10.0, abs=0.5))
    device.silence(*JOINTS)
    driven.turn(2)
    assert not latest(driven, states).valid
    device.silence()
    driven.turn_until(lambda: driven.service._arm.read().fresh)
    driven.turn(5)
    assert latest(driven, states).valid
    assert device.goal("gripper") == pytest.approx(10.0, abs=0.5)
    assert driven.service._pursuit.goal.position["gripper"] == 10.0


def test_a_port_that_vanishes_and_returns_is_taken_up_holding_still(
    drive: Drive, device: Any, states: Queued[RobotState]
) -> None:
    driven = drive(**FAR)
    listen(driven, states)
    ask(driven, Goal(position={"elbow_flex": 30.0}))
    driven.turn_until(lambda: abs(device.position("elbow_flex") - 30.0) < 0.3)
    device.unplug()
    driven.turn(3)
    state = latest(driven, states)
    assert not state.valid
    assert "is gone" in state.reason
    assert "is gone" in driven.runtime.problems
    with pytest.raises(UserError, match=r"is gone|does not exist"):
        ask(driven, Goal(position={"elbow_flex": 0.0}))
    for name in JOINTS:
        device.power_cycle(name)
    device.place("elbow_flex", -15.0)
    device.plug()
    driven.turn_until(lambda: not driven.runtime.problems)
    list(states.drain())
    driven.turn(10)
    assert latest(driven, states).valid
    assert all(device.torque.values())
    assert device.position("elbow_flex") == pytest.approx(-15.0, abs=0.3)


def test_an_arm_that_was_limp_when_the_port_went_is_limp_when_it_returns(drive: Drive, device: Any) -> None:
    driven = drive()
    ask(driven, Release())
    device.unplug()
    driven.turn(3)
    device.plug()
    driven.turn_until(lambda: not driven.runtime.problems)
    assert not any(device.torque.values())


def test_the_end_after_a_failure_cuts_torque_at_once_without_moving(drive: Drive, device: Any) -> None:
    driven = drive()
    driven.turn(2)
    moved = dict(device.moved_by)
    begin = time.monotonic()
    driven.service.close(failed=True)
    assert time.monotonic() - begin < 0.5
    assert not any(device.torque.values())
    assert device.moved_by == moved


def test_the_end_goes_to_the_rest_pose_and_then_cuts_torque(
    drive: Drive, device: Any, actions: Queued[RobotAction]
) -> None:
    driven = drive(rest_pose={"elbow_flex": 40.0})
    listen(driven, actions)
    begin = time.monotonic()
    driven.service.close(failed=False)
    assert time.monotonic() - begin < 3.5
    assert device.position("elbow_flex") == pytest.approx(40.0, abs=3.0)
    assert not any(device.torque.values())
    assert "rest" in {received.message.source for received in actions.drain()}


def test_the_rest_move_takes_at_most_its_time_even_if_blocked(drive: Drive, device: Any) -> None:
    driven = drive(rest_pose={"elbow_flex": 60.0}, rest_seconds=0.8)
    device.blocked = {"elbow_flex"}
    begin = time.monotonic()
    driven.service.close(failed=False)
    assert time.monotonic() - begin < 2.0
    assert not any(device.torque.values())


def test_a_limp_arm_is_not_moved_at_the_end(drive: Drive, device: Any) -> None:
    driven = drive()
    ask(driven, Release())
    moved = dict(device.moved_by)
    driven.service.close(failed=False)
    assert device.moved_by == moved


def test_a_servo_that_falls_silent_at_the_end_does_not_keep_the_others_burning(
    drive: Drive, device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    driven = drive(rest_seconds=0.3)
    device.silence("shoulder_lift")
    driven.service.close(failed=False)
    assert [name for name, on in device.torque.items() if on] == ["shoulder_lift"]
    assert "torque could not be cut at shoulder_lift" in caplog.text


def test_a_port_lost_at_the_end_is_said_and_nothing_hangs(
    drive: Drive, device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    driven = drive()
    device.unplug()
    driven.service.close(failed=False)
    assert "torque could not be cut" in caplog.text


def test_a_missing_motor_at_the_start_is_one_sentence_and_leaves_the_others_limp(
    drive: Drive, device: Any
) -> None:
    device.silence("gripper")
    with pytest.raises(UserError, match=r"no answer from gripper \(motor 6\)") as refused:
        drive()
    assert "\n" not in str(refused.value)
    assert not any(device.torque.values())
