"""What the robot service says: `robot/state`, `robot/action` and its health."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gripwire import clock
from gripwire.messages import RobotAction, RobotState
from gripwire.service import Runtime
from gripwire_robot import kinematics, motion
from gripwire_robot.arm import Arm, Reading
from gripwire_robot.protection import Verdict
from gripwire_robot.servos import listed

LASTING_S = 0.5
"""A fault is in `robot/state` at once, and worth a warning when it has lasted this long."""
NOISY = 3
"""Repetitions within a second that are worth a warning; a busy machine causes one now and then."""


@dataclass
class InForce:
    """The goal that was last sent."""

    position: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    """The same before limiting."""
    source: str = ""
    t_sent: int = 0
    """CLOCK_MONOTONIC ns"""
    told: bool = True
    intervention: bool = False
    latency_ms: float | None = None
    reason: str = ""


class Telling:
    """The publishers of the robot service."""

    def __init__(self, runtime: Runtime, arm: Arm, driver: Callable[[], str]) -> None:
        self._runtime, self._arm, self._driver = runtime, arm, driver
        self.verdict = Verdict()
        """What the protection of the motors said last."""
        self.states = runtime.publisher("robot/state")
        self.actions = runtime.publisher("robot/action")
        self._velocity = motion.Velocity()
        self._retries_before, self._since = 0, time.monotonic()
        self._well = time.monotonic()

    def state(self, reading: Reading | None, lost: str) -> None:
        """Publish where the arm is; ``reading`` None: it could not be read because of ``lost``."""
        arm = self._arm
        if reading is None:
            self._velocity.forget()
        t_capture = reading.t_capture if reading else clock.monotonic_ns()
        valid = bool(reading and reading.fresh)
        self.states.publish(
            RobotState(
                t_capture=t_capture,
                valid=valid,
                reason="" if valid else (listed(arm.silent) if reading else lost),
                position=dict(arm.position),
                velocity=self._velocity.see(arm.position, t_capture) if reading else {},
                torque=arm.torque,
                temperature=dict(arm.temperature),
                current={joint: round(ma) for joint, ma in arm.current.items()},
                notes=dict(self.verdict.notes),
                faults=self.verdict.faults | arm.faults,
                retries=arm.retries,
                tip=kinematics.forward(arm.position).xyz if valid else None,
            )
        )
        self._runtime.count("states")

    def action(self, goal: InForce) -> None:
        """Publish the goal in force; valid while the motors are meant to hold it."""
        goal.told = True
        self.actions.publish(
            RobotAction(
                t_capture=goal.t_sent,
                valid=self._arm.connected and self._arm.holding,
                position=dict(goal.position),
                asked=dict(goal.asked),
                source=goal.source,
                intervention=goal.intervention,
                driver=self._driver(),
                reason=goal.reason,
                latency_ms=goal.latency_ms,
            )
        )

    def health(self) -> None:
        """Faults that last to the heartbeat, and repetitions when there were many within a second."""
        now = time.monotonic()
        faults = self._arm.faults if self._arm.connected else {}
        self._well = self._well if faults else now
        text = f"the arm: {listed(faults)}; check its cables and power supply"
        self._runtime.problem("servos", text if now - self._well > LASTING_S else "")
        hot = listed(self.verdict.faults)
        self._runtime.problem("heat", f"the arm: {hot}; let it rest, and see what strains it" if hot else "")
        if now - self._since < 1.0:
            return
        retries = self._arm.retries - self._retries_before
        self._retries_before, self._since = self._arm.retries, now
        self._runtime.counts["retries"] = self._arm.retries
        noisy = f"{retries} exchanges with the servos had to be repeated within a second; check the cables"
        self._runtime.problem("bus", noisy if retries >= NOISY and not faults else "")
