"""The robot service: state and action at 60 Hz, goals by command, and an end that leaves no motor burning."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Command, Done, Goal, Hold, Release, Reply, Reset, RobotAction, RobotState, Sent
from gripwire.service import RateKeeper, Runtime
from gripwire_robot import connect, limits, motion
from gripwire_robot.arm import Arm, Reading
from gripwire_robot.servos import PortLost, listed
from gripwire_robot.settings import Robot

log = logging.getLogger("gripwire.robot")

BACKOFF_S = (0.2, 5.0)
MAX_SPEED = 240.0
"""Units per second: a loaded STS3215 at 7.4 V does about 270 degrees a second."""
REST_SPEED = 90.0
SETTLED = 3.0
"""Degrees (gripper: per cent) within which a move counts as having arrived."""
WATCH_EVERY = 5
"""Ticks between two slow readings: temperature and torque of all six motors once a second at 60 Hz."""
NOISY = 3
"""Repetitions within a second that are worth a warning; a busy machine causes one now and then."""
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
        self._velocity = motion.Velocity()
        self._goal: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._source = ""
        self._t_sent = 0
        self._move: motion.Move | None = None
        self._rewrite = 0
        self._unpublished = False
        self._released = False
        self._ticks = 0
        self._lost = ""
        self._backoff = BACKOFF_S[0]
        self._next_try = 0.0
        self._retries_before, self._retries_since = 0, time.monotonic()

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {Goal: self._on_goal, Reset: self._on_reset, Hold: self._on_hold, Release: self._on_release}

    def setup(self) -> None:
        connect.check(self._settings)
        self._states = self._runtime.publisher("robot/state")
        self._actions = self._runtime.publisher("robot/action")
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
        self._publish_state(reading)
        self._publish_action()
        self._report()

    def _pass(self) -> Reading | None:
        """One turn at the bus."""
        try:
            reading = self._arm.read()
            for joint in reading.back:
                self._goal[joint] = self._asked[joint] = self._arm.position[joint]
            if self._move:
                self._follow(self._move)
            elif self._rewrite > 0 and not self._released:
                self._rewrite -= 1
                self._arm.send(self._goal)
            if self._ticks % WATCH_EVERY == 0:
                self._arm.watch()
        except PortLost as e:
            self._lose(e)
            return None
        return reading

    def _follow(self, move: motion.Move) -> None:
        now = time.monotonic()
        wanted = move.at(now)
        sent = self._send(wanted, self._source, asked=dict(move.target))
        arrived = all(abs(sent[j] - move.target[j]) < 1e-6 for j in sent)
        # An arm that something blocks is never sent on by force: the goal stays near where it is.
        if move.over(now) and (arrived or now > move.t_start + move.seconds + 1.0):
            self._move = None

    def _send(self, goal: dict[str, float], source: str, asked: dict[str, float]) -> dict[str, float]:
        """Limit, write, and note what was sent."""
        present = self._arm.position
        goal = {joint: value for joint, value in goal.items() if joint in present}
        sent = self._arm.send(limits.clip(goal, present, self._arm.limits, self._relative))
        if self._unpublished:  # a second goal within one tick: the first was sent too, so it is told
            self._publish_action()
        self._goal |= sent
        self._asked = self._goal | asked
        self._source, self._t_sent = source, clock.monotonic_ns()
        self._unpublished = True
        # Goals are not acknowledged on the bus: two repetitions make a lost packet harmless.
        self._rewrite = 2
        return sent

    def _take_present(self, source: str) -> None:
        """Make the present pose the goal in force (it has been written to the motors already)."""
        self._move, self._rewrite = None, 0
        self._goal = dict(self._arm.position)
        self._asked = dict(self._goal)
        self._source, self._t_sent = source, clock.monotonic_ns()

    # --- commands -------------------------------------------------------------------------------------

    def _on_goal(self, command: Goal) -> Sent:
        self._check(command.position)
        self._wake()
        self._move = None
        try:
            return Sent(position=self._send(command.position, command.source, asked=command.position))
        except PortLost as e:
            raise self._refuse(e) from e

    def _on_reset(self, command: Reset) -> Done:
        target = command.position if command.position is not None else dict(self._settings.start_pose)
        self._check(target)
        if not 0 < command.seconds <= 60:
            raise UserError(f"a reset takes more than 0 and at most 60 seconds, not {command.seconds:g}")
        self._wake()
        start = {joint: self._goal.get(joint, self._arm.position[joint]) for joint in target}
        shortest = motion.shortest(start, target, MAX_SPEED)
        if command.seconds < shortest:
            raise UserError(
                f"the arm cannot get there in {command.seconds:g} s: give at least {shortest:.1f} s"
            )
        target = limits.within(target, self._arm.limits)
        self._source = "reset"
        self._move = motion.Move(start, target, time.monotonic(), command.seconds)
        return Done(text=f"on the way, {command.seconds:g} s; `robot/action` shows the pose asked for")

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
        self._velocity.forget()
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

    # --- telling --------------------------------------------------------------------------------------

    def _publish_state(self, reading: Reading | None) -> None:
        arm = self._arm
        t_capture = reading.t_capture if reading else clock.monotonic_ns()
        velocity = self._velocity.see(arm.position, t_capture) if reading else {}
        valid = bool(reading and reading.fresh)
        self._states.publish(
            RobotState(
                t_capture=t_capture,
                valid=valid,
                reason="" if valid else (listed(arm.silent) if reading else self._lost),
                position=dict(arm.position),
                velocity=velocity,
                torque=arm.torque,
                temperature=dict(arm.temperature),
                faults=arm.faults,
                retries=arm.retries,
            )
        )
        self._runtime.count("states")

    def _publish_action(self) -> None:
        self._unpublished = False
        self._actions.publish(
            RobotAction(
                t_capture=self._t_sent,
                valid=self._arm.connected and self._arm.holding,
                position=dict(self._goal),
                asked=dict(self._asked),
                source=self._source,
            )
        )

    def _report(self) -> None:
        """Faults and retries to the heartbeat, once a second: a single bad packet is no news."""
        faults = self._arm.faults
        text = f"the arm: {listed(faults)}; check its cables and power supply" if faults else ""
        self._runtime.problem("servos", text)
        now = time.monotonic()
        if now - self._retries_since < 1.0:
            return
        retries = self._arm.retries - self._retries_before
        self._retries_before, self._retries_since = self._arm.retries, now
        self._runtime.counts["retries"] = self._arm.retries
        noisy = retries > 0 and not faults
        self._runtime.problem(
            "bus", "the servo bus needs repetitions; check cables and power" if noisy else ""
        )

    # --- the end --------------------------------------------------------------------------------------

    def close(self, failed: bool) -> None:
        arm = self._arm
        if not arm.connected:
            if self._lost:
                log.error("torque could not be cut: %s", self._lost)
            return
        try:
            if not failed and arm.holding and self._goal:
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
        self._source, self._move = "rest", move
        keeper = RateKeeper(self.rate_hz)
        while time.monotonic() < begin + longest and not hurry.is_set():
            reading = arm.read()
            there = all(abs(arm.position[j] - target[j]) < SETTLED for j in target if j not in arm.silent)
            if there and move.over(time.monotonic()):
                break
            self._send(move.at(time.monotonic()), "rest", asked=target)
            self._publish_state(reading)
            self._publish_action()
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
