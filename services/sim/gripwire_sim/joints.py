"""The arm's six joints in three units: MuJoCo radians, LeRobot units, and the servos' encoder steps.

LeRobot's degrees are MuJoCo's joint angles: same zero, same sign. Its gripper runs from 0 (the closed end of
the jaw's range, -10 degrees) to 100 (the open end, +100 degrees).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gripwire.files import write_whole
from gripwire.messages import JOINTS

GRIPPER = JOINTS.index("gripper")
STEPS_PER_DEGREE = 4095 / 360
"""LeRobot divides a revolution into 4095 steps, not 4096; the bench follows it so that degrees are exact."""


@dataclass(frozen=True)
class Joint:
    """One joint and the servo that moves it.

    ``low`` and ``high`` are the mechanical range in radians, as in so101-nexus's model. ``range_min`` and
    ``range_max`` are the servo's position limits in steps after homing. ``homing_offset`` is what the horn's
    mounting adds to the encoder (a Feetech servo reports ``encoder - homing_offset``); no two are alike, as
    on a real arm, so that a driver that forgets them is found out.
    """

    name: str
    id: int
    low: float
    high: float
    range_min: int
    range_max: int
    homing_offset: int


def _joint(number: int, low: float, high: float, homing_offset: int) -> Joint:
    half = math.ceil(math.degrees(high - low) / 2 * STEPS_PER_DEGREE)
    return Joint(JOINTS[number], number + 1, low, high, 2047 - half, 2047 + half, homing_offset)


TABLE = (
    _joint(0, -1.91986, 1.91986, -112),
    _joint(1, -1.74533, 1.74533, 431),
    _joint(2, -1.69, 1.69, -268),
    _joint(3, -1.658063, 1.658063, 95),
    _joint(4, -2.7438473, 2.7438473, 301),
    _joint(5, -0.174533, 1.7453292, -190),
)

LOW = np.array([joint.low for joint in TABLE])
HIGH = np.array([joint.high for joint in TABLE])


def to_lerobot(radians: ArrayLike) -> dict[str, float]:
    """Six joint angles in radians -> LeRobot's units (degrees; gripper 0..100) by joint name."""
    q = np.asarray(radians, dtype=float)
    values = np.degrees(q)
    values[GRIPPER] = 100 * (q[GRIPPER] - LOW[GRIPPER]) / (HIGH[GRIPPER] - LOW[GRIPPER])
    return dict(zip(JOINTS, values.tolist(), strict=True))


def to_radians(position: dict[str, float]) -> NDArray[np.float64]:
    """LeRobot's units by joint name -> six joint angles in radians. Every joint must be named."""
    q = np.radians([position[name] for name in JOINTS])
    q[GRIPPER] = LOW[GRIPPER] + position["gripper"] / 100 * (HIGH[GRIPPER] - LOW[GRIPPER])
    return q


def steps_of(joint: Joint, radians: float) -> int:
    """The encoder's reading, before the homing offset is taken off."""
    if joint.name == "gripper":
        fraction = (radians - joint.low) / (joint.high - joint.low)
        homed = joint.range_min + fraction * (joint.range_max - joint.range_min)
    else:
        homed = (joint.range_min + joint.range_max) / 2 + math.degrees(radians) * STEPS_PER_DEGREE
    return round(homed) + joint.homing_offset


def radians_of(joint: Joint, steps: float) -> float:
    """The inverse of :func:`steps_of`."""
    homed = steps - joint.homing_offset
    if joint.name == "gripper":
        fraction = (homed - joint.range_min) / (joint.range_max - joint.range_min)
        return joint.low + fraction * (joint.high - joint.low)
    return math.radians((homed - (joint.range_min + joint.range_max) / 2) / STEPS_PER_DEGREE)


def write_calibration(folder: Path, robot_id: str = "bench") -> Path:
    """Write ``<folder>/<robot_id>.json``, which LeRobot's SO-101 drivers load for that id.

    The file is whole or absent: a service that starts meanwhile never reads half of it.
    """
    entries = {
        joint.name: {
            "id": joint.id,
            "drive_mode": 0,
            "homing_offset": joint.homing_offset,
            "range_min": joint.range_min,
            "range_max": joint.range_max,
        }
        for joint in TABLE
    }
    path = folder / f"{robot_id}.json"
    write_whole(path, json.dumps(entries, indent=4) + "\n")
    return path
