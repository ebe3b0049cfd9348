"""The simulated bench: arm, cube, table and light, stepped in real time or as fast as it goes."""

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gripwire_sim import joints
from gripwire_sim.grasp import GraspTruth
from gripwire_sim.scene import Scene, apply_scene, build_model

if TYPE_CHECKING:
    import mujoco

TICK_S = 0.01
"""The finest grain of the world in time: two physics steps, one look at the contacts."""
REST = np.radians([0.0, -90.0, 90.0, 37.8, 0.0, -10.0])
"""so101-nexus's rest pose: folded, jaw shut."""
_LIMP_DAMPING, _LIMP_FRICTION = 4.0, 0.15
"""What a servo's gear train does to a limp joint (N m s/rad, N m): it sinks in a second or two."""
_JAMMED_FRICTION = 50.0
"""More than any servo overcomes, N m."""
_CATCH_UP_S = 0.25


@dataclass(frozen=True)
class Snapshot:
    """The world at one moment. Radians, metres; forces in N m; ``t`` is CLOCK_MONOTONIC ns."""

    t: int
    q: NDArray[np.float64]
    velocity: NDArray[np.float64]
    torque: NDArray[np.float64]
    cube: NDArray[np.float64]
    """Position and quaternion (x, y, z, qw, qx, qy, qz)."""
    grasped: bool
    seed: int


class World:
    """MuJoCo's model and state of the bench. Every method may be called from any thread."""

    def __init__(self, seed: int = 0) -> None:
        import mujoco

        self._mujoco = mujoco
        self.lock = threading.RLock()
        self.model = build_model()
        self.data = mujoco.MjData(self.model)
        self.scene = Scene.draw(seed)
        self.lamp = 1.0
        self.jammed: set[int] = set()
        """Joints (0 to 5) that something blocks."""
        self.slipped_s = 0.0
        self.simulated_s = 0.0
        self._steps = round(TICK_S / self.model.opt.timestep)
        self._truth = GraspTruth(self.model, TICK_S)
        self._cube = int(self.model.joint("cube_joint").qposadr[0])
        self._cube_dof = int(self.model.joint("cube_joint").dofadr[0])
        self._stiffness = self.model.actuator_gainprm[:6, 0].copy()
        self._bias = self.model.actuator_biasprm[:6].copy()
        self._force = self.model.actuator_forcerange[:6].copy()
        self._damping = self.model.dof_damping[:6].copy()
        self._friction = self.model.dof_frictionloss[:6].copy()
        self.data.qpos[:6] = REST
        self.data.ctrl[:6] = REST
        self.reset(self.scene)

    def reset(self, scene: Scene) -> None:
        """Lay out a scene. The arm stays as it is: at a bench nobody moves it by magic."""
        with self.lock:
            self.scene = scene
            half = scene.cube_yaw / 2
            self.data.qpos[self._cube : self._cube + 7] = [*scene.cube, np.cos(half), 0, 0, np.sin(half)]
            self.data.qvel[self._cube_dof : self._cube_dof + 6] = 0
            apply_scene(self.model, scene, self.lamp)
            self._truth.reset()
            self._mujoco.mj_forward(self.model, self.data)

    def place(self, q: NDArray[np.float64]) -> None:
        """Put the arm into a pose at once, motionless and holding it. For tests and headless runs."""
        with self.lock:
            self.data.qpos[:6] = self.data.ctrl[:6] = q
            self.data.qvel[:6] = 0
            self._mujoco.mj_forward(self.model, self.data)

    def dim(self, lamp: float) -> None:
        """Turn the lamp down to a share of its light (0..1)."""
        with self.lock:
            self.lamp = lamp
            apply_scene(self.model, self.scene, lamp)

    def drive(self, joint: int, target: float, hold: bool, strength: float = 1.0) -> None:
        """What a servo does: hold ``target`` (radians) with a share of its torque, or let the joint sink."""
        with self.lock:
            self.data.ctrl[joint] = min(max(target, joints.LOW[joint]), joints.HIGH[joint])
            self.model.actuator_gainprm[joint, 0] = self._stiffness[joint] if hold else 0
            self.model.actuator_biasprm[joint] = self._bias[joint] if hold else 0
            self.model.actuator_forcerange[joint] = self._force[joint] * strength
            self.model.dof_damping[joint] = self._damping[joint] if hold else _LIMP_DAMPING
            self.model.dof_frictionloss[joint] = self._friction[joint] if hold else _LIMP_FRICTION
            if joint in self.jammed:
                self.model.dof_frictionloss[joint] = _JAMMED_FRICTION

    def step_for(self, seconds: float) -> None:
        """Simulate ``seconds`` as fast as it goes, in whole ticks of :data:`TICK_S`."""
        for _ in range(round(seconds / TICK_S)):
            with self.lock:
                self._mujoco.mj_step(self.model, self.data, nstep=self._steps)
                self._truth.update(self.data)
                self.simulated_s += TICK_S

    def run(self, stop: threading.Event) -> None:
        """Keep pace with the clock until ``stop``. Time lost beyond a quarter of a second is not made up
        for (the world slows down instead of leaping) and is added to ``slipped_s``."""
        simulated_until = time.monotonic()
        while not stop.wait(max(0.0, simulated_until + TICK_S - time.monotonic())):
            behind = time.monotonic() - simulated_until
            if behind > _CATCH_UP_S:
                self.slipped_s += behind - TICK_S
                simulated_until += behind - TICK_S
                behind = TICK_S
            ticks = int(behind / TICK_S)
            self.step_for(ticks * TICK_S)
            simulated_until += ticks * TICK_S

    def snapshot(self) -> Snapshot:
        with self.lock:
            return Snapshot(
                t=time.clock_gettime_ns(time.CLOCK_MONOTONIC),
                q=self.data.qpos[:6].copy(),
                velocity=self.data.qvel[:6].copy(),
                torque=self.data.actuator_force[:6].copy(),
                cube=self.data.qpos[self._cube : self._cube + 7].copy(),
                grasped=self._truth.grasped,
                seed=self.scene.seed,
            )

    def expose(self, into: "mujoco.MjData") -> Snapshot:
        """Copy the pose of everything into ``into``, ready to be drawn, with the snapshot of that moment."""
        with self.lock:
            snapshot = self.snapshot()
            into.qpos[:] = self.data.qpos
        self._mujoco.mj_kinematics(self.model, into)
        self._mujoco.mj_comPos(self.model, into)
        self._mujoco.mj_camlight(self.model, into)
        return snapshot
