"""The leader drives: two arms on two serial ports, LeRobot's drivers at both."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gripwire.bus import Queued
from gripwire.errors import UserError
from gripwire.messages import (
    JOINTS,
    Drive,
    Goal,
    Hold,
    Intervene,
    Reset,
    RobotAction,
    Teleoperate,
    Yield,
)  # fmt: skip
from gripwire.topics import Topics
from gripwire_sim import joints
from gripwire_sim.arms import Leader
from gripwire_sim.servo_bus import ServoBus

Make = Callable[..., Any]


@dataclass
class Hand:
    """The leader arm, and the hand that moves it."""

    arm: Leader
    folder: Path
    bus: ServoBus | None = None

    def plug(self) -> None:
        self.bus = ServoBus(self.arm.chain, self.folder / "leader")

    def unplug(self) -> None:
        if self.bus:
            self.bus.close()
        self.bus = None

    def move(self, seconds: float = 0.0, **position: float) -> None:
        self.arm.move(position, seconds)


@pytest.fixture
def hand(device: Any) -> Iterator[Hand]:
    start = joints.to_radians(dict.fromkeys(JOINTS, 0.0) | {"gripper": 50.0})
    built = Hand(Leader(start), device.folder)
    built.plug()
    yield built
    built.unplug()


@pytest.fixture
def lead(drive: Make, device: Any, hand: Hand) -> Make:
    """A robot service whose leader is there."""

    def make(**robot: Any) -> Any:
        driven = drive(
            leader_port=str(device.folder / "leader"), leader_id="follower",
            leader_calibration_dir=device.folder, **robot,
        )  # fmt: skip
        driven.turn_until(lambda: driven.service._teleop._leader.sample is not None)
        return driven

    return make


def ask(driven: Any, command: Any) -> Any:
    return driven.service.commands[type(command)](command)


def goal(driven: Any) -> Any:
    return driven.service._pursuit.goal


def test_the_follower_follows_the_leader_and_the_action_says_who_and_how_late(
    lead: Make, device: Any, hand: Hand, topics: Topics
) -> None:
    driven = lead()
    with Queued(topics["robot/action"], RobotAction) as actions:
        ask(driven, Teleoperate(on=True, by="ada"))
        hand.move(0.5, elbow_flex=25.0, gripper=80.0)
        driven.turn_until(lambda: abs(device.position("elbow_flex") - 25.0) < 1.0)
        driven.turn_until(lambda: abs(device.position("gripper") - 80.0) < 1.0)
        told = [received.message for received in actions.drain()][-1]
    assert (told.source, told.driver, told.intervention) == ("leader", "ada", False)
    assert told.latency_ms is not None and 0 < told.latency_ms < 1000
    assert driven.runtime.counts["leader_goals"] > 10
    assert ask(driven, Teleoperate(on=False, by="ada")).text.startswith("the leader no longer drives")
    hand.move(elbow_flex=0.0)
    driven.turn(10)
    assert device.position("elbow_flex") == pytest.approx(25.0, abs=2.5)


def test_more_goals_than_ticks_reach_the_servos(lead: Make, device: Any) -> None:
    driven = lead()
    ask(driven, Teleoperate(on=True, by="ada"))
    begin, ticks = driven.runtime.counts["leader_goals"], driven.service._ticks

    def more() -> bool:
        turned = driven.service._ticks - ticks
        return turned > 50 and driven.runtime.counts["leader_goals"] - begin > 1.2 * turned

    driven.turn_until(more)


def test_a_leader_that_is_elsewhere_is_gone_to_slowly(lead: Make, device: Any, hand: Hand) -> None:
    driven = lead(max_relative_target=500.0)
    hand.move(elbow_flex=60.0)
    ask(driven, Teleoperate(on=True, by="ada"))
    began = time.monotonic()
    driven.turn_until(lambda: abs(device.position("elbow_flex") - 60.0) < 3.0)
    assert time.monotonic() - began > 0.8  # at 60 degrees a second


def test_others_are_refused_while_the_leader_drives_and_hold_ends_it(lead: Make, device: Any) -> None:
    driven = lead()
    ask(driven, Teleoperate(on=True, by="ada"))
    with pytest.raises(UserError, match="ada drives the arm"):
        ask(driven, Goal(position={"gripper": 55.0}, by="policy"))
    with pytest.raises(UserError, match="the leader drives already"):
        ask(driven, Teleoperate(on=True, by="bob"))
    ask(driven, Hold(by="bob"))
    driven.turn(3)
    assert (goal(driven).source, driven.service._teleop.mode) == ("hold", "")
    ask(driven, Goal(position={"gripper": 55.0}, by="policy"))


def test_teleoperation_does_not_take_the_arm_from_a_policy(lead: Make) -> None:
    driven = lead()
    ask(driven, Drive(by="policy"))
    with pytest.raises(UserError, match="policy drives the arm"):
        ask(driven, Teleoperate(on=True, by="ada"))


def test_a_reset_by_the_same_name_pauses_the_leader(lead: Make, device: Any) -> None:
    driven = lead()
    ask(driven, Teleoperate(on=True, by="ada"))
    driven.turn(5)
    ask(driven, Reset(position={"elbow_flex": 20.0}, seconds=0.5, by="ada"))
    driven.turn_until(lambda: device.position("elbow_flex") > 15.0)
    driven.turn_until(lambda: goal(driven).source == "leader")
    driven.turn_until(lambda: device.position("elbow_flex") < 1.0)


def test_an_intervention_answers_the_policy_with_what_is_really_sent(
    lead: Make, device: Any, hand: Hand, topics: Topics
) -> None:
    driven = lead()
    ask(driven, Drive(by="policy"))
    ask(driven, Goal(position={"elbow_flex": 5.0}, by="policy"))
    ask(driven, Intervene(on=True, by="ada"))
    hand.move(wrist_flex=15.0)
    with Queued(topics["robot/action"], RobotAction) as actions:

        def there() -> bool:
            sent = ask(driven, Goal(position={"elbow_flex": 9.0}, by="policy"))
            assert sent.intervention and sent.position == goal(driven).position
            return abs(device.position("wrist_flex") - 15.0) < 1.0

        driven.turn_until(there)
        driven.turn(2)
        told = [received.message for received in actions.drain()][-1]
    assert (told.source, told.driver, told.intervention) == ("leader", "policy", True)
    assert device.position("elbow_flex") == pytest.approx(0.0, abs=1.0)
    ask(driven, Intervene(on=False, by="ada"))
    sent = ask(driven, Goal(position={"elbow_flex": 9.0}, by="policy"))
    assert (sent.intervention, sent.position) == (False, {"elbow_flex": 9.0})
    driven.turn(2)
    assert not goal(driven).intervention


def test_the_arm_that_is_given_back_to_a_policy_that_is_gone_holds(lead: Make) -> None:
    driven = lead()
    ask(driven, Drive(by="policy"))
    ask(driven, Intervene(on=True, by="ada"))
    driven.turn(3)
    ask(driven, Intervene(on=False, by="ada"))
    driven.turn_until(lambda: "policy stopped sending goals" in driven.runtime.problems)


def test_nobody_is_taken_over_from_where_nobody_drives(lead: Make) -> None:
    with pytest.raises(UserError, match="nobody drives the arm"):
        ask(lead(), Intervene(on=True, by="ada"))


def test_a_hand_that_moves_the_leader_takes_over_where_that_is_set(
    lead: Make, device: Any, hand: Hand
) -> None:
    driven = lead(takeover=True, takeover_deg=8.0)

    def policy() -> bool:
        return bool(ask(driven, Goal(position={"elbow_flex": 5.0}, by="policy")).intervention)

    end = time.monotonic() + 0.7
    driven.turn_until(lambda: policy() or time.monotonic() > end)
    assert not policy(), "nobody has touched the leader"
    hand.move(0.3, shoulder_pan=20.0)
    driven.turn_until(policy)
    driven.turn_until(lambda: policy() and abs(device.position("shoulder_pan") - 20.0) < 1.0)


@pytest.mark.parametrize("how", ["unplugged", "silent"])
def test_a_leader_that_is_gone_leaves_the_arm_holding_and_the_policy_told(
    lead: Make, device: Any, hand: Hand, how: str
) -> None:
    driven = lead()
    ask(driven, Drive(by="policy", lease_s=60.0))
    ask(driven, Intervene(on=True, by="ada"))
    driven.turn_until(lambda: goal(driven).source == "leader")
    if how == "unplugged":
        hand.unplug()
    else:
        hand.arm.chain.silent = set(range(1, 7))
    driven.turn_until(lambda: goal(driven).source == "hold")
    assert "the arm holds" in goal(driven).reason
    assert "leader" in driven.runtime.problems
    with pytest.raises(UserError, match=r"leader.* ask for the arm again"):
        ask(driven, Goal(position={"elbow_flex": 9.0}, by="policy"))
    ask(driven, Drive(by="policy"))
    assert not ask(driven, Goal(position={"elbow_flex": 9.0}, by="policy")).intervention
    ask(driven, Yield(by="policy"))
    if how == "unplugged":
        hand.plug()
    hand.arm.chain.silent = set()
    before = driven.service._teleop._leader.sample
    driven.turn_until(lambda: driven.service._teleop._leader.sample is not before)
    ask(driven, Teleoperate(on=True, by="ada"))


def test_without_a_leader_the_remedy_is_said(drive: Make) -> None:
    with pytest.raises(UserError, match=r"no leader arm is set.*--leader-port"):
        ask(drive(), Teleoperate(on=True, by="ada"))
