"""The arm as the loop sees it: no servo and no packet can end a tick.

LeRobot's `sync_read` fails as a whole when one motor is silent. Here a failed transfer is repeated once;
then each motor is asked on its own, and those that stay silent are left out and asked again, one every tenth
of a second and with a short time-out, until they answer.
"""

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field

from gripwire import clock
from gripwire.messages import JOINTS
from gripwire_robot import connect
from gripwire_robot.servos import CORRUPT, MotorError, PortLost, Servos
from gripwire_robot.settings import Robot

PROBE_S = 0.1
ATTEMPTS = 3
FULL, RELAXED = 500, 250
"""Thousandths of its torque that a gripper may use: LeRobot's limit, and what it leaves an overloaded one."""


@dataclass
class Reading:
    """What one pass over the bus brought."""

    fresh: bool
    """All six joints were read in this pass."""
    t_capture: int
    """CLOCK_MONOTONIC ns at the middle of the transfer."""
    back: list[str] = field(default_factory=list)
    """Joints that came back from a loss of power; they hold where they are now, an older goal is void."""


class Arm:
    """Six joints. What uses the bus raises ``PortLost``: then :meth:`drop`, and later :meth:`connect`."""

    def __init__(self, settings: Robot) -> None:
        self.position: dict[str, float] = {}
        """Last good value of each joint, LeRobot's units."""
        self.temperature: dict[str, float] = {}
        self.current: dict[str, float] = {}
        """Milliamperes."""
        self.limits: dict[str, tuple[float, float]] = {}
        self.retries = 0
        self.holding = False
        """Whether torque is meant to be on."""
        self._settings = settings
        self._open: Servos | None = None
        self._silent: dict[str, str] = {}
        self._alarms: dict[str, str] = {}
        self._torque: dict[str, bool] = {}
        self._watch = itertools.cycle(JOINTS)
        self._probes = itertools.cycle(JOINTS)
        self._next_probe = 0.0

    # --- connection -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._open is not None

    def connect(self) -> None:
        """Take the arm up; it holds the pose it is in.

        Raises:
            PortLost: no port, or motors missing.
            UserError: the calibration file cannot be used.
        """
        self._open = connect.connect(self._settings, self._count_retry, first=not self.limits)
        self.limits = self._open.limits()
        self.holding = True
        self._silent, self._alarms = {}, {}
        self._torque = dict.fromkeys(JOINTS, True)
        self.relax(False)  # an earlier service may have died with a relaxed gripper

    def drop(self) -> None:
        """Forget a connection that is lost."""
        if self._open:
            self._open.close()
            self._open = None

    @property
    def _servos(self) -> Servos:
        if self._open is None:
            raise PortLost("the arm is not connected")
        return self._open

    def _count_retry(self) -> None:
        self.retries += 1

    # --- the tick -------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Read every joint that answers: :attr:`position`, :attr:`temperature`, :attr:`current`."""
        joints = [joint for joint in JOINTS if joint not in self._silent]
        begin = clock.monotonic_ns()
        for _ in range(2):
            if not joints:
                break
            try:
                begin = clock.monotonic_ns()
                self._see(joints)
                break
            except MotorError:
                self.retries += 1
        else:
            self._read_each(joints)
        middle = (begin + clock.monotonic_ns()) // 2
        return Reading(fresh=not self._silent, t_capture=middle, back=self._probe())

    def _see(self, joints: list[str]) -> None:
        for joint, present in self._servos.present(joints).items():
            self.position[joint] = present.position
            self.temperature[joint] = present.temperature
            self.current[joint] = present.current

    def _read_each(self, joints: list[str]) -> None:
        with self._servos.short_timeout():
            for joint in joints:
                if reason := self._read_one(joint):
                    self._silent[joint] = reason

    def _read_one(self, joint: str) -> str:
        """Empty, or why the joint counts as silent. Only a garbled answer is worth asking again at once."""
        reason = CORRUPT
        for _ in range(ATTEMPTS):
            if reason == CORRUPT:
                try:
                    self._see([joint])
                    return ""
                except MotorError as e:
                    self.retries += 1
                    reason = str(e)
        return reason

    def _probe(self) -> list[str]:
        """Ask a silent motor again, when it is time, and if it answers the next one too. Returns those that
        had lost their torque meanwhile (or kept it, when the arm went limp) and now do as the others."""
        changed: list[str] = []
        if not self._silent or time.monotonic() < self._next_probe:
            return changed
        self._next_probe = time.monotonic() + PROBE_S
        while self._silent:
            joint = next(joint for joint in self._probes if joint in self._silent)
            try:
                with self._servos.short_timeout():
                    if self._revive(joint):
                        changed.append(joint)
            except MotorError as e:
                self.retries += 1
                self._silent[joint] = str(e)
                break
            del self._silent[joint]
        return changed

    def _revive(self, joint: str) -> bool:
        """Read a motor that was away. One that lost power holds where it is: its old goal would be a jump."""
        self._see([joint])
        on, _ = self._servos.byte(joint, "Torque_Enable")
        if bool(on) == self.holding:
            return False
        if self.holding:
            self._servos.write_goals({joint: self.position[joint]})
        self._servos.set_torque(joint, self.holding)
        self._torque[joint] = self.holding
        return True

    def send(self, goal: dict[str, float]) -> dict[str, float]:
        """Write the goals of those joints that answer; what was written."""
        goal = {joint: value for joint, value in goal.items() if joint not in self._silent}
        if goal:
            try:
                self._servos.write_goals(goal)
            except MotorError:
                self.retries += 1  # nothing acknowledges it anyway: the caller writes it again
        return goal

    def watch(self) -> None:
        """Look whether the next motor still has its torque, and for its alarms."""
        joint = next(self._watch)
        if joint in self._silent:
            return
        try:
            on, alarm = self._servos.byte(joint, "Torque_Enable")
        except MotorError:
            self.retries += 1
            return
        self._alarms.pop(joint, None)
        if alarm:
            self._alarms[joint] = f"alarm: {alarm}"
        self._torque[joint] = bool(on)

    def relax(self, relaxed: bool) -> bool:
        """Let the gripper press with half of its force, or with all of it again; whether it has heard."""
        if "gripper" in self._silent:
            return False
        try:
            self._servos.set_grip(RELAXED if relaxed else FULL)
        except MotorError:
            self.retries += 1
            return False
        return True

    # --- torque ---------------------------------------------------------------------------------------

    def was_cut(self) -> None:
        """Somebody else has cut torque at every motor: what was read back before says nothing any more."""
        self.holding = False
        self._torque = dict.fromkeys(JOINTS, False)

    @property
    def torque(self) -> bool:
        """Whether every motor holds, as last read back."""
        return self.connected and all(self._torque.get(joint, False) for joint in JOINTS)

    def hold(self, keep: dict[str, float] | None = None) -> dict[str, str]:
        """Torque on, every joint where it is, or at ``keep``; the joints at which that failed, with the
        reason."""
        self.read()
        self.send(self.position | (keep or {}))
        self.holding = True
        return dict(self._silent) | self._each([j for j in JOINTS if j not in self._silent], on=True)

    def cut_torque(self) -> dict[str, str]:
        """Torque off, first in one packet to all, then motor by motor until each has acknowledged it.

        Returns the joints at which it failed, with the reason.
        """
        self.holding = False
        with suppress(MotorError):
            self._servos.cut_all()
        return self._each(list(JOINTS), on=False)

    def _each(self, todo: list[str], on: bool) -> dict[str, str]:
        """Set each motor's torque on its own, and again where it failed: one must not stop the others."""
        failed: dict[str, str] = {}
        with self._servos.short_timeout():
            for _ in range(ATTEMPTS):
                for joint in todo:
                    try:
                        self._servos.set_torque(joint, on)
                        self._torque[joint] = on
                        failed.pop(joint, None)
                    except MotorError as e:
                        failed[joint] = str(e)
                        self.retries += 1
                todo = list(failed)
        return failed

    # --- faults ---------------------------------------------------------------------------------------

    @property
    def silent(self) -> dict[str, str]:
        """Joints that do not answer, with the reason; :attr:`position` keeps their last good value."""
        return dict(self._silent)

    @property
    def faults(self) -> dict[str, str]:
        """Joint -> what is wrong with it now."""
        out: dict[str, str] = {}
        if self.holding:
            lost = "has lost its torque; `gripwire robot hold`"
            out = {joint: lost for joint, on in self._torque.items() if not on}
        return out | self._alarms | self._silent
