"""The section `[robot]` of gripwire.toml."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from gripwire.messages import JOINTS
from gripwire.settings import Section


def _known_joints(pose: dict[str, float]) -> dict[str, float]:
    if unknown := sorted(set(pose) - set(JOINTS)):
        raise ValueError(f"no joint `{unknown[0]}`; there are: {', '.join(JOINTS)}")
    return pose


Pose = Annotated[dict[str, float], AfterValidator(_known_joints)]
"""Joint -> degrees (gripper: 0..100 per cent open). Joints that are not named stay where they are."""

START = {
    "shoulder_pan": 0.0, "shoulder_lift": 3.0, "elbow_flex": -1.5,
    "wrist_flex": 88.5, "wrist_roll": 0.0, "gripper": 40.0,
}  # fmt: skip
"""The gripper points down, its tip 25 cm in front of the base and 7 cm above the table."""
REST = {
    "shoulder_pan": 0.0, "shoulder_lift": -90.0, "elbow_flex": 90.0,
    "wrist_flex": 40.0, "wrist_roll": 0.0,
}  # fmt: skip
"""Folded; the gripper keeps what it holds until torque goes."""


def _low_to_high(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"[{bounds[0]:g}, {bounds[1]:g}]: the lower bound comes first")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_low_to_high)]


class Workspace(Section):
    """The box in which a reset may end: metres in the arm's base frame, x forward, y left, z up."""

    x: Bounds = (0.10, 0.40)
    y: Bounds = (-0.25, 0.25)
    z: Bounds = (0.01, 0.35)

    def corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and the highest x, y, z."""
        low, high = np.array([self.x, self.y, self.z]).T
        return low, high


class Robot(Section):
    """The arm and how far it may be trusted to move."""

    port: str | None = Field(None, description="serial port of the arm's bus")
    id: str = Field("follower", min_length=1, description="LeRobot's id: the name of the calibration file")
    calibration_dir: Path | None = Field(None, description="folder of <id>.json; LeRobot's own unless set")
    rate_hz: float = Field(60.0, ge=1, le=200)
    max_relative_target: float | dict[str, float] = Field(
        20.0,
        description="LeRobot's: how far from where it is a joint may be sent at once (degrees, gripper %)",
    )
    max_jump: float = Field(90.0, gt=0, description="a goal farther off than this is refused, degrees")
    max_speed: float = Field(240.0, gt=0, le=720, description="fastest goal, degrees (gripper: %) per second")
    max_current_ma: float = Field(
        1500.0, gt=0, description="a joint that draws more is blocked: the arm holds"
    )
    max_current_s: float = Field(3.0, gt=0, description="if it does for so long")
    max_temperature_c: float = Field(
        65.0, ge=40, le=66, description="above it the arm holds, 3 above torque goes; servos let go at 70"
    )
    gripper_stall_s: float = Field(1.5, gt=0, description="a gripper that presses for so long is relaxed")
    gripper_squeeze: float = Field(
        3.0, ge=0, description="%, how far beyond what it holds its goal stays then"
    )
    watchdog_s: float = Field(0.5, ge=0.1, le=10, description="goals that stop for so long: the arm holds")
    guard_s: float = Field(2.0, ge=0.5, le=60, description="a service that hangs for so long has torque cut")
    leader_port: str | None = Field(None, description="serial port of the leader arm, for teleoperation")
    leader_id: str = Field("leader", min_length=1, description="LeRobot's id of the leader arm")
    leader_calibration_dir: Path | None = Field(None, description="its folder of <id>.json; LeRobot's own")
    takeover: bool = Field(False, description="moving the leader by hand takes over from a policy")
    takeover_deg: float = Field(10.0, gt=0, description="how far it must be moved within a second")
    start_pose: Pose = Field(START, description="where `Reset` goes")
    reset_tip: tuple[float, float, float] | None = Field(
        None, description="x, y, z in metres: where `Reset` brings the tip; the start pose's own unless set"
    )
    jitter_xy: float = Field(0.01, ge=0, le=0.1, description="metres a reset strays in x and y; 0: none")
    jitter_z: float = Field(0.01, ge=0, le=0.1, description="metres a reset strays up and down")
    workspace: Workspace = Field(Workspace(), description="the box in which a reset may end")
    via_points: list[Pose] | None = Field(
        None, description="poses that a reset passes; unless set: up, and over to above its end"
    )
    reset_speed: float = Field(120.0, gt=0, le=240, description="of the fastest joint in a reset, per second")
    rest_pose: Pose = Field(REST, description="where the arm goes before its torque is cut at the end")
    rest_seconds: float = Field(3.0, ge=0, le=3, description="longest time for that move")

    def relative_limits(self) -> dict[str, float]:
        """``max_relative_target`` by joint; a joint that a table leaves out gets LeRobot users' usual 20."""
        given = self.max_relative_target
        return {j: given.get(j, 20.0) if isinstance(given, dict) else given for j in JOINTS}

    def calibration_file(self) -> Path:
        """Where the calibration is: ``calibration_dir``, else where LeRobot keeps it.

        LeRobot's rule is repeated here because importing it to ask takes five seconds.
        """
        folder = self.calibration_dir or _lerobots_folder() / "robots" / "so_follower"
        return folder.expanduser() / f"{self.id}.json"

    def leader_calibration_file(self) -> Path:
        """The same for the leader arm."""
        folder = self.leader_calibration_dir or _lerobots_folder() / "teleoperators" / "so_leader"
        return folder.expanduser() / f"{self.leader_id}.json"


def _lerobots_folder() -> Path:
    hub = Path(os.getenv("HF_HOME", "~/.cache/huggingface"))
    home = Path(os.getenv("HF_LEROBOT_HOME", hub / "lerobot"))
    return Path(os.getenv("HF_LEROBOT_CALIBRATION", home / "calibration"))
