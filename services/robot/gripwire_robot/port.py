"""The arm's port, as it comes and goes."""

import time

from gripwire.errors import UserError
from gripwire.service import Runtime
from gripwire_robot import connect
from gripwire_robot.arm import Arm
from gripwire_robot.servos import PortLost
from gripwire_robot.settings import Robot

BACKOFF_S = (0.2, 5.0)


class Port:
    """Loses the arm, and takes it up again."""

    def __init__(self, runtime: Runtime, settings: Robot, arm: Arm) -> None:
        self._runtime, self._settings, self._arm = runtime, settings, arm
        self.lost = ""
        """Why the arm is away; empty while it is there."""
        self._backoff, self._next_try = BACKOFF_S[0], 0.0

    def lose(self, error: PortLost) -> None:
        self._arm.drop()
        self.lost = str(error)
        self._backoff = BACKOFF_S[0]
        self._next_try = time.monotonic() + self._backoff
        self._runtime.problem("port", self.lost)
        self._runtime.count("port_lost")

    @property
    def due(self) -> bool:
        """Whether it is time to look for the arm again."""
        return not self._arm.connected and time.monotonic() >= self._next_try

    def take_up(self, limp: bool) -> bool:
        """Look for the arm; whether it is there again: holding still, or ``limp``."""
        try:
            connect.check(self._settings)
            self._arm.connect()
            self._arm.read()
            if limp:
                self._arm.cut_torque()
        except (PortLost, UserError) as e:
            self._arm.drop()
            self._backoff = min(BACKOFF_S[1], self._backoff * 2)
            self._next_try = time.monotonic() + self._backoff
            if isinstance(e, UserError):  # there is a port again, or it is a remedy that the user must apply
                self.lost = str(e)
                self._runtime.problem("port", self.lost)
            return False
        self.lost = ""
        self._runtime.problem("port", "")
        return True
