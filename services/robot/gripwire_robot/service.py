"""The robot service: state and action at 60 Hz, goals by command or from the leader, and motors that do not
burn, neither while it runs nor after its end."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Done,
    Drive,
    Goal,
    Hold,
    Intervene,
    Release,
    Reply,
    Reset,
    Sent,
    Teleoperate,
    Underway,
    Yield,
)  # fmt: skip
from gripwire.service import Runtime
from gripwire_robot import connect, ending, limits, reset
from gripwire_robot.arm import Arm, Reading
from gripwire_robot.lease import Lease
from gripwire_robot.port import Port
from gripwire_robot.protection import Protection
from gripwire_robot.pursuit import Pursuit
from gripwire_robot.sentry import Sentry
from gripwire_robot.servos import PortLost, listed
from gripwire_robot.settings import Robot
from gripwire_robot.teleop import Teleop
from gripwire_robot.telling import Telling

log = logging.getLogger("gripwire.robot")

WATCH_EVERY = 10
"""Ticks between two looks at a motor's torque: all six once a second at 60 Hz."""
FOREVER = float("inf")


class RobotService:
    """Drives the arm. All of it, commands included, runs on the main thread: the bus needs no lock."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.section("robot", Robot)
        self.rate_hz: float | None = self._settings.rate_hz
        self._arm = Arm(self._settings)
        self._port = Port(runtime, self._settings, self._arm)
        self._lease = Lease(self._settings.watchdog_s)
        self._protection = Protection(self._settings)
        self._sentry = Sentry(runtime, self._settings)
        self._teleop = Teleop(runtime, self._settings)
        self._released = False
        self._cut_by_guard = ""
        """What happened, until somebody turns torque on again."""
        self._relaxed = False
        self._ticks = 0

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {
            Goal: self._on_goal, Reset: self._on_reset, Hold: self._on_hold, Release: self._on_release,
            Drive: self._on_drive, Yield: self._on_yield,
            Teleoperate: self._on_teleoperate, Intervene: self._on_intervene,
        }  # fmt: skip

    def setup(self) -> None:
        connect.check(self._settings)
        self._tell = Telling(self._runtime, self._arm, lambda: self._lease.driver(time.monotonic()))
        self._pursuit = Pursuit(self._arm, self._settings, self._protection, self._tell)
        self._runtime.versions["lerobot"] = _lerobot_version()
        self._sentry.start()
        try:
            self._arm.connect()
            self._arm.read()
        except PortLost as e:
            raise UserError(str(e)) from e
        self._pursuit.taken("hold")
        self._teleop.start()

    # --- the tick -------------------------------------------------------------------------------------

    def update(self) -> None:
        due = time.monotonic() + 1 / self._settings.rate_hz
        self._ticks += 1
        if self._sentry.beat():
            self._guard_has_cut()
        if self._port.due:
            self._take_up()
        reading = self._pass() if self._arm.connected else None
        self._tell.state(reading, self._port.lost)
        self._tell.action(self._pursuit.goal)
        self._tell.health()
        self._teleop.health()
        if self._leader_drives and self._arm.connected:
            self._follow_leader(due)

    def _pass(self) -> Reading | None:
        """One turn at the bus."""
        try:
            reading = self._arm.read()
            for joint in reading.back:
                self._pursuit.back(joint)
            self._look_after_motors()
            self._look_after_driver()
            if not self._released:
                self._pursuit.tick()
            if self._ticks % WATCH_EVERY == 0:
                self._arm.watch()
        except PortLost as e:
            self._lose(e)
            return None
        return reading

    @property
    def _leader_drives(self) -> bool:
        return bool(self._teleop.mode) and not self._released and not self._pursuit.moving

    def _follow_leader(self, until: float) -> None:
        try:
            self._teleop.follow(self._pursuit, until)
        except PortLost as e:
            self._lose(e)

    def _look_after_motors(self) -> None:
        """Heat, current, and a gripper that presses."""
        arm, goal = self._arm, self._pursuit.goal
        answering = [joint for joint in arm.position if joint not in arm.silent]
        verdict = self._protection.see(
            time.monotonic(), *({joint: values[joint] for joint in answering} for values in (
                arm.position, arm.temperature, arm.current,
            )), goal.position, goal.asked,
        )  # fmt: skip
        was_hot, self._tell.verdict = self._tell.verdict.hot, verdict
        if self._protection.relaxed != self._relaxed:
            self._pursuit.squeeze(goal.asked)
            if arm.relax(self._protection.relaxed):
                self._relaxed = self._protection.relaxed
        if verdict.limp and not self._released:
            self._halt(f"{verdict.hot}; torque is off, before the motor lets go by itself")
            if failed := self._let_go():
                log.error("torque could not be cut at %s; switch the arm's power off", listed(failed))
        elif verdict.hot and not was_hot and not self._released:
            self._halt(verdict.hot)
        elif verdict.hold and not self._released:
            self._halt(verdict.hold)

    def _look_after_driver(self) -> None:
        """Goals that stop, and a leader that is gone; a hand that takes over."""
        now = time.monotonic()
        silent = self._lease.fell_silent(now)
        if lost := self._teleop.lost():
            self._halt(f"{lost}; the arm holds")
        elif silent and not self._teleop.mode and not self._released:
            self._halt(f"{silent} stopped sending goals: the arm holds where it is")
        elif self._lease.driver(now) and not self._released and self._teleop.taken_over():
            with suppress(UserError):  # it fell silent this very moment
                self._teleop.begin("intervention")
                log.info("the leader was moved by hand: it has taken over")

    def _halt(self, why: str) -> None:
        """Hold where the arm is, say why, and let nobody go on unasked."""
        self._end_leader()
        self._pursuit.hold(why)
        self._lease.stopped(f"the arm was stopped: {why}", "", time.monotonic())
        self._runtime.problem("halt", f"{why}; whoever moves it next ends this")

    def _end_leader(self) -> None:
        """The leader drives no longer, and nobody has the arm for it."""
        if self._teleop.mode == "teleoperation":
            self._lease.end()
        self._teleop.end()

    def _settled(self) -> None:
        """Somebody has said what the arm is to do: why it had stopped is past."""
        self._runtime.problem("halt", "")

    # --- commands: goals ------------------------------------------------------------------------------

    def _on_goal(self, command: Goal) -> Sent:
        now = time.monotonic()
        self._admit(command.by, command.position)
        if self._teleop.mode == "intervention":
            self._lease.goal(command.by, command.position, now)
            return Sent(position=dict(self._pursuit.goal.position), intervention=True)
        if self._teleop.mode:
            raise UserError(
                "the leader arm drives: end teleoperation (Ctrl+C in `gripwire robot teleop`) first"
            )
        self._lease.check_joints(command.by, command.position, now)
        limits.check_jump(command.position, self._arm.position, self._settings.max_jump)
        self._wake()
        self._lease.goal(command.by, command.position, now)
        self._settled()
        try:
            return Sent(position=self._pursuit.aim(command.position, command.source))
        except PortLost as e:
            raise self._refuse(e) from e

    def _on_reset(self, command: Reset) -> Underway:
        self._admit(
            command.by, command.position if command.position is not None else self._settings.start_pose
        )
        present = dict(self._arm.position)
        start = present if self._released else present | self._pursuit.goal.position
        going = reset.plan(command, start, self._arm.silent, self._settings, self._arm.limits)
        self._wake()
        self._settled()
        if self._teleop.mode == "intervention":
            self._end_leader()
        self._teleop.catch_up()
        now = time.monotonic()
        self._lease.reset(command.by, now + going.seconds, now)
        self._pursuit.begin(going.path(now))
        return going.reply()

    def _admit(self, by: str, position: dict[str, float]) -> None:
        """May this driver send the arm there now?"""
        self._must_be_connected()
        self._lease.admit(by, time.monotonic())
        limits.check(position, self._arm.limits)
        unread = [joint for joint in position if joint not in self._arm.position]
        if unread or all(joint in self._arm.silent for joint in position):
            raise UserError(f"{', '.join(unread or position)} does not answer; see `gripwire robot status`")
        self._must_be_fit()

    def _must_be_fit(self) -> None:
        if why := self._tell.verdict.hot or self._cut_by_guard:
            raise UserError(why)

    def _wake(self) -> None:
        """A goal for a limp arm turns torque on first, each joint where it is, as LeRobot does on connect."""
        if self._released:
            self._torque_on()

    # --- commands: stopping ---------------------------------------------------------------------------

    def _on_hold(self, command: Hold) -> Done:
        self._must_be_connected()
        self._end_leader()
        self._lease.stopped(_whose("held", command.by), command.by, time.monotonic())
        self._torque_on()
        self._settled()
        return Done(text="torque on, holding the present pose")

    def _on_release(self, command: Release) -> Done:
        self._must_be_connected()
        self._end_leader()
        self._lease.stopped(_whose("released", command.by), command.by, time.monotonic())
        try:
            failed = self._let_go()
        except PortLost as e:
            raise self._refuse(e) from e
        self._settled()
        if failed:
            raise UserError(f"torque could not be cut at every motor: {listed(failed)}; switch its power off")
        return Done(text="torque off, the arm is limp")

    def _torque_on(self) -> None:
        """Hold the present pose; what the gripper grips stays gripped."""
        keep = {} if self._released else self._pursuit.gripping()
        try:
            failed = self._arm.hold(keep)
        except PortLost as e:
            raise self._refuse(e) from e
        self._released, self._cut_by_guard = False, ""
        self._pursuit.taken("hold", keep)
        if failed:
            raise UserError(f"not every motor holds: {listed(failed)}")

    def _let_go(self) -> dict[str, str]:
        """Torque off; the joints at which that failed."""
        self._released = True
        self._pursuit.stop()
        return self._arm.cut_torque()

    # --- commands: who drives -------------------------------------------------------------------------

    def _on_drive(self, command: Drive) -> Done:
        taken_from = self._lease.drive(command.by, command.lease_s, command.force, time.monotonic())
        if taken_from:
            self._teleop.end()
            self._pursuit.hold(f"{command.by} took the arm from {taken_from}")
            log.warning("%s took the arm from %s", command.by, taken_from)
        self._settled()
        return Done(text=f"{command.by} drives; the lease lasts {command.lease_s:g} s after the last goal")

    def _on_yield(self, command: Yield) -> Done:
        self._lease.give(command.by, time.monotonic())
        self._settled()
        return Done(text="nobody drives; the arm stays where it was sent")

    def _on_teleoperate(self, command: Teleoperate) -> Done:
        if not command.on:
            return self._end_leading("teleoperation")
        self._must_be_free_for_leader()
        now = time.monotonic()
        self._lease.admit(command.by, now)
        self._teleop.begin("teleoperation")
        self._lease.drive(command.by or "leader", FOREVER, True, now)
        self._begin_leading()
        return Done(text="the leader drives; the follower goes to it slowly at first")

    def _on_intervene(self, command: Intervene) -> Done:
        if not command.on:
            return self._end_leading("intervention")
        self._must_be_free_for_leader()
        if not self._lease.driver(time.monotonic()):
            raise UserError(
                "nobody drives the arm, so there is nothing to take over: use `gripwire robot teleop`"
            )
        self._teleop.begin("intervention")
        self._begin_leading()
        return Done(text="the leader has taken over; the follower goes to it slowly at first")

    def _must_be_free_for_leader(self) -> None:
        self._must_be_connected()
        if self._teleop.mode:
            raise UserError(f"the leader drives already: {self._teleop.mode}")
        self._must_be_fit()

    def _begin_leading(self) -> None:
        self._wake()
        self._settled()
        self._pursuit.hold("")

    def _end_leading(self, mode: str) -> Done:
        if self._teleop.mode != mode:
            return Done(text=f"there was no {mode}")
        self._end_leader()
        self._pursuit.hold("")
        if mode == "intervention":
            self._lease.resume(time.monotonic())
            return Done(text="the leader has given the arm back")
        return Done(text="the leader no longer drives; the arm holds")

    # --- losing and finding the arm -------------------------------------------------------------------

    def _must_be_connected(self) -> None:
        if not self._arm.connected:
            raise UserError(self._port.lost or "the arm is not connected")

    def _refuse(self, error: PortLost) -> UserError:
        self._lose(error)
        return UserError(str(error))

    def _lose(self, error: PortLost) -> None:
        self._port.lose(error)
        self._pursuit.stop()
        self._end_leader()
        self._lease.stopped("the arm's port was gone meanwhile", "", time.monotonic())

    def _take_up(self) -> None:
        self._sentry.wait()
        if self._port.take_up(limp=self._released):
            self._sentry.port_is_back()
            self._pursuit.taken("hold")

    def _guard_has_cut(self) -> None:
        """The loop hung, and the guard did what it is for: the arm is limp, and stays so until asked."""
        self._released = True
        self._pursuit.stop()
        self._end_leader()
        why = f"the robot service did not turn for {self._settings.guard_s:g} s: its guard cut torque"
        self._pursuit.goal.reason = why
        self._cut_by_guard = f"{why}; `gripwire robot hold` turns it on again"
        self._lease.end()
        self._runtime.problem("halt", self._cut_by_guard)
        self._arm.was_cut()

    # --- the end --------------------------------------------------------------------------------------

    def close(self, failed: bool) -> None:
        arm, off = self._arm, True
        try:
            if arm.connected and not failed and arm.holding and self._pursuit.goal.position:
                ending.rest(arm, self._settings, self._pursuit, self._tell, self._sentry.beat)
        except Exception as e:  # whatever it is, the torque must go
            log.error("the move to the rest pose failed: %s", e)
        finally:
            if arm.connected:
                off = ending.cut(arm)
            elif self._port.lost:
                off = False
                log.error("torque could not be cut: %s", self._port.lost)
            if off:
                self._sentry.goodbye()
            self._teleop.close()


def _whose(done: str, by: str) -> str:
    return f"the arm was {done} by {by or 'somebody'}"


def _lerobot_version() -> str:
    from importlib.metadata import version

    return version("lerobot")


def build(runtime: Runtime) -> RobotService:
    """What :func:`gripwire.service.run` needs to make the service."""
    return RobotService(runtime)
