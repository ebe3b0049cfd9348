"""The goal in force, and how the motors are brought to it: within ranges, step and speed."""

import time
from collections.abc import Mapping

from gripwire import clock
from gripwire_robot import limits, motion
from gripwire_robot.arm import Arm
from gripwire_robot.protection import Protection
from gripwire_robot.settings import Robot
from gripwire_robot.telling import InForce, Telling

NEARER = 0.2
"""Units that count as coming nearer; an encoder step is 0.09 degrees."""
STUCK_S = 1.0
"""A move that is over and gets no nearer for so long has ended where it is."""
LATE = 1.5
"""Ticks of way that one write makes up for at most: a tick that comes late earns the motors no leap."""


class Pursuit:
    """What is sent to the motors goes through here. What uses the bus raises ``PortLost``."""

    def __init__(self, arm: Arm, settings: Robot, protection: Protection, tell: Telling) -> None:
        self.goal = InForce()
        self._arm, self._protection, self._tell = arm, protection, tell
        self._settings = settings
        self._relative = settings.relative_limits()
        self._aim: dict[str, float] = {}
        """Where what is sent is still on its way to."""
        self._move: motion.Legs | None = None
        self._rewrite = 0
        self._written = self._changed = 0.0
        """When something was sent last, and something else than before (monotonic seconds)."""

    @property
    def moving(self) -> bool:
        """Whether a reset is under way."""
        return self._move is not None

    # --- goals ------------------------------------------------------------------------------------------

    def aim(self, goal: Mapping[str, float], source: str) -> dict[str, float]:
        """Go there at the speed that is allowed, beginning now; where the arm is really sent."""
        self._move = None
        accepted = self._limited(goal)
        self._aim = (self._aim if self._aim else {}) | accepted
        self._send(self._step(self._aim, self._settings.max_speed), source, dict(goal))
        return accepted

    def begin(self, move: motion.Legs) -> None:
        """Follow a path from now on."""
        self._move, self._aim, self._changed = move, {}, time.monotonic()
        self.goal.source, self.goal.reason, self.goal.intervention = "reset", "", False

    def lead(self, goal: Mapping[str, float], speed: float, t_read: int, intervention: bool) -> float:
        """Follow the leader, read at ``t_read`` (ns); how far the farthest joint still has to go."""
        self._move, self._aim = None, {}
        accepted = self._limited(goal)
        sent = self._send(self._step(accepted, speed), "leader", dict(goal), intervention)
        self.goal.latency_ms = (clock.monotonic_ns() - t_read) / 1e6
        return max((abs(accepted[joint] - sent[joint]) for joint in sent), default=0.0)

    def tick(self) -> None:
        """One turn: along the path, nearer to the goal, or once more what may have been lost."""
        if self._move:
            self._follow(self._move)
        elif self._aim:
            self._send(self._step(self._aim, self._settings.max_speed), self.goal.source, self.goal.asked)
        elif self._rewrite > 0:
            sent = self._arm.send(self.goal.position)
            self._rewrite -= sent.keys() == self.goal.position.keys()  # not while one cannot hear it

    def _limited(self, goal: Mapping[str, float]) -> dict[str, float]:
        present = self._arm.position
        known = {joint: value for joint, value in goal.items() if joint in present}
        silent = self._arm.silent
        clipped = limits.clip(known, present, self._arm.limits, self._relative)
        return self._protection.cap({j: v for j, v in clipped.items() if j not in silent})

    def _step(self, goal: Mapping[str, float], speed: float) -> dict[str, float]:
        """The part of the way that is due: ``speed`` units per second since the last write."""
        seconds = min(time.monotonic() - self._written, LATE / self._settings.rate_hz)
        before = self._arm.position | self.goal.position
        return limits.toward(goal, before, speed * seconds)

    def _follow(self, move: motion.Legs) -> None:
        now = time.monotonic()
        wanted = self._step(self._limited(move.at(now)), self._settings.max_speed)
        sent = self._send(wanted, self.goal.source, dict(move.target))
        arrived = all(abs(sent[j] - move.target[j]) < 1e-6 for j in sent)
        # An arm that something blocks is never sent on by force: the goal stays near where it is.
        if move.over(now) and (arrived or now > self._changed + STUCK_S):
            self._move = None

    def _send(
        self, goal: dict[str, float], source: str, asked: dict[str, float], intervention: bool = False
    ) -> dict[str, float]:
        """Write, and note what was sent."""
        sent = self._arm.send(goal)
        self._written = time.monotonic()
        if not self.goal.told and not intervention and source != "leader":
            # A second goal within one tick: the first was sent too, so it is told.
            self._tell.action(self.goal)
        position = self.goal.position | sent
        if any(abs(value - self.goal.position.get(joint, value)) > NEARER for joint, value in sent.items()):
            self._changed = self._written
        self.goal = InForce(
            position, position | asked, source, clock.monotonic_ns(), told=False, intervention=intervention
        )
        self._aim = {j: v for j, v in self._aim.items() if abs(position.get(j, v) - v) > 1e-9}
        # Goals are not acknowledged on the bus: two repetitions make a lost packet harmless.
        self._rewrite = 2
        return sent

    # --- holding ----------------------------------------------------------------------------------------

    def gripping(self) -> dict[str, float]:
        """The gripper's goal where it is closed on something: holding must not drop it."""
        at, goal = self._arm.position.get("gripper"), self.goal.position.get("gripper")
        return {"gripper": goal} if at is not None and goal is not None and goal < at else {}

    def hold(self, reason: str) -> None:
        """Stop where the arm is, whatever it was doing; ``reason`` goes out with the action."""
        self.taken("hold", self.gripping(), reason)
        self._arm.send(self.goal.position)
        self._rewrite = 2

    def taken(self, source: str, keep: Mapping[str, float] = {}, reason: str = "") -> None:
        """Make the present pose (but ``keep``) the goal in force; it has been written already."""
        self._move, self._aim, self._rewrite = None, {}, 0
        here = self._arm.position | dict(keep)
        self.goal = InForce(here, dict(here), source, clock.monotonic_ns(), reason=reason)

    def squeeze(self, asked: Mapping[str, float]) -> None:
        """The gripper's goal anew, after what it may press has changed."""
        if "gripper" in asked and not self._move:
            self._aim |= self._protection.cap({"gripper": asked["gripper"]})

    def stop(self) -> None:
        """Go nowhere any more, without writing anything: torque is off, or the port is lost."""
        self._move, self._aim, self._rewrite = None, {}, 0

    def back(self, joint: str) -> None:
        """A joint that had lost its power holds where it is now: an older goal is void."""
        self.goal.position[joint] = self.goal.asked[joint] = self._arm.position[joint]
        self._aim.pop(joint, None)

    def rest(self, move: motion.Move) -> None:
        """A step on the way to the rest pose."""
        self._move, self._aim = None, {}
        self._send(self._limited(move.at(time.monotonic())), "rest", dict(move.target))
