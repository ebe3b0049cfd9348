"""A scripted demonstrator: what it will do is data, made from a kind, where the cube lies, and a seed.

Scripts work through the robot service's `Goal` command like any client: :func:`play` sends one waypoint
after another to whatever function it is given.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_sim import joints
from gripwire_sim.scene import CUBE_HALF

if TYPE_CHECKING:
    from gripwire_sim.kinematics import Arm
    from gripwire_sim.world import Snapshot, World

Kind = Literal["grasp_hold", "grasp_release", "close_on_air", "near_miss", "push", "press_on_top"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GRASPS: tuple[Kind, ...] = ("grasp_hold", "grasp_release")
"""The kinds that succeed; every other must end without a grasp."""

RATE_HZ = 30.0
START = np.array([0.25, 0.0, 0.07])
"""Where the tip is when an episode begins, metres; each episode is off by up to :data:`JITTER` in x, y, z."""
JITTER = 0.01
_OPEN, _SHUT, _TIP_ON_TABLE = 42.0, 1.0, 0.012


@dataclass(frozen=True)
class Waypoint:
    """Where to be at ``t`` seconds: LeRobot's units by joint name (degrees; gripper 0..100)."""

    t: float
    position: dict[str, float]


@dataclass(frozen=True)
class Script:
    """An episode's motion at 30 Hz. Its first waypoint, at 0 s, is the start pose."""

    kind: Kind
    seed: int
    waypoints: tuple[Waypoint, ...]

    @property
    def seconds(self) -> float:
        return self.waypoints[-1].t


@dataclass(frozen=True)
class _Tip:
    """A key frame: where the tip is, how the jaws are turned and opened, and the time to get there."""

    seconds: float
    at: NDArray[np.float64]
    yaw: float
    jaw: float


def start_pose(arm: "Arm", seed: int) -> dict[str, float]:
    """Where the arm waits for the episode of this seed to begin, in LeRobot's units."""
    start = _start(_rng(seed))
    return _lerobot(arm.reach(start.at, start.yaw), start.jaw)


def script(arm: "Arm", kind: Kind, cube: tuple[float, float, float], cube_yaw: float, seed: int) -> Script:
    """Plan an episode of ``kind`` with a cube at ``cube`` (metres) turned by ``cube_yaw`` (radians).

    Raises:
        UserError: there is no such kind, or the cube lies where the arm cannot reach it pointing down.
    """
    if kind not in KINDS:
        raise UserError(f"no kind of episode `{kind}`; there are: {', '.join(KINDS)}")
    rng = _rng(seed)
    tips = [_start(rng), *_PLANS[kind](rng, np.array(cube), _face(cube_yaw))]
    return Script(kind, seed, tuple(_sample(arm, tips)))


def play(
    plan: Script,
    send: Callable[[dict[str, float]], object],
    cancelled: Callable[[], bool] = lambda: False,
) -> float:
    """Send the waypoints at their times; the worst lateness in seconds.

    When ``send`` takes long, the waypoints that are past by then are left out, so the script ends on time
    whatever happens. What ``send`` raises ends it at once.
    """
    began = time.monotonic()
    worst = 0.0
    for i, waypoint in enumerate(plan.waypoints):
        last = i + 1 == len(plan.waypoints)
        if not last and time.monotonic() - began >= plan.waypoints[i + 1].t:
            continue
        while (left := began + waypoint.t - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if cancelled():
                return worst
        send(waypoint.position)
        worst = max(worst, time.monotonic() - began - waypoint.t)
    return worst


def rehearse(world: "World", plan: Script) -> Iterator[tuple[float, "Snapshot"]]:
    """Play a script into the simulation itself, faster than real time: (seconds, the world) at 30 Hz.

    For tests and for checking seeds; the gripper's servo is limited to half its torque, as LeRobot sets it.
    """
    simulated = 0.0
    world.place(joints.to_radians(plan.waypoints[0].position))
    for waypoint in plan.waypoints:
        world.step_for(waypoint.t - simulated)
        simulated += round(waypoint.t - simulated, 2)
        yield waypoint.t, world.snapshot()
        for joint, target in enumerate(joints.to_radians(waypoint.position).tolist()):
            world.drive(joint, target, hold=True, strength=0.5 if joint == joints.GRIPPER else 1.0)


# --- plans: key frames of the tip ---------------------------------------------------------------------


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([0x646D, seed])


def _start(rng: np.random.Generator) -> _Tip:
    return _Tip(0.0, START + rng.uniform(-JITTER, JITTER, 3), 0.0, _OPEN + rng.uniform(-4, 6))


def _face(yaw: float) -> float:
    """The turn, within 45 degrees, that brings the jaws flat onto two faces of the cube."""
    quarter = np.pi / 2
    return float((yaw + quarter / 2) % quarter - quarter / 2)


def _along(yaw: float) -> NDArray[np.float64]:
    """The direction in which the moving jaw lies from the fixed one."""
    return np.array([np.cos(yaw), np.sin(yaw), 0.0])


def _aside(yaw: float) -> NDArray[np.float64]:
    return np.array([-np.sin(yaw), np.cos(yaw), 0.0])


def _height(at: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    return np.array([at[0], at[1], z])


def _grasp(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float, pace: float) -> list[_Tip]:
    """Above the cube, down, closed, lifted: with the fixed jaw some millimetres off before it closes."""
    over = cube + 0.004 * _along(yaw) + rng.uniform(-0.0015, 0.0015, 3)
    low, jaw = _height(over, _TIP_ON_TABLE + rng.uniform(-0.001, 0.003)), _OPEN + rng.uniform(-4, 6)
    return [
        _Tip(pace * rng.uniform(0.8, 1.0), _height(over, 0.055), yaw, jaw),
        _Tip(pace * rng.uniform(0.7, 0.9), low, yaw, jaw),
        _Tip(rng.uniform(0.05, 0.2), low, yaw, jaw),
        _Tip(0.45, low, yaw, _SHUT),
        _Tip(rng.uniform(0.1, 0.25), low, yaw, _SHUT),
        _Tip(rng.uniform(0.6, 0.8), _height(over, rng.uniform(0.05, 0.08)), yaw, _SHUT),
    ]


def _wander(rng: np.random.Generator, tip: _Tip, seconds: float) -> list[_Tip]:
    """Drift about a little for ``seconds``, as a held hand does: stillness would give the class away."""
    tips = []
    while seconds > 0.05:
        step = min(seconds, rng.uniform(0.5, 0.9))
        if seconds - step < 0.4:
            step = seconds
        at = tip.at + rng.uniform([-0.012, -0.012, -0.006], [0.012, 0.012, 0.008])
        tips.append(_Tip(step, at, tip.yaw + rng.uniform(-0.08, 0.08), tip.jaw))
        seconds -= step
    return tips


def _fill(rng: np.random.Generator, tips: list[_Tip], seconds: float) -> list[_Tip]:
    return tips + _wander(rng, tips[-1], seconds - sum(tip.seconds for tip in tips))


def _grasp_hold(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    return _fill(rng, _grasp(rng, cube, yaw, 1.15), 5.7)


def _grasp_release(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    tips = _fill(rng, _grasp(rng, cube, yaw, 0.85), rng.uniform(4.2, 4.5))
    if rng.random() < 0.5:  # put it down rather than drop it
        tips.append(replace(tips[-1], seconds=0.6, at=_height(tips[-1].at, _TIP_ON_TABLE + 0.002)))
    tips.append(replace(tips[-1], seconds=0.45, jaw=_OPEN + rng.uniform(-4, 6)))
    tips.append(replace(tips[-1], seconds=0.6, at=_height(tips[-1].at, 0.065)))
    return _fill(rng, tips, 5.9)


def _close(rng: np.random.Generator, tip: _Tip, lift: float) -> list[_Tip]:
    """Shut the jaws on nothing, now and then only as far as a cube would let them, rise and wait."""
    jaw = float(rng.choice([_SHUT, rng.uniform(2, 22)]))
    shut = replace(tip, seconds=0.45, jaw=jaw)
    pause = replace(shut, seconds=rng.uniform(0.1, 0.25))
    return [tip, shut, pause, replace(shut, seconds=0.7, at=_height(tip.at, lift))]


def _close_on_air(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    over = cube + 0.004 * _along(yaw) + rng.uniform(-0.004, 0.004, 3)
    tip = _Tip(rng.uniform(1.4, 1.9), _height(over, cube[2] + rng.uniform(0.04, 0.08)), yaw, _OPEN)
    return _fill(rng, _close(rng, tip, float(tip.at[2]) + 0.005), 5.2)


def _near_miss(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    distance, slant = rng.uniform(0.027, 0.035), rng.uniform(-0.3, 0.3)
    away = np.cos(slant) * rng.choice([-1, 1]) * _aside(yaw) + np.sin(slant) * _along(yaw)
    over = cube + 0.004 * _along(yaw) + distance * away
    down = _Tip(rng.uniform(0.7, 0.9), _height(over, _TIP_ON_TABLE + rng.uniform(0, 0.004)), yaw, _OPEN)
    above = replace(down, seconds=rng.uniform(0.8, 1.1), at=_height(over, 0.055))
    return _fill(rng, [above, *_close(rng, down, rng.uniform(0.04, 0.07))], 5.4)


def _push(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    direction = rng.choice([-1, 1]) * _aside(yaw + rng.uniform(-0.2, 0.2))
    # The tip point lies between open jaws; shut, the jaws meet at the fixed one.
    touch = cube + 0.020 * _along(yaw)
    before = _height(touch - 0.038 * direction, _TIP_ON_TABLE)
    after = _height(touch + rng.uniform(0.005, 0.02) * direction, _TIP_ON_TABLE)
    shut = rng.uniform(_SHUT, 5)
    tips = [
        _Tip(1.1, _height(before, 0.06), yaw, shut),
        _Tip(0.7, before, yaw, shut),
        _Tip(rng.uniform(1.0, 1.4), after, yaw, shut),
        _Tip(0.3, after, yaw, shut),
        _Tip(0.7, _height(after - 0.02 * direction, 0.06), yaw, shut),
    ]
    return _fill(rng, tips, 5.4)


def _press_on_top(rng: np.random.Generator, cube: NDArray[np.float64], yaw: float) -> list[_Tip]:
    over = cube + 0.020 * _along(yaw) + rng.uniform(-0.003, 0.003, 3)
    shut, top = rng.uniform(_SHUT, 5), cube[2] + CUBE_HALF
    tips = [
        _Tip(1.1, _height(over, 0.06), yaw, shut),
        _Tip(0.7, _height(over, top - 0.001), yaw, shut),
        _Tip(rng.uniform(0.8, 1.4), _height(over, top - 0.003), yaw, shut),
        _Tip(0.7, _height(over, 0.06), yaw, shut),
    ]
    return _fill(rng, tips, 5.2)


_PLANS: dict[str, Callable[[np.random.Generator, NDArray[np.float64], float], list[_Tip]]] = {
    "grasp_hold": _grasp_hold,
    "grasp_release": _grasp_release,
    "close_on_air": _close_on_air,
    "near_miss": _near_miss,
    "push": _push,
    "press_on_top": _press_on_top,
}


# --- from key frames to joints ------------------------------------------------------------------------


def _sample(arm: "Arm", tips: list[_Tip]) -> Iterator[Waypoint]:
    """Move from key frame to key frame with least jerk (Flash and Hogan, 1985), at 30 Hz."""
    ends = np.cumsum([tip.seconds for tip in tips])
    q: NDArray[np.float64] | None = None
    for i in range(int(ends[-1] * RATE_HZ) + 1):
        t = i / RATE_HZ
        after = min(int(np.searchsorted(ends, t, side="right")), len(tips) - 1)
        a, b = tips[max(after - 1, 0)], tips[after]
        s = min(1.0, (t - ends[after] + b.seconds) / b.seconds) if b.seconds else 1.0
        s = s**3 * (10 - 15 * s + 6 * s**2)
        q = arm.reach(a.at + s * (b.at - a.at), a.yaw + s * (b.yaw - a.yaw), q)
        yield Waypoint(t, _lerobot(q, a.jaw + s * (b.jaw - a.jaw)))


def _lerobot(q: NDArray[np.float64], jaw: float) -> dict[str, float]:
    return joints.to_lerobot(q) | {"gripper": jaw}
