"""Who may drive: pure, with times as numbers."""

import pytest

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot.lease import Lease


@pytest.fixture
def lease() -> Lease:
    return Lease(watchdog_s=0.5)


def test_goals_alone_take_the_arm_until_half_a_second_after_the_last(lease: Lease) -> None:
    lease.admit("ada", 0.0)
    lease.goal("ada", ["gripper"], 0.0)
    assert lease.driver(0.4) == "ada"
    with pytest.raises(
        UserError, match=r"^ada drives the arm for another 0\.1 s.*robot drive --by NAME --force`"
    ):
        lease.admit("bob", 0.4)
    assert lease.driver(0.5) == ""
    lease.admit("bob", 0.5)


def test_a_lease_lasts_without_goals_and_every_goal_renews_it(lease: Lease) -> None:
    lease.drive("ada", 5.0, False, 0.0)
    assert lease.driver(4.9) == "ada"
    lease.goal("ada", ["gripper"], 4.0)
    assert lease.driver(8.9) == "ada"
    assert lease.driver(9.0) == ""


def test_the_arm_is_taken_over_by_force_only_and_given_by_who_has_it(lease: Lease) -> None:
    lease.drive("ada", 5.0, False, 0.0)
    with pytest.raises(UserError, match="ada drives the arm"):
        lease.drive("bob", 5.0, False, 1.0)
    with pytest.raises(UserError, match="ada drives the arm"):
        lease.give("bob", 1.0)
    assert lease.drive("bob", 5.0, True, 1.0) == "ada"
    with pytest.raises(UserError, match="bob drives the arm"):
        lease.admit("ada", 1.1)
    lease.give("bob", 2.0)
    assert lease.driver(2.0) == ""
    lease.give("bob", 2.1)  # harmless


def test_a_reset_keeps_the_arm_until_it_is_over(lease: Lease) -> None:
    lease.reset("ada", until=3.0, now=0.0)
    with pytest.raises(UserError):
        lease.admit("bob", 2.9)
    lease.admit("bob", 3.0)
    assert lease.fell_silent(2.9) == ""


@pytest.mark.parametrize("by", ["ada", "bob"])
def test_a_reset_that_is_stopped_keeps_the_arm_no_longer(lease: Lease, by: str) -> None:
    lease.reset("ada", until=30.0, now=0.0)
    lease.stopped(f"the arm was held by {by}", by, 1.0)
    assert lease.driver(1.4) == "ada"
    lease.admit("bob", 1.6)


def test_a_stream_that_stops_is_told_once_and_ends_the_lease(lease: Lease) -> None:
    lease.drive("ada", 60.0, False, 0.0)
    for i in range(5):
        lease.goal("ada", JOINTS, i / 30)
    assert lease.fell_silent(0.6) == ""
    assert lease.fell_silent(0.7) == "ada"
    assert lease.fell_silent(0.8) == ""
    assert lease.driver(0.8) == ""


def test_a_stream_that_stops_is_told_even_when_its_lease_is_over_first(lease: Lease) -> None:
    lease.goal("ada", JOINTS, 0.0)
    lease.goal("ada", JOINTS, 0.1)
    assert lease.driver(0.6) == "ada"
    with pytest.raises(UserError):
        lease.admit("bob", 0.6)
    assert lease.fell_silent(0.61) == "ada"
    lease.admit("bob", 0.62)


def test_single_goals_may_end_their_way_and_are_not_missed(lease: Lease) -> None:
    lease.goal("ada", ["gripper"], 0.0)
    assert lease.fell_silent(10.0) == ""
    lease.goal("ada", ["gripper"], 10.0)
    assert lease.fell_silent(20.0) == ""


def test_who_is_stopped_by_another_is_refused_until_asking_again(lease: Lease) -> None:
    lease.drive("policy", 5.0, False, 0.0)
    lease.goal("policy", JOINTS, 0.0)
    lease.stopped("the arm was held by ada", "ada", 0.1)
    with pytest.raises(UserError, match="held by ada: ask for the arm again with `Drive`"):
        lease.admit("policy", 0.2)
    lease.drive("policy", 5.0, False, 0.3)
    lease.admit("policy", 0.4)


def test_goals_that_just_go_on_never_overcome_a_stop_and_a_pause_does(lease: Lease) -> None:
    lease.goal("policy", JOINTS, 0.0)
    lease.stopped("the arm was held by ada", "ada", 0.1)
    for i in range(1, 100):
        with pytest.raises(UserError, match="held by ada"):
            lease.admit("policy", 0.1 + i * 0.4)
    lease.admit("policy", 0.1 + 99 * 0.4 + 0.5)


def test_who_stops_the_arm_while_driving_it_goes_on_as_it_likes(lease: Lease) -> None:
    lease.drive("ada", 5.0, False, 0.0)
    lease.goal("ada", JOINTS, 0.0)
    lease.goal("ada", JOINTS, 0.1)
    lease.stopped("the arm was held by ada", "ada", 0.2)
    assert lease.fell_silent(3.0) == ""
    lease.admit("ada", 3.0)


def test_a_stream_of_whole_goals_that_begins_to_lack_a_joint_is_refused(lease: Lease) -> None:
    lease.goal("ada", JOINTS, 0.0)
    with pytest.raises(UserError, match="lacks wrist_roll, gripper, and the one before it named all six"):
        lease.check_joints("ada", JOINTS[:4], 0.1)
    lease.check_joints("ada", JOINTS, 0.1)
    lease.check_joints("ada", ["gripper"], 0.6)  # after a pause


def test_goals_for_single_joints_may_follow_each_other(lease: Lease) -> None:
    lease.goal("ada", ["elbow_flex"], 0.0)
    lease.check_joints("ada", ["gripper"], 0.1)


def test_nobody_drives_without_a_name(lease: Lease) -> None:
    with pytest.raises(UserError, match="`by` is empty"):
        lease.drive("", 5.0, False, 0.0)
