"""What a reset plans: where it ends, how it gets there and how fast, and what it refuses. All pure."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from gripwire import settings as all_settings
from gripwire.errors import UserError
from gripwire.messages import Reset
from gripwire_robot import kinematics, reset
from gripwire_robot.settings import REST, START, Robot

RANGES = {"shoulder_pan": (-110.0, 110.0), "shoulder_lift": (-100.0, 100.0), "elbow_flex": (-97.0, 97.0)}
RANGES |= {"wrist_flex": (-95.0, 95.0), "wrist_roll": (-157.0, 157.0), "gripper": (0.0, 100.0)}
FOLDED = REST | {"gripper": 0.0}
STARTS_TIP = kinematics.forward(START).tip


def plan(start: dict[str, float] = FOLDED, silent: tuple[str, ...] = (), **asked: Any) -> reset.Plan:
    command = Reset.model_validate({key: asked.pop(key) for key in list(asked) if key in Reset.model_fields})
    return reset.plan(command, start, dict.fromkeys(silent, "does not answer"), Robot(**asked), RANGES)


def refusal(**asked: Any) -> str:
    with pytest.raises(UserError) as refused:
        plan(**asked)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def tips(going: reset.Plan, count: int = 200) -> np.ndarray[Any, Any]:
    """Where the tip is along the way (count, 3)."""
    path = going.path(0.0)
    times = np.linspace(0, path.seconds, count).tolist()
    return np.array([kinematics.forward(path.at(t)).tip for t in times])


# --- where it ends ------------------------------------------------------------------------------------


def test_a_reset_strays_from_the_start_pose_by_up_to_a_centimetre_in_x_y_and_z() -> None:
    off = np.array([plan(seed=seed).tip for seed in range(60)]) - STARTS_TIP
    assert np.abs(off).max() <= 0.0101
    assert np.abs(off).max(axis=0).min() > 0.008  # each axis uses its room
    assert abs(off.mean(axis=0)).max() < 0.004


def test_the_joints_aimed_at_bring_the_tip_where_the_plan_says() -> None:
    going = plan(seed=4)
    assert kinematics.forward(going.stops[-1]).tip == pytest.approx(going.tip, abs=1e-6)
    assert going.stops[-1]["gripper"] == START["gripper"]


def test_the_same_seed_strays_the_same_way_and_another_differently() -> None:
    assert plan(seed=7).tip == plan(seed=7).tip
    assert plan(seed=7).tip != plan(seed=8).tip
    assert plan().tip != plan().tip


def test_without_jitter_it_is_the_start_pose_itself() -> None:
    assert plan(jitter_xy=0.0, jitter_z=0.0).stops[-1] == START
    only_xy = plan(jitter_xy=0.02, jitter_z=0.0, seed=1).tip
    assert only_xy is not None
    assert only_xy[2] == pytest.approx(STARTS_TIP[2], abs=1e-4)


def test_a_tip_asked_for_stands_in_for_the_start_poses() -> None:
    going = plan(tip=(0.22, 0.08, 0.05), jitter_xy=0.0, jitter_z=0.0)
    assert going.tip == pytest.approx((0.22, 0.08, 0.05), abs=1e-4)
    assert kinematics.forward(going.stops[-1]).axes[2, 2] < -0.99  # down, as in the start pose
    assert plan(reset_tip=(0.22, 0.08, 0.05), jitter_xy=0.0, jitter_z=0.0).tip == going.tip


def test_the_jitter_of_the_settings_is_used_unless_the_command_has_its_own() -> None:
    assert plan(reset_tip=(0.24, 0.0, 0.06), jitter_xy=0.0, jitter_z=0.0).tip == pytest.approx(
        (0.24, 0.0, 0.06), abs=1e-4
    )
    wide = [plan(seed=seed, jitter_xy=0.05, jitter_z=0.0).tip for seed in range(30)]
    assert np.ptp(np.array(wide), axis=0)[:2].min() > 0.06


def test_what_is_drawn_stays_within_the_workspace() -> None:
    floor = float(STARTS_TIP[2])
    drawn = [plan(seed=seed, workspace={"z": (floor, 0.3)}).tip for seed in range(40)]
    assert all(tip and tip[2] >= floor - 1e-4 for tip in drawn)


# --- how it gets there --------------------------------------------------------------------------------


def test_it_rises_before_it_crosses_the_table_and_comes_down_from_above() -> None:
    low = kinematics.inverse((0.2, -0.15, 0.012), START, RANGES).position | {"gripper": 20.0}
    way = tips(plan(low, seed=3))
    crossing = (np.linalg.norm(way[:, :2] - way[0, :2], axis=1) > 0.02) & (
        np.linalg.norm(way[:, :2] - way[-1, :2], axis=1) > 0.02
    )
    assert crossing.any()
    assert way[crossing, 2].min() > 0.08


def test_from_anywhere_above_the_table_it_hardly_goes_lower_than_its_ends() -> None:
    rng = np.random.default_rng(3)
    low, high = np.array(list(RANGES.values())).T
    tried = 0
    while tried < 40:
        start = dict(zip(RANGES, rng.uniform(low, high).tolist(), strict=True))
        x, y, z = kinematics.forward(start).xyz
        if x > 0.1 and abs(y) < 0.25 and 0.01 < z < 0.3:
            tried += 1
            way = tips(plan(start, seed=tried), 60)
            assert way[:, 2].min() > min(way[0, 2], way[-1, 2]) - 0.025


def test_the_gripper_keeps_what_it_holds_until_it_is_down() -> None:
    going = plan(seed=1)
    assert [stop["gripper"] for stop in going.stops] == [0.0] * (len(going.stops) - 1) + [40.0]


def test_no_joint_is_faster_than_the_speed_that_is_set_however_short_the_time_asked_for() -> None:
    for speed in (30.0, 120.0):
        going = plan(seconds=0.1, seed=2, reset_speed=speed)
        path = going.path(0.0)
        steps = [path.at(i * going.seconds / 2000) for i in range(2001)]
        fastest = max(abs(b[j] - a[j]) for a, b in itertools.pairwise(steps) for j in a)
        assert fastest / (going.seconds / 2000) == pytest.approx(speed, rel=0.05)


def test_it_takes_at_least_the_time_asked_for_and_says_how_long() -> None:
    going = plan(seconds=9.0, seed=2)
    assert going.seconds == pytest.approx(going.path(0.0).seconds) == 9.0
    assert "9.0 s" in going.reply().text
    assert going.reply().tip == going.tip


def test_via_points_of_ones_own_are_passed_in_their_order() -> None:
    via = [{"shoulder_lift": -60.0}, {"elbow_flex": 20.0, "gripper": 0.0}]
    stops = plan(via_points=via, jitter_xy=0.0, jitter_z=0.0).stops
    assert stops[0] == FOLDED | via[0]
    assert stops[1] == FOLDED | via[0] | via[1]
    assert stops[2] == START
    assert plan(via_points=[]).stops[:-1] == ()


def test_a_position_is_gone_to_straight_and_exactly() -> None:
    going = plan(position={"elbow_flex": 60.0}, seconds=1.0)
    assert (going.start, going.stops) == ({"elbow_flex": 90.0}, ({"elbow_flex": 60.0},))
    assert going.seconds == 1.0


# --- what it refuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tip": (0.25, 0.0, -0.02)}, "z = -0.020 m, the workspace goes from 0.01 to 0.35"),
        ({"tip": (0.25, -0.4, 0.1)}, "change `workspace.y` in"),
        ({"tip": (math.nan, 0.0, 0.1)}, "x = nan"),
        ({"tip": (0.39, 0.24, 0.34), "jitter_xy": 0.0, "jitter_z": 0.0}, "it comes within 52 mm"),
        ({"start_pose": REST, "workspace": {"x": (0.25, 0.4)}}, "the start pose's tip has x = 0.221 m"),
        ({"command_jitter": 0.2}, "`jitter_xy` is 0.2: give metres from 0"),
        ({"seed": -1}, "`seed` is -1"),
        ({"silent": ("wrist_flex",)}, "wrist_flex does not answer, so nobody knows where the tip is"),
        ({"position": {"gripper": 3.0}, "tip": (0.2, 0.0, 0.1)}, "not to both"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(asked: dict[str, Any], words: str) -> None:
    if "command_jitter" in asked:
        with pytest.raises(UserError, match=words):
            reset.plan(Reset(jitter_xy=asked["command_jitter"]), FOLDED, {}, Robot(), RANGES)
    else:
        assert words in refusal(**asked)


def test_a_workspace_that_is_upside_down_names_its_key() -> None:
    with pytest.raises(UserError, match=r"robot\.workspace\.z`.*the lower bound comes first"):
        all_settings.load(flags={"robot.workspace.z": (0.3, 0.1)}, env={}).section("robot", Robot)
