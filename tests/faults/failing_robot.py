"""`gripwire robot run` with a loop that fails on SIGUSR1, as a bug in it would."""

import signal
import sys
from types import FrameType

from gripwire import cli
from gripwire_robot.service import RobotService

asked = False


def ask(number: int, frame: FrameType | None) -> None:
    global asked
    asked = True


turn = RobotService.update


def update(self: RobotService) -> None:
    if asked:
        raise RuntimeError("provoked by a test")
    turn(self)


RobotService.update = update  # type: ignore[method-assign]
signal.signal(signal.SIGUSR1, ask)
sys.argv[0] = "gripwire"
cli.main()
