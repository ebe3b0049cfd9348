"""What a goal may be and what becomes of it; how moves run; what the settings say. All pure."""

import itertools
import logging
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gripwire import settings as all_settings
from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import limits, motion
from gripwire_robot.settings import REST, START, Robot

RANGES = {joint: (-90.0, 90.0) for joint in JOINTS} | {"gripper": (0.0, 100.0)}
WIDE = {joint: (-1e6, 1e6) for joint in JOINTS}
angles = st.floats(-200, 200)
poses = st.dictionaries(st.sampled_from(JOINTS), angles, min_size=1)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({}, "names at least one joint"),
        ({"elbow": 3.0}, "no joint `elbow`"),
        ({"elbow_flex": math.nan}, "the goal for elbow_flex is nan"),
        ({"elbow_flex": -math.inf}, "the goal for elbow_flex is -inf"),
        ({"elbow_flex": 101.0}, "the goal for elbow_flex is 101 degrees, its range is -90 to 90"),
        ({"gripper": -11.0}, "the goal for gripper is -11 %, its range is 0 to 100"),
    ],
)
def test_a_goal_that_no_client_means_is_refused_in_words(goal: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        limits.check(goal, RANGES)


def test_a_goal_a_little_beyond_the_range_is_clipped_to_it() -> None:
    goal = {"elbow_flex": 95.0, "gripper": -0.3}
    limits.check(goal, RANGES)
    sent = limits.clip(goal, goal, RANGES, dict.fromkeys(JOINTS, 20.0))
    assert sent == {"elbow_flex": 90.0, "gripper": 0.0}


@settings(deadline=None, max_examples=50)
@given(poses, st.fixed_dictionaries({joint: angles for joint in JOINTS}), st.floats(0.1, 60))
def test_relative_clipping_is_lerobots(goal: dict[str, float], present: dict[str, float], by: float) -> None:
    from lerobot.robots.utils import ensure_safe_goal_position

    logging.disable(logging.WARNING)  # it logs every goal it clips
    theirs = ensure_safe_goal_position({j: (goal[j], present[j]) for j in goal}, by)
    logging.disable(logging.NOTSET)
    assert limits.clip(goal, present, WIDE, dict.fromkeys(JOINTS, by)) == pytest.approx(theirs)


@given(poses, st.fixed_dictionaries({joint: angles for joint in JOINTS}))
def test_a_clipped_goal_is_never_farther_than_allowed(
    goal: dict[str, float], present: dict[str, float]
) -> None:
    sent = limits.clip(goal, present, RANGES, dict.fromkeys(JOINTS, 20.0))
    assert sent.keys() == goal.keys()
    assert all(abs(sent[j] - present[j]) <= 20.0 + 1e-9 for j in sent)


@given(st.floats(-90, 90), st.floats(-90, 90), st.floats(0.1, 5))
def test_a_move_begins_and_ends_at_rest_exactly_where_it_should(a: float, b: float, seconds: float) -> None:
    move = motion.Move({"gripper": a}, {"gripper": b}, t_start=10.0, seconds=seconds)
    assert move.at(9.0) == {"gripper": a}
    assert move.at(10.0 + seconds) == move.at(99.0) == {"gripper": b}
    assert not move.over(10.0 + seconds * 0.99)
    early = move.at(10.0 + seconds * 0.01)["gripper"]
    assert abs(early - a) <= abs(b - a) * 1e-4 + 1e-12


@given(st.floats(-90, 90), st.floats(-90, 90))
def test_the_shortest_move_keeps_the_speed(a: float, b: float) -> None:
    seconds = motion.shortest({"gripper": a}, {"gripper": b}, speed=50.0)
    move = motion.Move({"gripper": a}, {"gripper": b}, 0.0, seconds)
    steps = [move.at(i / 1000 * seconds)["gripper"] for i in range(1001)]
    fastest = max((abs(y - x) for x, y in itertools.pairwise(steps)), default=0.0)
    assert fastest <= 50.0 * seconds / 1000 * 1.001 + 1e-9


def test_velocity_is_the_slope_over_the_window_in_units_per_second() -> None:
    velocity = motion.Velocity(window_s=0.05)
    out = {}
    for tick in range(10):
        out = velocity.see({"gripper": 0.5 * tick, "elbow_flex": 7.0}, tick * 16_666_667)
    assert out["gripper"] == pytest.approx(30.0, rel=1e-6)
    assert out["elbow_flex"] == 0.0


def test_velocity_begins_again_after_a_gap() -> None:
    velocity = motion.Velocity()
    velocity.see({"gripper": 0.0}, 0)
    velocity.forget()
    assert velocity.see({"gripper": 90.0}, 16_000_000) == {"gripper": 0.0}


def test_the_default_poses_are_within_a_usual_arms_range() -> None:
    usual = {"shoulder_pan": 110, "shoulder_lift": 100, "elbow_flex": 96, "wrist_flex": 95, "wrist_roll": 157}
    for pose in (START, REST):
        assert all(abs(value) <= usual[joint] for joint, value in pose.items() if joint != "gripper")


def test_the_calibration_is_where_lerobot_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot.utils.constants import HF_LEROBOT_CALIBRATION, ROBOTS

    for name in ("HF_HOME", "HF_LEROBOT_HOME", "HF_LEROBOT_CALIBRATION"):
        monkeypatch.delenv(name, raising=False)
    usual = Path("~/.cache/huggingface/lerobot/calibration").expanduser()
    assert Robot(id="me").calibration_file() == usual / ROBOTS / "so_follower" / "me.json"
    if usual == HF_LEROBOT_CALIBRATION:
        assert Robot().calibration_file().parent == HF_LEROBOT_CALIBRATION / ROBOTS / "so_follower"
    monkeypatch.setenv("HF_LEROBOT_CALIBRATION", "/elsewhere")
    assert Robot().calibration_file() == Path("/elsewhere/robots/so_follower/follower.json")


def test_a_limit_per_joint_leaves_the_others_at_the_usual_one() -> None:
    assert Robot(max_relative_target={"gripper": 50.0}).relative_limits() == dict.fromkeys(JOINTS, 20.0) | {
        "gripper": 50.0
    }
    assert set(Robot(max_relative_target=5.0).relative_limits().values()) == {5.0}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rest_pose", {"elbow": 3.0}, "no joint `elbow`"),
        ("rest_seconds", 4.0, "less than or equal to 3"),
        ("prot", "/dev/x", "unknown key `robot.prot`"),
    ],
)
def test_a_wrong_setting_names_its_key(key: str, value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        all_settings.load(flags={f"robot.{key}": value}, env={}).section("robot", Robot)
