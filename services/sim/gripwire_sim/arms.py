"""Who moves the horns: the follower's servos drive the simulated arm, the leader's stand for a hand."""

import time

import numpy as np
from numpy.typing import NDArray

from gripwire_sim import joints
from gripwire_sim.feetech import Chain, Servo
from gripwire_sim.world import REST, World

FULL_TORQUE = 2.94
"""N m: what so101-nexus's model of the STS3215 gives at most."""
ROOM_C, RISE_C = 31.0, 35.0
_THERMAL_S = 240.0
USUAL_V = 7.4


def _servos() -> list[Servo]:
    """Six servos as LeRobot leaves them: calibrated, the gripper limited to half its torque."""
    return [
        Servo(
            joint.id,
            Homing_Offset=joint.homing_offset,
            Min_Position_Limit=joint.range_min,
            Max_Position_Limit=joint.range_max,
            Max_Torque_Limit=500 if joint.name == "gripper" else 1000,
        )
        for joint in joints.TABLE
    ]


class Follower:
    """Six servos on the simulated arm."""

    def __init__(self, world: World) -> None:
        self.chain = Chain(_servos(), self._sense, self._drive)
        self.hot: dict[int, float] = {}
        """Servo -> degrees Celsius, where it is hotter than its work makes it."""
        self._world = world
        self._warmth = np.zeros(6)
        self._sensed = time.monotonic()
        self._sense()
        self._drive()

    def _sense(self) -> None:
        now = self._world.snapshot()
        load = now.torque / FULL_TORQUE
        seconds, self._sensed = time.monotonic() - self._sensed, time.monotonic()
        # A motor warms with the square of its current, towards its end temperature at an exponential pace.
        self._warmth += (load**2 - self._warmth) * (1 - np.exp(-seconds / _THERMAL_S))
        was_hot = [servo.error for servo in self.chain.servos.values()]
        for i, (joint, servo) in enumerate(zip(joints.TABLE, self.chain.servos.values(), strict=True)):
            servo.sense(
                joints.steps_of(joint, float(now.q[i])),
                float(np.degrees(now.velocity[i])) * joints.STEPS_PER_DEGREE,
                float(load[i]),
                self.hot.get(joint.id, ROOM_C + RISE_C * float(self._warmth[i])),
            )
        if was_hot != [servo.error for servo in self.chain.servos.values()]:
            self._drive()  # an overheated servo lets go by itself

    def _drive(self) -> None:
        for i, (joint, servo) in enumerate(zip(joints.TABLE, self.chain.servos.values(), strict=True)):
            self._world.drive(
                i, joints.radians_of(joint, servo.goal), servo.torque, servo.get("Torque_Limit") / 1000
            )

    def feed(self, volts: float = USUAL_V) -> None:
        """Change what the power supply gives."""
        for servo in self.chain.servos.values():
            servo.supply = round(10 * volts)
        self._sense()

    def heat(self, hot: dict[int, float]) -> None:
        """Heat exactly these servos to so many degrees Celsius."""
        self.hot = hot
        self._sense()

    def jam(self, joints: set[int]) -> None:
        """Block exactly these joints, 0 to 5."""
        self._world.jammed = joints
        self._drive()


class Leader:
    """Six servos on a leader arm. It stays where it is, goes where it is told, and where a hand takes it."""

    def __init__(self, q: NDArray[np.float64] = REST) -> None:
        self.chain = Chain(_servos(), self._sense, self._sense)
        self._q = np.array(q, dtype=float)
        self._hand = (self._q, self._q, 0.0, 0.0)
        """From where, to where, since when and for how long a hand moves it."""
        self._sense()

    def move(self, position: dict[str, float], seconds: float) -> None:
        """A hand takes it to ``position`` (LeRobot's units; joints not named stay) within ``seconds``."""
        self._sense()
        end = joints.to_radians(joints.to_lerobot(self._q) | position)
        self._hand = (self._q.copy(), np.clip(end, joints.LOW, joints.HIGH), time.monotonic(), seconds)
        self._sense()

    def _sense(self) -> None:
        start, end, since, seconds = self._hand
        if since:
            x = min((time.monotonic() - since) / seconds, 1.0) if seconds else 1.0
            self._q = start + (end - start) * x**3 * (10 - 15 * x + 6 * x**2)  # least jerk
            self._hand = self._hand if x < 1 else (end, end, 0.0, 0.0)
        for i, (joint, servo) in enumerate(zip(joints.TABLE, self.chain.servos.values(), strict=True)):
            if servo.torque:
                self._q[i] = joints.radians_of(joint, servo.goal)
            servo.sense(joints.steps_of(joint, float(self._q[i])), 0.0, 0.0, ROOM_C)
