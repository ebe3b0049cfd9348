"""Where the gripper's tip goes: inverse kinematics of the SO-101 by damped least squares."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gripwire.errors import UserError
from gripwire_sim import joints
from gripwire_sim.scene import build_model

if TYPE_CHECKING:
    import mujoco

TIP = "gripperframe"
"""so101-nexus's tool point: between the jaw tips, 2 cm from the fixed one, z out of the gripper."""
HOME = np.radians([0.0, -20.0, 40.0, 65.0, 0.0, 0.0])
"""Where the search starts: the elbow up, the gripper down, above the middle of the workspace."""
_DAMPING = 1e-3
_AXIS_WEIGHT, _YAW_WEIGHT = 0.01, 0.02  # metres per radian: what a wrong direction weighs against distance
_TOLERANCE_M, _TOLERANCE_TILT = 2e-3, np.radians(30)


class Arm:
    """Forward and inverse kinematics on a model of its own."""

    def __init__(self, model: "mujoco.MjModel | None" = None) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = build_model() if model is None else model
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(TIP).id

    def forward(self, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Joint angles (6,) in radians -> the tip's position (3,) in metres and axes as columns (3, 3)."""
        self._data.qpos[:6] = q
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        position = self._data.site_xpos[self._site].copy()
        return position, self._data.site_xmat[self._site].reshape(3, 3).copy()

    def reach(
        self, position: ArrayLike, yaw: float = 0.0, near: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Joint angles (6,) in radians that bring the tip to ``position`` (3,), pointing down.

        ``yaw`` (radians) turns the jaws about the vertical: at 0 they open and close along x. The search
        begins at the pose ``near``, which also gives the gripper's own angle. The arm has five joints and
        the wrist bends by 95 degrees, so the pointing gives way where the position needs it, above all high
        up.

        Raises:
            UserError: the tip cannot get within 2 mm of there, pointing down within 30 degrees.
        """
        target = np.asarray(position, dtype=float)
        q = HOME.copy() if near is None else near.copy()
        down, along = np.array([0.0, 0.0, -1.0]), np.array([np.cos(yaw), np.sin(yaw), 0.0])
        jac_p, jac_r = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        for _ in range(100):
            here, axes = self.forward(q)
            self._mujoco.mj_jacSite(self._model, self._data, jac_p, jac_r, self._site)
            # The axis may be either way round: a gripper turned by 180 degrees is as good.
            opening = axes[:, 0] * np.sign(axes[:, 0] @ along or 1.0)
            yaw_error = np.cross(opening, along)[2]
            error = np.concatenate(
                [target - here, _AXIS_WEIGHT * np.cross(axes[:, 2], down), [_YAW_WEIGHT * yaw_error]]
            )
            jacobian = np.vstack([jac_p, _AXIS_WEIGHT * jac_r, _YAW_WEIGHT * jac_r[2:]])[:, :5]
            step = _step(jacobian, error, q[:5])
            q[:5] = np.clip(q[:5] + np.clip(step, -0.2, 0.2), joints.LOW[:5], joints.HIGH[:5])
            if np.abs(step).max() < 1e-6:
                break
        here, axes = self.forward(q)
        off, tilt = float(np.linalg.norm(target - here)), float(np.arccos(np.clip(axes[:, 2] @ down, -1, 1)))
        if off > _TOLERANCE_M or tilt > _TOLERANCE_TILT:
            x, y, z = target.tolist()
            raise UserError(
                f"the gripper cannot point down at ({x:.3f}, {y:.3f}, {z:.3f}) m: it comes within "
                f"{off * 1000:.0f} mm and {np.degrees(tilt):.0f} degrees; ask for a point nearer to (0.25, 0)"
            )
        return q


def _step(
    jacobian: NDArray[np.float64], error: NDArray[np.float64], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One damped step of the five arm joints; a joint at its limit does not waste it by pushing on."""
    free = np.ones(5, dtype=bool)
    while True:
        j = jacobian * free
        step = j.T @ np.linalg.solve(j @ j.T + _DAMPING**2 * np.eye(len(error)), error)
        stuck = ((q <= joints.LOW[:5]) & (step < 0)) | ((q >= joints.HIGH[:5]) & (step > 0))
        if not (stuck & free).any():
            return step
        free &= ~stuck
