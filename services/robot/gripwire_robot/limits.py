"""What a goal may be, and what becomes of it before it is sent. Pure."""

import math
from collections.abc import Mapping

from gripwire.errors import UserError
from gripwire.messages import JOINTS

Limits = Mapping[str, tuple[float, float]]

TOLERANCE = 10.0
"""Degrees (gripper: per cent) beyond a joint's range from which a goal is refused instead of clipped:
policies overshoot the ends a little all the time, but a wrong unit or a wrong joint is far off."""


def check(goal: Mapping[str, float], limits: Limits) -> None:
    """Refuse what no well-meaning client sends.

    Raises:
        UserError: no joint, an unknown joint, a value that is not a number or far outside the range.
    """
    if not goal:
        raise UserError(f"a goal names at least one joint: {', '.join(JOINTS)}")
    for joint, value in goal.items():
        if joint not in JOINTS:
            raise UserError(f"no joint `{joint}`; there are: {', '.join(JOINTS)}")
        if not math.isfinite(value):
            raise UserError(f"the goal for {joint} is {value}; give a finite number")
        low, high = limits[joint]
        if not low - TOLERANCE <= value <= high + TOLERANCE:
            unit = "%" if joint == "gripper" else "degrees"
            raise UserError(
                f"the goal for {joint} is {value:g} {unit}, its range is {low:.0f} to {high:.0f}; "
                "check the units and the calibration"
            )


def check_jump(goal: Mapping[str, float], present: Mapping[str, float], jump: float) -> None:
    """Refuse a goal that is elsewhere altogether: what sends it is mistaken about where the arm is.

    The gripper may: policies open and close it at a stroke.

    Raises:
        UserError: an arm joint is to go farther than ``jump`` degrees from where it is.
    """
    for joint, value in goal.items():
        by = value - present.get(joint, value)
        if joint != "gripper" and abs(by) > jump:
            raise UserError(
                f"the goal for {joint} is {value:.0f} degrees, {by:+.0f} from where it is, and goals may "
                f"jump by {jump:g} (`max_jump`): send nearer goals, or move there with `Reset`"
            )


def toward(goal: Mapping[str, float], sent: Mapping[str, float], step: float) -> dict[str, float]:
    """The goal, no joint farther than ``step`` from what was sent before."""
    return {
        joint: min(max(value, sent.get(joint, value) - step), sent.get(joint, value) + step)
        for joint, value in goal.items()
    }


def within(goal: Mapping[str, float], limits: Limits) -> dict[str, float]:
    """The goal within the joints' ranges."""
    return {joint: min(max(value, limits[joint][0]), limits[joint][1]) for joint, value in goal.items()}


def clip(
    goal: Mapping[str, float], present: Mapping[str, float], limits: Limits, relative: Mapping[str, float]
) -> dict[str, float]:
    """The goal within the joints' ranges, then within ``relative`` of where each joint is.

    The second step is LeRobot's ``ensure_safe_goal_position`` for the joints named; its own is not used
    because it reads all six motors again, fails on one that is silent, and logs each clipped goal.
    """
    return {
        joint: min(max(value, present[joint] - relative[joint]), present[joint] + relative[joint])
        for joint, value in within(goal, limits).items()
    }
