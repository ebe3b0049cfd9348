"""Driving the arm by goals: at a limited speed, watched for silence, strain and heat."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from gripwire.bus import Queued
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Drive, Goal, Hold, Release, Reset, RobotAction, RobotState, Yield
from gripwire.topics import Topics

Make = Callable[..., Any]
DEADLINE_S = 30.0


def ask(driven: Any, command: Any) -> Any:
    return driven.service.commands[type(command)](command)


def whole(**goal: float) -> dict[str, float]:
    return dict.fromkeys(JOINTS, 0.0) | {"gripper": 50.0} | goal


def stream(
    driven: Any, seconds: float, goal: Callable[[float], dict[str, float]], by: str = "policy"
) -> None:
    """Goals at the service's rate, each a function of the time since the first."""
    began = time.monotonic()

    def send() -> bool:
        ask(driven, Goal(position=goal(time.monotonic() - began), by=by))
        return time.monotonic() - began > seconds

    driven.turn_until(send)


def action(driven: Any) -> Any:
    return driven.service._pursuit.goal


def test_a_goal_is_reached_no_faster_than_the_speed_allows(drive: Make, device: Any, topics: Topics) -> None:
    driven = drive(max_speed=30.0)
    with Queued(topics["robot/action"], RobotAction) as actions:
        driven.turn_until(lambda: actions.receive() is not None)
        list(actions.drain())
        began = time.monotonic()
        sent = ask(driven, Goal(position={"elbow_flex": 15.0}, by="ada"))
        assert sent.position == {"elbow_flex": 15.0}  # where it is sent, however long it takes
        driven.turn_until(lambda: action(driven).position["elbow_flex"] == 15.0)
        assert 0.4 < time.monotonic() - began < 5.0
        driven.turn()
        told = [received.message for received in actions.drain()]
    steps = [(b.position["elbow_flex"] - a.position["elbow_flex"]) for a, b in itertools.pairwise(told)]
    assert all(0 <= step <= 30.0 * 1.5 / 60 + 1e-6 for step in steps)
    assert {a.asked["elbow_flex"] for a in told if a.source == "policy"} == {15.0}


def test_two_drivers_at_once_are_one_too_many(drive: Make) -> None:
    driven = drive()
    ask(driven, Goal(position={"gripper": 52.0}, by="ada"))
    with pytest.raises(UserError, match="ada drives the arm"):
        ask(driven, Goal(position={"gripper": 40.0}, by="bob"))
    with pytest.raises(UserError, match="ada drives the arm"):
        ask(driven, Reset(by="bob"))
    ask(driven, Yield(by="ada"))
    ask(driven, Reset(position={"gripper": 60.0}, seconds=0.4, by="bob"))
    with pytest.raises(UserError, match="bob drives the arm"):
        ask(driven, Goal(position={"gripper": 40.0}, by="ada"))
    driven.turn_until(lambda: not driven.service._pursuit.moving)
    ask(driven, Goal(position={"gripper": 58.0}, by="ada"))


def test_a_hand_over_by_force_stops_the_arm_and_the_loser_is_told(drive: Make, device: Any) -> None:
    driven = drive()
    ask(driven, Drive(by="ada"))
    ask(driven, Goal(position={"elbow_flex": 10.0}, by="ada"))
    ask(driven, Drive(by="bob", force=True))
    assert "bob took the arm from ada" in action(driven).reason
    with pytest.raises(UserError, match="bob drives the arm"):
        ask(driven, Goal(position={"elbow_flex": 12.0}, by="ada"))
    ask(driven, Goal(position={"elbow_flex": 5.0}, by="bob"))


def test_a_jump_is_refused_and_a_grippers_is_not(drive: Make) -> None:
    driven = drive(max_jump=40.0)
    with pytest.raises(UserError, match=r"elbow_flex is 60 degrees, \+60 from where it is, .* jump by 40"):
        ask(driven, Goal(position={"elbow_flex": 60.0}, by="ada"))
    ask(driven, Goal(position={"gripper": 0.0}, by="ada"))


def test_a_stream_that_stops_ends_where_the_arm_is_and_says_who_stopped(
    drive: Make, device: Any, topics: Topics
) -> None:
    driven = drive()
    with Queued(topics["robot/action"], RobotAction) as actions:
        stream(driven, 0.6, lambda t: whole(elbow_flex=40 * t), by="policy-7")
        last = time.monotonic()
        driven.turn_until(lambda: action(driven).source == "hold")
        assert 0.45 < time.monotonic() - last < 5.0
        told = "policy-7 stopped sending goals: the arm holds where it is"
        assert action(driven).reason == told
        assert told in driven.runtime.problems
        driven.turn(2)
        newest = [received.message for received in actions.drain()][-1]
    assert (newest.driver, newest.source, newest.valid) == ("", "hold", True)
    assert device.goal("elbow_flex") == pytest.approx(device.position("elbow_flex"), abs=1.0)
    ask(driven, Goal(position={"elbow_flex": 20.0}, by="somebody else"))
    assert not driven.runtime.problems


def test_a_driver_who_yields_is_not_missed(drive: Make) -> None:
    driven = drive()
    stream(driven, 0.2, lambda t: whole(elbow_flex=10 * t))
    ask(driven, Yield(by="policy"))
    end = time.monotonic() + 0.8
    driven.turn_until(lambda: time.monotonic() > end)
    assert action(driven).source == "policy"
    assert not driven.runtime.problems


def test_a_single_goal_is_reached_though_nobody_repeats_it(drive: Make, device: Any) -> None:
    driven = drive(max_speed=10.0)
    ask(driven, Goal(position={"elbow_flex": 8.0}, by="ada"))
    driven.turn_until(lambda: abs(device.position("elbow_flex") - 8.0) < 0.3)
    assert action(driven).source == "policy"
    assert not driven.runtime.problems


def test_a_grip_is_held_by_the_watchdog_and_by_hold(drive: Make, device: Any) -> None:
    driven = drive()
    device.blocked = {"gripper"}  # on a cube, at 50 %
    stream(driven, 0.4, lambda t: whole(gripper=35.0))
    driven.turn_until(lambda: action(driven).source == "hold")
    assert device.goal("gripper") == pytest.approx(35.0, abs=1.0)
    ask(driven, Hold(by="ada"))
    driven.turn(3)
    assert device.goal("gripper") == pytest.approx(35.0, abs=1.0)
    ask(driven, Release(by="ada"))
    ask(driven, Hold(by="ada"))
    driven.turn(3)
    assert device.goal("gripper") == pytest.approx(50.0, abs=1.0)  # a limp gripper has let go


def test_a_stop_by_another_lasts_while_goals_go_on(drive: Make, device: Any) -> None:
    driven = drive()
    ask(driven, Drive(by="policy"))
    stream(driven, 0.2, lambda t: whole(elbow_flex=10 * t))
    ask(driven, Release(by="ada"))
    for _ in range(3):
        with pytest.raises(UserError, match="released by ada: ask for the arm again with `Drive`"):
            ask(driven, Goal(position=whole(), by="policy"))
    assert not any(device.torque.values())
    ask(driven, Drive(by="policy"))
    ask(driven, Goal(position=whole(), by="policy"))
    assert all(device.torque.values())


def test_a_blocked_joint_is_not_pushed_for_longer_than_allowed(drive: Make, device: Any) -> None:
    driven = drive(max_current_s=0.5)
    device.blocked, device.load = {"elbow_flex"}, {"elbow_flex": 0.9}

    def refused() -> bool:
        try:
            ask(driven, Goal(position=whole(elbow_flex=15.0), by="policy"))
        except UserError as e:
            return "elbow_flex drew 2158 mA" in str(e)
        return False

    driven.turn_until(refused)
    # Goals are written without an acknowledgement: the servo has it a moment later.
    driven.turn_until(lambda: device.goal("elbow_flex") == pytest.approx(0.0, abs=0.5))
    assert "something blocks it" in driven.runtime.problems
    assert action(driven).source == "hold"


def test_heat_holds_the_arm_then_cuts_torque_and_names_the_joint(
    drive: Make, device: Any, topics: Topics
) -> None:
    driven = drive()
    with Queued(topics["robot/state"], RobotState) as states:
        device.temperature["wrist_flex"] = 66.0
        driven.turn_until(lambda: action(driven).reason.startswith("wrist_flex (66 C) is too hot"))
        with pytest.raises(UserError, match=r"wrist_flex .* too hot: let it cool below 63 C"):
            ask(driven, Goal(position={"gripper": 55.0}, by="ada"))
        assert all(device.torque.values())
        device.temperature["wrist_flex"] = 69.0
        driven.turn_until(lambda: not any(device.torque.values()))
        driven.turn(2)
        told = [received.message for received in states.drain()][-1]
    assert told.faults["wrist_flex"] == "too hot: 69 C"
    assert not told.torque
    device.temperature["wrist_flex"] = 50.0
    driven.turn(2)
    ask(driven, Goal(position={"gripper": 55.0}, by="ada"))
    assert all(device.torque.values())


def test_a_gripper_that_presses_is_relaxed_and_the_state_says_so(
    drive: Make, device: Any, topics: Topics
) -> None:
    driven = drive(gripper_stall_s=0.5)
    device.blocked, device.load = {"gripper"}, {"gripper": -0.5}
    with Queued(topics["robot/state"], RobotState) as states:
        stream(driven, 1.5, lambda t: whole(gripper=35.0))
        told = [received.message for received in states.drain()][-1]
    assert told.notes["gripper"] == "holds something at 50 % and presses less"
    assert told.faults == {} and "gripper" not in driven.runtime.problems
    assert device.goal("gripper") == pytest.approx(47.0, abs=1.0)
    assert device.servos["gripper"].get("Torque_Limit") == 250
    assert ask(driven, Goal(position=whole(gripper=35.0), by="policy")).position["gripper"] > 46
    stream(driven, 0.2, lambda t: whole(gripper=60.0))
    assert device.servos["gripper"].get("Torque_Limit") == 500


def test_after_the_port_was_gone_no_old_stream_moves_the_arm(drive: Make, device: Any) -> None:
    driven = drive()
    ask(driven, Drive(by="policy", lease_s=60.0))
    stream(driven, 0.2, lambda t: whole(elbow_flex=10 * t))
    device.unplug()
    driven.turn(2)
    device.plug()
    driven.turn_until(lambda: driven.service._arm.connected)
    with pytest.raises(UserError, match="port was gone meanwhile: ask for the arm again"):
        ask(driven, Goal(position=whole(), by="policy"))
    ask(driven, Drive(by="policy"))
    ask(driven, Goal(position=whole(), by="policy"))
