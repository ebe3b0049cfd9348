"""What counts as a grasp: the truth that the product is measured against."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

FORCE_N = 0.5
"""A jaw that presses with less does not hold (so101-nexus's threshold)."""
OPPOSITION = 0.3
"""The jaws' pushes must be more than 107 degrees apart (so101-nexus's threshold)."""
DEBOUNCE_S = 0.05
"""The contact must say the same for so long before the truth follows, so that a jaw that chatters on the
cube for a few milliseconds is no change. The truth is late by as much, both ways: 1.5 frames at 30 fps."""


class GraspTruth:
    """Whether both jaws hold the cube, from the simulated contacts, debounced."""

    def __init__(self, model: "mujoco.MjModel", period_s: float) -> None:
        """``period_s``: simulated time between two calls of :meth:`update`."""
        self._model = model
        self._cube = model.geom("cube_geom").id
        self._fixed = _finger_geoms(model, "gripper")
        self._moving = _finger_geoms(model, "moving_jaw_so101_v1")
        self._needed = max(1, round(DEBOUNCE_S / period_s))
        self.reset()

    def reset(self) -> None:
        self.grasped = False
        self._contrary = 0

    def update(self, data: "mujoco.MjData") -> bool:
        """Look at the contacts of this moment; the debounced truth."""
        if self.touching(data) == self.grasped:
            self._contrary = 0
        else:
            self._contrary += 1
            if self._contrary >= self._needed:
                self.grasped, self._contrary = not self.grasped, 0
        return self.grasped

    def touching(self, data: "mujoco.MjData") -> bool:
        """Both jaws press on the cube with force, from opposite sides, at this very moment."""
        import mujoco
        from so101_nexus.grasp import opposing_normals_ok

        geoms = data.contact.geom
        rows = np.flatnonzero((geoms == self._cube).any(axis=1))
        fixed, moving, force = np.zeros(3), np.zeros(3), np.zeros(6)
        for row in rows.tolist():
            first, second = geoms[row].tolist()
            other, inward = (second, -1) if first == self._cube else (first, 1)
            side = fixed if other in self._fixed else moving if other in self._moving else None
            if side is None:
                continue
            mujoco.mj_contactForce(self._model, data, row, force)
            if abs(force[0]) >= FORCE_N:
                # The frame's first row is the normal from the first geom to the second.
                side += inward * abs(force[0]) * data.contact.frame[row, :3]
        if not (fixed.any() and moving.any()):
            return False
        return bool(opposing_normals_ok(fixed, moving, threshold=OPPOSITION))


def _finger_geoms(model: "mujoco.MjModel", body: str) -> set[int]:
    """The geoms that can grip: so101-nexus gives them, and only them, six-dimensional friction."""
    number = model.body(body).id
    return {
        geom
        for geom in range(model.ngeom)
        if model.geom_bodyid[geom] == number and model.geom_contype[geom] and model.geom_condim[geom] == 6
    }
