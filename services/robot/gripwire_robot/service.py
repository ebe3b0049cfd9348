"""The robot service: state and action at 60 Hz, goals by command, and an end that leaves no motor burning."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Command, Done, Goal, Hold, Release, Reply, Reset, Sent, Underway
from gripwire.service import RateKeeper, Runtime
from gripwire_robot import connect, limits, motion, reset
from gripwire_robot.arm import Arm, Reading
from gripwire_robot.servos import PortLost, listed
from gripwire_robot.settings import Robot
from gripwire_robot.telling import InForce, Telling

log = logging.getLogger("gripwire.robot")

BACKOFF_S = (0.2, 5.0)
REST_SPEED = 90.0
SETTLED = 3.0
"""Degrees (gripper: per cent) within which a move counts as having arrived."""
WATCH_EVERY = 5
"""Ticks between two slow readings: temperature and torque of all six motors once a second at 60 Hz."""
SAME_REQUEST_S = 0.5
"""Ctrl+C reaches a whole process group, and a supervisor passes it on: within this time it is one request."""


class RobotService:
    """Drives the arm. All of it, commands included, runs on the main thread: the bus needs no lock."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.section("robot", Robot)
        self.rate_hz: float | None = self._settings.rate_hz
        self._arm = Arm(self._settings)
        self._relative = self._settings.relative_limits()
        self._goal = InForce()
        self._move: motion.Legs | None = None
        self._rewrite = 0
        self._released = False
        self._ticks = 0
        self._lost = ""
        self._backoff = BACKOFF_S[0]
        self._next_try = 0.0

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {Goal: self._on_goal, Reset: self._on_reset, Hold: self._on_hold, Release: self._on_release}

    def setup(self) -> None:
        connect.check(self._settings)
        self._tell = Telling(self._runtime, self._arm)
        self._runtime.versions["lerobot"] = _lerobot_version()
        try:
            self._arm.connect()
            self._arm.read()
        except PortLost as e:
            raise UserError(str(e)) from e
        self._take_present("hold")

    # --- the tick -------------------------------------------------------------------------------------

    def update(self) -> None:
        self._ticks += 1
        if not self._arm.connected:
            self._reconnect()
        reading = self._pass() if self._arm.connected else None
        self._tell.state(reading, self._lost)
        self._tell.action(self._goal)
        self._tell.health()

    def _pass(self) -> Reading | None:
        """One turn at the bus."""
        try:
            reading = self._arm.read()
            for joint in reading.back:
                self._goal.position[joint] = self._goal.asked[joint] = self._arm.position[joint]
            if self._move:
                self._follow(self._move)
            elif self._rewrite > 0 and not self._released:
                sent = self._arm.send(self._goal.position)
                self._rewrite -= sent.keys() == self._goal.position.keys()  # not while one cannot hear it
            if self._ticks % WATCH_EVERY == 0:
                self._arm.watch()
        except PortLost as e:
            self._lose(e)
            return None
        return reading

    def _follow(self, move: motion.Legs) -> None:
        now = time.monotonic()
        wanted = move.at(now)
        sent = self._send(wanted, self._goal.source, asked=dict(move.target))
        arrived = all(abs(sent[j] - move.target[j]) < 1e-6 for j in sent)
        # An arm that something blocks is never sent on by force: the goal stays near where it is.
        if move.over(now) and (arrived or now > move.t_start + move.seconds + 1.0):
            self._move = None

    def _send(self, goal: dict[str, float], source: str, asked: dict[str, float]) -> dict[str, float]:
        """Limit, write, and note what was sent."""
        present = self._arm.position
        goal = {joint: value for joint, value in goal.items() if joint in present}
        sent = self._arm.send(limits.clip(goal, present, self._arm.limits, self._relative))
        if not self._goal.told:  # a second goal within one tick: the first was sent too, so it is told
            self._tell.action(self._goal)
        position = self._goal.position | sent
        self._goal = InForce(position, position | asked, source, clock.monotonic_ns(), told=False)
        # Goals are not acknowledged on the bus: two repetitions make a lost packet harmless.
        self._rewrite = 2
        return sent

    def _take_present(self, source: str) -> None:
        """Make the present pose the goal in force (it has been written to the motors already)."""
        self._move, self._rewrite = None, 0
        here = dict(self._arm.position)
        self._goal = InForce(here, dict(here), source, clock.monotonic_ns())

    # --- commands -------------------------------------------------------------------------------------

    def _on_goal(self, command: Goal) -> Sent:
        self._check(command.position)
        self._wake()
        self._move = None
        try:
            return Sent(position=self._send(command.position, command.source, asked=command.position))
        except PortLost as e:
            raise self._refuse(e) from e

    def _on_reset(self, command: Reset) -> Underway:
        self._check(self._settings.start_pose if command.position is None else command.position)
        present = dict(self._arm.position)
        start = present if self._released else present | self._goal.position
        going = reset.plan(command, start, self._arm.silent, self._settings, self._arm.limits)
        self._wake()
        self._goal.source = "reset"
        self._move = going.path(time.monotonic())
        return going.reply()

    def _on_hold(self, command: Hold) -> Done:
        self._must_be_connected()
        try:
            failed = self._arm.hold()
        except PortLost as e:
            raise self._refuse(e) from e
        self._released = False
        self._take_present("hold")
        if failed:
            raise UserError(f"not every motor holds: {listed(failed)}")
        return Done(text="torque on, holding the present pose")

    def _on_release(self, command: Release) -> Done:
        self._must_be_connected()
        self._released, self._move = True, None
        try:
            failed = self._arm.cut_torque()
        except PortLost as e:
            raise self._refuse(e) from e
        if failed:
            raise UserError(f"torque could not be cut at every motor: {listed(failed)}; switch its power off")
        return Done(text="torque off, the arm is limp")

    def _check(self, position: dict[str, float]) -> None:
        self._must_be_connected()
        limits.check(position, self._arm.limits)
        unread = [joint for joint in position if joint not in self._arm.position]
        if unread or all(joint in self._arm.silent for joint in position):
            raise UserError(f"{', '.join(unread or position)} does not answer; see `gripwire robot status`")

    def _wake(self) -> None:
        """A goal for a limp arm turns torque on first, each joint where it is, as LeRobot does on connect."""
        if self._released:
            self._on_hold(Hold())

    def _must_be_connected(self) -> None:
        if not self._arm.connected:
            raise UserError(self._lost or "the arm is not connected")

    def _refuse(self, error: PortLost) -> UserError:
        self._lose(error)
        return UserError(str(error))

    # --- losing and finding the port ------------------------------------------------------------------

    def _lose(self, error: PortLost) -> None:
        self._arm.drop()
        self._move = None
        self._lost = str(error)
        self._backoff = BACKOFF_S[0]
        self._next_try = time.monotonic() + self._backoff
        self._runtime.problem("port", self._lost)
        self._runtime.count("port_lost")

    def _reconnect(self) -> None:
        if time.monotonic() < self._next_try:
            return
        try:
            connect.check(self._settings)
            self._arm.connect()
            self._arm.read()
            if self._released:
                self._arm.cut_torque()
        except (PortLost, UserError) as e:
            self._arm.drop()
            self._backoff = min(BACKOFF_S[1], self._backoff * 2)
            self._next_try = time.monotonic() + self._backoff
            if isinstance(e, UserError):  # there is a port again, or it is a remedy that the user must apply
                self._lost = str(e)
                self._runtime.problem("port", self._lost)
            return
        self._lost = ""
        self._runtime.problem("port", "")
        self._take_present("hold")

    # --- the end --------------------------------------------------------------------------------------

    def close(self, failed: bool) -> None:
        arm = self._arm
        if not arm.connected:
            if self._lost:
                log.error("torque could not be cut: %s", self._lost)
            return
        try:
            if not failed and arm.holding and self._goal.position:
                self._rest()
        except Exception as e:  # whatever it is, the torque must go
            log.error("the move to the rest pose failed: %s", e)
        finally:
            self._cut()

    def _cut(self) -> None:
        try:
            failures = self._arm.cut_torque()
        except PortLost as e:
            log.error("torque could not be cut: %s", e)
            return
        finally:
            self._arm.drop()
        for joint, reason in failures.items():
            log.error("torque could not be cut at %s: %s; switch its power off", joint, reason)
        if not failures:
            log.info("torque is off at all motors")

    def _rest(self) -> None:
        """Move to the rest pose within ``rest_seconds``; another signal ends the move at once."""
        arm, begin = self._arm, time.monotonic()
        hurry = _second_signal()
        target = limits.within(self._settings.rest_pose, arm.limits)
        start = {joint: arm.position[joint] for joint in target}
        needed = motion.shortest(start, target, REST_SPEED)
        longest = self._settings.rest_seconds
        move = motion.Move(start, target, begin, min(needed, max(longest - 0.2, 0.0)))
        keeper = RateKeeper(self.rate_hz)
        while time.monotonic() < begin + longest and not hurry.is_set():
            reading = arm.read()
            there = all(abs(arm.position[j] - target[j]) < SETTLED for j in target if j not in arm.silent)
            if there and move.over(time.monotonic()):
                break
            self._send(move.at(time.monotonic()), "rest", asked=target)
            self._tell.state(reading, "")
            self._tell.action(self._goal)
            keeper.tick()
            hurry.wait(keeper.remaining())


def _second_signal() -> threading.Event:
    """Set by a SIGTERM or SIGINT that is not an echo of the first."""
    event, begin = threading.Event(), time.monotonic()

    def on_signal(number: int, _frame: object) -> None:
        if time.monotonic() - begin > SAME_REQUEST_S:
            event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return event


def _lerobot_version() -> str:
    from importlib.metadata import version

    return version("lerobot")


def build(runtime: Runtime) -> RobotService:
    """What :func:`gripwire.service.run` needs to make the service."""
    return RobotService(runtime)
