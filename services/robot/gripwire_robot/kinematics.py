"""Where the gripper's tip is, and which joints bring it somewhere: the SO-101 as a chain of five joints.

The numbers are those of the SO-101's MuJoCo model as so101-nexus ships it (`SO101_menagerie/so101.xml`, after
The Robot Studio's `so101_new_calib.xml`, whose joints are zero in the middle of their ranges, as LeRobot
calibrates them). The tip is that model's `gripperframe`: between the jaws' ends, 2 cm from the fixed one. The
frame is the arm's base: metres, x forward, y to the left, z up from the table.

Angles are as good as the calibration: two degrees in the shoulder are a centimetre at the tip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gripwire.messages import JOINTS

Vector = NDArray[np.float64]
ARM = JOINTS[:5]
"""The joints that move the tip; the gripper only opens and closes around it."""
RANGES = {"shoulder_pan": 110.0, "shoulder_lift": 100.0, "elbow_flex": 96.8, "wrist_flex": 95.0}
"""Degrees that these turn either way between their stops. (The wrist rolls as far as its cable lets it.)"""
DOWN: Vector = np.diag([-1.0, 1.0, -1.0])
"""Axes (columns) of a gripper that points down and opens its jaws along x, as with the wrist rolled to 0."""

_SEEDS = (
    {"shoulder_lift": -20.0, "elbow_flex": 40.0, "wrist_flex": 65.0},
    {"shoulder_lift": -60.0, "elbow_flex": 20.0, "wrist_flex": 40.0},
    {"shoulder_lift": 30.0, "elbow_flex": -60.0, "wrist_flex": 30.0},
)
"""Where the search begins again when it led nowhere from the pose it was given."""
_WITHIN_M = 1e-4
_TURN_WEIGHT = 0.02
"""Metres per radian: what a wrong direction weighs against a wrong place."""
_DAMPING = 1e-3
_LONGEST_STEP = 0.2
_ROUNDS = 60


@dataclass(frozen=True)
class Pose:
    """The tip's place (3,) in metres and its axes as columns (3, 3): z points out of the gripper, the jaws
    open along x."""

    tip: Vector
    axes: Vector

    @property
    def xyz(self) -> tuple[float, float, float]:
        x, y, z = self.tip.tolist()
        return x, y, z


@dataclass(frozen=True)
class Reached:
    """What :func:`inverse` found: degrees by joint, how far the tip is from where it should be (metres), and
    how far the gripper is turned from the axes asked for (degrees)."""

    position: dict[str, float]
    off_m: float
    turned: float

    @property
    def there(self) -> bool:
        """Whether the place is reached (to a tenth of a millimetre), whatever became of the direction."""
        return self.off_m <= _WITHIN_M


def _frame(place: ArrayLike, quaternion: ArrayLike) -> Vector:
    """A transform (4, 4) from a place and a quaternion (w, x, y, z) of any length."""
    w, x, y, z = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = place
    return out


_LINKS = (
    _frame([0.0388353, 0, 0.0624], [0, 0, -1, 0]),
    _frame([-0.0303992, -0.0182778, -0.0542], [1, -1, -1, -1]),
    _frame([-0.11257, -0.028, 0], [1, 0, 0, 1]),
    _frame([-0.1349, 0.0052, 0], [1, 0, 0, -1]),
    _frame([0, -0.0611, 0.0181], [0.0172091, -0.0172091, 0.706897, 0.706897]),
)
"""From each joint's parent to the joint at zero; it turns about its own z."""
_TOOL = _frame([0.012, -0.000218, -0.098127], [0, 0, 1, 0])


def forward(position: Mapping[str, float]) -> Pose:
    """Where the tip is when the five joints of :data:`ARM` are at these degrees."""
    end = _chain(np.radians([position[joint] for joint in ARM]))[-1]
    return Pose(end[:3, 3].copy(), end[:3, :3].copy())


def _chain(q: Vector) -> list[Vector]:
    """The frames (4, 4) of the five joints at the angles ``q`` (5,) in radians, and the tip's."""
    here, out = np.eye(4), []
    for link, cos, sin in zip(_LINKS, np.cos(q).tolist(), np.sin(q).tolist(), strict=True):
        here = here @ link
        x = here[:, 0].copy()
        here[:, 0] = cos * x + sin * here[:, 1]
        here[:, 1] = cos * here[:, 1] - sin * x
        out.append(here)
    return [*out, here @ _TOOL]


def millimetres(tip: Sequence[float] | Vector) -> str:
    """`(250, -1, 70)` from metres."""
    return "(" + ", ".join(str(round(1000 * float(value))) for value in tip) + ")"


def inverse(
    tip: ArrayLike,
    near: Mapping[str, float],
    limits: Mapping[str, tuple[float, float]],
    axes: Vector = DOWN,
) -> Reached:
    """Joint angles that bring the tip to ``tip`` (3,) in metres, by damped least squares from the pose
    ``near`` (degrees by joint) within ``limits``.

    Place comes first: the ``axes`` (3, 3) are a wish, and give way wherever the place needs it, since five
    joints cannot have all six. The same question always has the same answer.
    """
    target = np.asarray(tip, dtype=float)
    facing = {"shoulder_pan": float(np.degrees(np.arctan2(-target[1], target[0]))), "wrist_roll": 0.0}
    best: Reached | None = None
    for seed in (near, *(facing | seed for seed in _SEEDS)):
        found = _search(target, axes, seed, limits)
        if best is None or found.off_m < best.off_m:
            best = found
        if best.there:
            break
    assert best is not None
    return best


def _search(
    target: Vector, axes: Vector, seed: Mapping[str, float], limits: Mapping[str, tuple[float, float]]
) -> Reached:
    low, high = np.radians([limits[joint] for joint in ARM]).T
    q = np.clip(np.radians([seed[joint] for joint in ARM]), low, high)
    # First with the wish for a direction, then from there with the place alone.
    q = _descend(target, axes, _TURN_WEIGHT, q, low, high)
    q = _descend(target, axes, 0.0, q, low, high)
    end = _chain(q)[-1]
    return Reached(
        dict(zip(ARM, np.degrees(q).tolist(), strict=True)),
        float(np.linalg.norm(target - end[:3, 3])),
        float(np.degrees(np.linalg.norm(_turn(end[:3, :3], axes)))),
    )


def _descend(target: Vector, axes: Vector, weight: float, q: Vector, low: Vector, high: Vector) -> Vector:
    for _ in range(_ROUNDS):
        frames = _chain(q)
        end = frames[-1]
        turns = np.stack([frame[:3, 2] for frame in frames[:-1]], axis=1)
        arms = end[:3, 3:] - np.stack([frame[:3, 3] for frame in frames[:-1]], axis=1)
        jacobian = np.vstack([np.cross(turns, arms, axis=0), weight * turns])
        error = np.concatenate([target - end[:3, 3], weight * _turn(end[:3, :3], axes)])
        step = np.clip(_step(jacobian, error, q, low, high), -_LONGEST_STEP, _LONGEST_STEP)
        q = np.clip(q + step, low, high)
        if np.abs(step).max() < 1e-6:
            break
    return q


def _step(jacobian: Vector, error: Vector, q: Vector, low: Vector, high: Vector) -> Vector:
    """One damped step; a joint that would push against its limit is left out, so that the others make up."""
    free = np.ones(len(q), dtype=bool)
    while True:
        j = jacobian * free
        step: Vector = j.T @ np.linalg.solve(j @ j.T + _DAMPING**2 * np.eye(len(error)), error)
        stuck = ((q <= low) & (step < 0)) | ((q >= high) & (step > 0))
        if not (stuck & free).any():
            return step
        free &= ~stuck


def _turn(here: Vector, there: Vector) -> Vector:
    """The rotation (3,) from one set of axes to another: its axis times its angle in radians."""
    between = there @ here.T
    angle = float(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))
    skew = np.array(
        [between[2, 1] - between[1, 2], between[0, 2] - between[2, 0], between[1, 0] - between[0, 1]]
    )
    size = float(np.linalg.norm(skew))
    return np.zeros(3) if size < 1e-9 else skew * (angle / size)
