"""The end of the service: a move to the rest pose, then no torque at any motor."""

import logging
import signal
import threading
import time
from collections.abc import Callable

from gripwire.service import RateKeeper
from gripwire_robot import limits, motion
from gripwire_robot.arm import Arm
from gripwire_robot.pursuit import Pursuit
from gripwire_robot.servos import PortLost
from gripwire_robot.settings import Robot
from gripwire_robot.telling import Telling

log = logging.getLogger("gripwire.robot")

REST_SPEED = 90.0
SETTLED = 3.0
"""Degrees (gripper: per cent) within which a move counts as having arrived."""
SAME_REQUEST_S = 0.5
"""Ctrl+C reaches a whole process group, and a supervisor passes it on: within this time it is one request."""


def rest(arm: Arm, settings: Robot, pursuit: Pursuit, tell: Telling, beat: Callable[[], object]) -> None:
    """Move to the rest pose within ``rest_seconds``; another signal ends the move at once."""
    begin, hurry = time.monotonic(), _second_signal()
    target = limits.within(settings.rest_pose, arm.limits)
    start = {joint: arm.position[joint] for joint in target}
    needed = motion.shortest(start, target, REST_SPEED)
    move = motion.Move(start, target, begin, min(needed, max(settings.rest_seconds - 0.2, 0.0)))
    keeper = RateKeeper(settings.rate_hz)
    while time.monotonic() < begin + settings.rest_seconds and not hurry.is_set():
        reading = arm.read()
        there = all(abs(arm.position[j] - target[j]) < SETTLED for j in target if j not in arm.silent)
        if there and move.over(time.monotonic()):
            break
        pursuit.rest(move)
        tell.state(reading, "")
        tell.action(pursuit.goal)
        beat()
        keeper.tick()
        time.sleep(keeper.remaining())  # not on `hurry`, which a signal sets in this very thread


def cut(arm: Arm) -> bool:
    """Torque off at every motor; whether each has acknowledged it."""
    try:
        failures = arm.cut_torque()
    except PortLost as e:
        log.error("torque could not be cut: %s", e)
        return False
    finally:
        arm.drop()
    for joint, reason in failures.items():
        log.error("torque could not be cut at %s: %s; switch its power off", joint, reason)
    if not failures:
        log.info("torque is off at all motors")
    return not failures


def _second_signal() -> threading.Event:
    """Set by a SIGTERM or SIGINT that is not an echo of the first."""
    event, begin = threading.Event(), time.monotonic()

    def on_signal(number: int, _frame: object) -> None:
        if time.monotonic() - begin > SAME_REQUEST_S:
            event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return event
