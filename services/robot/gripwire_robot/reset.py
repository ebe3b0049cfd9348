"""A reset as a path: off the table, over to the start pose with a little jitter, and down. Pure.

The jitter is HIL-SERL's (Luo et al. 2024): a policy that always begins at the same spot learns that spot.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Reset, Underway
from gripwire_robot import kinematics, limits, motion
from gripwire_robot.settings import Robot

ABOVE_M, LOWEST_M = 0.03, 0.10
"""The tip travels so far above the end of the way, and at least so high: it drags over no table, no cube."""
DRAWS = 3
"""At the edge of the reach a draw may be out of it; each that is costs the loop a tenth of a second."""
TURNED = 15.0
"""Degrees from which it is worth saying that the gripper is turned."""
Joints = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """A reset: the joints at its beginning and at each stop, the last one the target; LeRobot's units."""

    start: Joints
    stops: tuple[Joints, ...]
    seconds: float
    tip: tuple[float, float, float] | None
    """Where the target brings the tip, metres; None where a joint's place is not known."""
    turned: float = 0.0
    """Degrees by which the gripper has to turn away from the start pose's direction."""

    def path(self, t_start: float) -> motion.Legs:
        """The whole way, every leg with its share of the time."""
        ways = list(zip([self.start, *self.stops[:-1]], self.stops, strict=True))
        shares = [motion.shortest(a, b, 1.0) for a, b in ways]
        legs = []
        for (a, b), share in zip(ways, shares, strict=True):
            seconds = self.seconds * share / (sum(shares) or 1.0)
            legs.append(motion.Move(a, b, t_start, seconds))
            t_start += seconds
        return motion.Legs(tuple(legs))

    def reply(self) -> Underway:
        """What the asker is told when it begins."""
        to = f" to {kinematics.millimetres(self.tip)} mm" if self.tip else ""
        turned = f", the gripper turned by {self.turned:.0f} degrees" if self.turned > TURNED else ""
        return Underway(
            text=f"on the way{to}{turned}, {self.seconds:.1f} s",
            position=dict(self.stops[-1]),
            tip=self.tip,
            seconds=self.seconds,
            t_begin=clock.monotonic_ns(),
        )


def plan(
    command: Reset, start: Joints, silent: Mapping[str, str], settings: Robot, within: limits.Limits
) -> Plan:
    """The way that ``command`` asks for, from ``start`` (LeRobot's units), while ``silent`` do not answer.

    Raises:
        UserError: the tip asked for is outside the workspace or out of reach, a joint that it takes does not
            answer, the time is too short, or a number makes no sense.
    """
    if not 0 < command.seconds <= 60:
        raise UserError(f"a reset takes more than 0 and at most 60 seconds, not {command.seconds:g}")
    if command.position is not None:
        return _straight(command, command.position, start, settings.max_speed, within)
    if unknown := [joint for joint in JOINTS if joint in silent or joint not in start]:
        raise UserError(
            f"{', '.join(unknown)} does not answer, so nobody knows where the tip is: see `gripwire robot "
            "status`; a reset to a `position` moves the other joints"
        )
    return _around(command, start, settings, within)


def _straight(command: Reset, position: Joints, start: Joints, speed: float, within: limits.Limits) -> Plan:
    """To the joints asked for and nothing else: no via-points, no jitter."""
    if command.tip is not None:
        raise UserError("a reset goes to a `position` or to a `tip`, not to both")
    target = limits.within(position, within)
    begin = {joint: start[joint] for joint in target}
    shortest = motion.shortest(begin, target, speed)
    if command.seconds < shortest:
        raise UserError(f"the arm cannot get there in {command.seconds:g} s: give at least {shortest:.1f} s")
    whole = start | target
    tip = kinematics.forward(whole).xyz if all(joint in whole for joint in kinematics.ARM) else None
    return Plan(begin, (target,), command.seconds, tip)


def _around(command: Reset, start: Joints, settings: Robot, within: limits.Limits) -> Plan:
    """Up, over, and down to the start pose or the tip asked for, a little off."""
    home = limits.within(start | settings.start_pose, within)
    asked = command.tip if command.tip is not None else settings.reset_tip
    spread = _spread(command, settings)
    target, turned = home, 0.0
    if asked is not None or spread.any():
        reached = _aim(home, asked, spread, np.random.default_rng(_seed(command)), settings, within)
        target, turned = home | reached.position, reached.turned
    stops = (*_via(start, target, settings, within), target)
    speed = min(settings.reset_speed, settings.max_speed)
    needed = sum(motion.shortest(a, b, speed) for a, b in itertools.pairwise([start, *stops]))
    return Plan(start, stops, max(command.seconds, needed), kinematics.forward(target).xyz, turned)


# --- the target ---------------------------------------------------------------------------------------


def _spread(command: Reset, settings: Robot) -> kinematics.Vector:
    """Half the width of the jitter by axis (3,), metres."""
    given = {"jitter_xy": command.jitter_xy, "jitter_z": command.jitter_z}
    for name, value in given.items():
        if value is not None and not 0 <= value <= 0.1:
            raise UserError(f"`{name}` is {value:g}: give metres from 0 (off) to 0.1")
    xy = settings.jitter_xy if command.jitter_xy is None else command.jitter_xy
    z = settings.jitter_z if command.jitter_z is None else command.jitter_z
    return np.array([xy, xy, z])


def _seed(command: Reset) -> int | None:
    if command.seed is not None and command.seed < 0:
        raise UserError(f"`seed` is {command.seed}: give a whole number from 0")
    return command.seed


def _aim(
    home: Joints,
    asked: tuple[float, float, float] | None,
    spread: kinematics.Vector,
    rng: np.random.Generator,
    settings: Robot,
    within: limits.Limits,
) -> kinematics.Reached:
    """Joints for a tip drawn around the one asked for or the start pose's, turned as in the start pose."""
    pose = kinematics.forward(home)
    centre = pose.tip if asked is None else np.array(asked)
    low, high = settings.workspace.corners()
    _refuse_outside(centre, asked is None, settings)
    for _ in range(DRAWS if spread.any() else 1):
        drawn = rng.uniform(np.maximum(centre - spread, low), np.minimum(centre + spread, high))
        reached = kinematics.inverse(drawn, home, within, pose.axes)
        if reached.there:
            return reached
    raise UserError(
        f"the tip cannot reach {kinematics.millimetres(drawn)} mm: it comes within "
        f"{1000 * reached.off_m:.0f} mm; ask for a point nearer to the middle of the workspace"
    )


def _refuse_outside(tip: kinematics.Vector, own: bool, settings: Robot) -> None:
    for axis, value in zip("xyz", tip.tolist(), strict=True):
        low, high = getattr(settings.workspace, axis)
        if not low <= value <= high:  # not a number is outside too
            who = "the start pose's tip" if own else "the tip asked for"
            raise UserError(
                f"{who} has {axis} = {value:.3f} m, the workspace goes from {low:g} to {high:g}: "
                f"choose another point, or change `workspace.{axis}` in [robot]"
            )


# --- the way ------------------------------------------------------------------------------------------


def _via(start: Joints, target: Joints, settings: Robot, within: limits.Limits) -> list[Joints]:
    """The stops before the target: those of the settings, else up from where it is and above the target."""
    if settings.via_points is not None:
        stops, here = [], start
        for pose in settings.via_points:
            here = limits.within(here | pose, within)
            stops.append(here)
        return stops
    begin, end = kinematics.forward(start), kinematics.forward(target)
    height = max(end.tip[2] + ABOVE_M, LOWEST_M)
    over = [_raised(begin, height, start, within)] if begin.tip[2] < height else []
    over.append(_raised(end, height, target, within))
    # The gripper opens or shuts on the last leg: what it holds is not dropped from high up.
    return [stop | {"gripper": start["gripper"]} for stop in over if stop is not None]


def _raised(pose: kinematics.Pose, height: float, near: Joints, within: limits.Limits) -> Joints | None:
    """Joints with the tip straight above where it is; None where that is out of reach."""
    x, y, _ = pose.xyz
    found = kinematics.inverse((x, y, height), near, within, pose.axes)
    return near | found.position if found.there else None
