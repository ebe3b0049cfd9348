"""The leader drives the follower: in teleoperation, or as an intervention while a policy has the arm."""

import time
from typing import Literal

from gripwire import clock
from gripwire.errors import UserError
from gripwire.service import Runtime
from gripwire_robot.leader import Leader
from gripwire_robot.pursuit import Pursuit
from gripwire_robot.settings import Robot

CATCH_UP = 60.0
"""Units per second at which the follower goes to a leader that is elsewhere."""
CAUGHT = 2.0
"""Units within which it has caught up; from then on it follows as fast as it may."""
MARGIN_S = 0.004
"""Of each tick that is left to commands."""

Mode = Literal["", "teleoperation", "intervention"]


class Teleop:
    """Whether the leader drives, and how."""

    def __init__(self, runtime: Runtime, settings: Robot) -> None:
        self.mode: Mode = ""
        self._runtime, self._settings = runtime, settings
        self._leader: Leader | None = None
        self._caught = False
        self._since = 0
        """CLOCK_MONOTONIC ns when the leader took over: older readings do not count."""

    def start(self) -> None:
        """Look for the leader from now on, where one is set."""
        if self._settings.leader_port:
            self._leader = Leader(self._settings)

    def begin(self, mode: Mode) -> None:
        """Let the leader drive.

        Raises:
            UserError: there is no leader, or it cannot be read.
        """
        if self._leader is None:
            raise UserError(
                "no leader arm is set: give --leader-port or set `leader_port` in [robot] of gripwire.toml"
            )
        if self._leader.trouble or self._leader.sample is None:
            raise UserError(
                self._leader.trouble or "the leader arm is not connected yet: try again in a second"
            )
        self.mode, self._since = mode, clock.monotonic_ns()
        self.catch_up()
        self._leader.follow(True)

    def end(self) -> None:
        """The leader drives no longer."""
        self.mode = ""
        if self._leader:
            self._leader.follow(False)

    def catch_up(self) -> None:
        """Go to where the leader is slowly at first: something else has moved the follower."""
        self._caught = False

    def taken_over(self) -> bool:
        """Whether a hand has moved the leader far enough to take over."""
        if self.mode or not self._leader or not self._settings.takeover or self._leader.trouble:
            return False
        return self._leader.moved() > self._settings.takeover_deg

    def lost(self) -> str:
        """Why the leader that drives cannot be followed any more; empty: it can."""
        if not self.mode or self._leader is None:
            return ""
        newest = max(self._leader.sample.t_read if self._leader.sample else 0, self._since)
        if (clock.monotonic_ns() - newest) / 1e9 <= self._settings.watchdog_s:
            return ""
        return self._leader.trouble or "the leader arm has fallen silent; check its cables"

    def follow(self, pursuit: Pursuit, until: float) -> None:
        """Send every reading of the leader on, as it comes, until shortly before ``until`` (monotonic s).

        Raises:
            PortLost: the follower is gone.
        """
        if self._leader is None:
            return
        sample = self._leader.sample
        while (sample := self._leader.wait(sample, until - MARGIN_S - time.monotonic())) is not None:
            speed = self._settings.max_speed if self._caught else CATCH_UP
            behind = pursuit.lead(sample.position, speed, sample.t_read, self.mode == "intervention")
            self._caught |= behind < CAUGHT
            self._runtime.count("leader_goals")

    def health(self) -> None:
        """The leader's trouble to the heartbeat."""
        if self._leader:
            self._runtime.problem("leader", self._leader.trouble)

    def close(self) -> None:
        if self._leader:
            self._leader.close()
