"""Heat, current and a gripper that presses: pure, one reading after another."""

from collections.abc import Mapping
from typing import Any

from gripwire.messages import JOINTS
from gripwire_robot.protection import Protection, Verdict
from gripwire_robot.settings import Robot

HZ = 60


class Watched:
    """Readings at 60 Hz; each call says what is different from a cool arm at rest."""

    def __init__(self, **settings: Any) -> None:
        self.protection = Protection(Robot(**settings))
        self.now = 0.0

    def see(
        self, seconds: float = 0.0, celsius: Mapping[str, float] = {}, ma: Mapping[str, float] = {},
        at: Mapping[str, float] = {}, goal: Mapping[str, float] = {},
    ) -> list[Verdict]:  # fmt: skip
        verdicts = []
        for _ in range(max(1, round(seconds * HZ))):
            self.now += 1 / HZ
            position = dict.fromkeys(JOINTS, 50.0) | dict(at)
            asked = position | dict(goal)
            verdicts.append(
                self.protection.see(
                    self.now, position, dict.fromkeys(JOINTS, 31.0) | dict(celsius),
                    dict.fromkeys(JOINTS, 80.0) | dict(ma), self.protection.cap(asked), asked,
                )
            )  # fmt: skip
        return verdicts


def test_a_cool_arm_at_rest_gives_no_cause() -> None:
    assert Watched().see(5.0)[-1] == Verdict()


def test_a_warm_motor_is_named_before_anything_is_done() -> None:
    verdict = Watched().see(1.0, celsius={"elbow_flex": 62.0})[-1]
    assert (verdict.faults, verdict.hot, verdict.limp) == ({"elbow_flex": "hot: 62 C"}, "", False)


def test_a_hot_motor_stops_motion_until_it_has_cooled() -> None:
    arm = Watched()
    hot = arm.see(1.0, celsius={"elbow_flex": 66.0})[-1]
    assert hot.hot.startswith("elbow_flex (66 C) is too hot") and not hot.limp
    assert arm.see(1.0, celsius={"elbow_flex": 64.0})[-1].hot, "it must not switch to and fro"
    assert not arm.see(1.0, celsius={"elbow_flex": 62.0})[-1].hot


def test_torque_goes_before_the_servo_lets_go_by_itself_at_70() -> None:
    arm = Watched()
    assert arm.see(1.0, celsius={"gripper": 68.0})[-1].limp
    assert Robot().max_temperature_c + 3 < 70


def test_one_wrong_reading_of_a_temperature_stops_nothing() -> None:
    arm = Watched()
    assert not arm.see(celsius={"gripper": 120.0})[-1].limp
    assert not arm.see(1.0)[-1].hot


def test_a_blocked_joint_stops_the_arm_once_and_again_if_it_goes_on() -> None:
    arm = Watched(max_current_ma=1000, max_current_s=1.0)
    holds = [v.hold for v in arm.see(2.5, ma={"elbow_flex": 1600.0}) if v.hold]
    assert len(holds) == 2
    assert holds[0].startswith("elbow_flex drew 1600 mA for 1.0 s (`max_current_ma` is 1000)")


def test_a_short_effort_stops_nothing() -> None:
    arm = Watched(max_current_ma=1000, max_current_s=1.0)
    for _ in range(5):
        assert not any(v.hold for v in arm.see(0.9, ma={"elbow_flex": 1600.0}))
        arm.see(0.1)


def test_a_gripper_that_presses_is_relaxed_to_a_squeeze_and_this_is_a_note() -> None:
    arm = Watched(gripper_stall_s=1.0, gripper_squeeze=3.0)
    closing = {"at": {"gripper": 22.0}, "goal": {"gripper": 1.0}, "ma": {"gripper": 1200.0}}
    before = arm.see(0.9, **closing)[-1]
    assert (before.notes, arm.protection.cap({"gripper": 1.0})) == ({}, {"gripper": 1.0})
    after = arm.see(0.3, **closing)[-1]
    assert after.notes == {"gripper": "holds something at 22 % and presses less"}
    assert (after.faults, after.hold) == ({}, "")
    assert arm.protection.cap({"gripper": 1.0, "elbow_flex": 4.0}) == {"gripper": 19.0, "elbow_flex": 4.0}


def test_a_relaxed_gripper_opens_at_once_and_may_press_again_after_that() -> None:
    arm = Watched(gripper_stall_s=1.0)
    arm.see(1.3, at={"gripper": 22.0}, goal={"gripper": 1.0}, ma={"gripper": 1200.0})
    assert arm.protection.relaxed
    arm.see(at={"gripper": 22.0}, goal={"gripper": 40.0})
    assert not arm.protection.relaxed
    assert arm.protection.cap({"gripper": 1.0}) == {"gripper": 1.0}


def test_a_gripper_whose_cube_is_gone_closes_all_the_way() -> None:
    arm = Watched(gripper_stall_s=1.0, gripper_squeeze=3.0)
    arm.see(1.3, at={"gripper": 22.0}, goal={"gripper": 1.0}, ma={"gripper": 1200.0})
    arm.see(at={"gripper": 19.2}, goal={"gripper": 1.0}, ma={"gripper": 100.0})
    assert arm.protection.cap({"gripper": 1.0}) == {"gripper": 1.0}


def test_a_gripper_that_still_closes_or_hardly_presses_is_left_alone() -> None:
    arm = Watched(gripper_stall_s=0.5)
    for i in range(100):
        arm.see(at={"gripper": 80.0 - 0.6 * i}, goal={"gripper": 1.0}, ma={"gripper": 900.0})
    assert not arm.protection.relaxed
    arm.see(2.0, at={"gripper": 22.0}, goal={"gripper": 1.0}, ma={"gripper": 200.0})
    assert not arm.protection.relaxed
