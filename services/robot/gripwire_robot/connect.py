"""From a port's name to six motors that hold still, or a sentence that says what is missing."""

import fcntl
import logging
import os
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import checks, driver, ports
from gripwire_robot.checks import Finding, Motor
from gripwire_robot.servos import MotorError, PortLost, Servos, reason
from gripwire_robot.settings import Robot

log = logging.getLogger("gripwire.robot")

ATTEMPTS = 10
PATIENCE_S = 1.5
"""For motors that do not answer at the start: an adapter just plugged in, or a busy bench, takes a moment."""
_POLL_S = 0.002


@dataclass(frozen=True)
class Device:
    """An arm to connect to: what it is called, and where the settings say it is."""

    what: str
    """`arm` or `leader`."""
    port: str | None
    """A path, or an adapter's name (see :mod:`gripwire_robot.ports`)."""
    calibration: Path
    flags: str
    """What tells `gripwire robot calibrate` of it."""

    @property
    def remedy(self) -> str:
        return f"calibrate with `gripwire robot calibrate {self.flags}`"


def follower(settings: Robot) -> Device:
    flags = _flags(settings.port, settings.id, settings.calibration_dir)
    return Device("arm", settings.port, settings.calibration_file(), flags)


def leader(settings: Robot) -> Device:
    flags = _flags(settings.leader_port, settings.leader_id, settings.leader_calibration_dir)
    return Device("leader", settings.leader_port, settings.leader_calibration_file(), f"--leader {flags}")


def _flags(port: str | None, id: str, folder: Path | None) -> str:
    parts = [f"--port {port}" if port else "", f"--id {id}", f"--calibration-dir {folder}" if folder else ""]
    return " ".join(part for part in parts if part)


def check(settings: Robot) -> None:
    """What can be known without importing the driver.

    Raises:
        UserError: no port set, no such port, no permission, no calibration file that can be used.
    """
    device = follower(settings)
    _path(device)
    checks.calibration(device.calibration, device.remedy)


def usable(device: Device) -> str:
    """The path of a port that nobody uses.

    Raises:
        UserError: no port set, no such port, no permission, or another program has it open.
    """
    path = _path(device)
    if others := ports.users(path):
        raise UserError(_in_use(device, path, others))
    return path


def _path(device: Device) -> str:
    path, findings = _at_port(device)
    for finding in findings:
        if not finding.well:
            raise UserError(finding.text)
    assert path
    return path


def _in_use(device: Device, path: str, others: list[str]) -> str:
    return f"{' and '.join(others)} uses the {device.what}'s port {path}: end it first"


def examine(device: Device) -> list[Finding]:
    """Everything there is to check, without moving anything or writing to a motor."""
    path, findings = _at_port(device)
    found: dict[str, Motor] = {}
    if path:
        try:
            found = _look(path, device)
            findings.append(Finding("use", True, "nobody else uses it"))
        except PortLost as e:
            findings.append(Finding("use", False, str(e)))
            path = None
    file: dict[str, checks.Ends] | None = None
    try:
        file = checks.calibration(device.calibration, device.remedy)
        findings.append(Finding("file", True, str(device.calibration)))
    except UserError as e:
        findings.append(Finding("file", False, str(e)))
    if not path:
        return [*findings, *checks.unseen("the port cannot be used"), checks.ranges(file)]
    return findings + checks.motors(found, file)


def _at_port(device: Device) -> tuple[str | None, list[Finding]]:
    """The device's path where it can be used, and what there is to say about it."""
    what, port = device.what, device.port
    if not port:
        key = "port" if what == "arm" else "leader_port"
        text = (
            f"no serial port is set for the {what}: give --port or set `{key}` in [robot] of gripwire.toml "
            "(`gripwire robot ports` lists them)"
        )
        return None, [Finding("port", False, text)]
    try:
        path = ports.find(port)
    except UserError as e:
        return None, [Finding("port", False, f"the {what}: {e}")]
    if not os.path.exists(path):
        text = (
            f"the {what}'s port {path} does not exist: check the USB cable, "
            "then find the port with `gripwire robot ports`"
        )
        return None, [Finding("port", False, text)]
    findings = [Finding("port", True, path if path == port else f"{path} ({port})")]
    if not os.access(path, os.R_OK | os.W_OK):
        text = (
            f"no permission to use the {what}'s port {path}: add yourself to the group that owns it "
            "(`sudo usermod -aG dialout $USER`), then log in again"
        )
        return None, [*findings, Finding("permission", False, text)]
    return path, [*findings, Finding("permission", True, "may be read and written")]


def _look(path: str, device: Device) -> dict[str, Motor]:
    """What the motors at a port say about themselves."""
    if others := ports.users(path):
        raise PortLost(_in_use(device, path, others))
    bus = driver.so101_bus(path)
    servos = Servos(SimpleNamespace(bus=bus), path, device.what)
    try:
        open_port(bus, path, device.what)
        return read_motors(servos, PATIENCE_S)
    finally:
        servos.close()


def connect(settings: Robot, on_retry: Callable[[], None], first: bool) -> Servos:
    """Open the port, find the motors, bring calibration and gains in order, and hold the present pose.

    The goal registers are set to where the joints are before torque comes on: nothing moves. Where the
    ``first`` connection fails, torque is cut: nobody would watch over an arm that an earlier process left
    holding. Later ones leave an arm alone that holds itself while its port comes and goes.

    Raises:
        PortLost: the port is not there or taken, or a motor is missing or unfit.
        UserError: the calibration file cannot be used, or no adapter is the one that is set.
    """
    device = follower(settings)
    path = ports.find(str(settings.port))
    file = checks.calibration(device.calibration, device.remedy)
    if first and (others := ports.users(path)):
        log.warning("%s, or packets get mixed up", _in_use(device, path, others))
    robot = _load(settings, path, device)
    servos = Servos(robot, path)
    opened = False
    try:
        open_port(robot.bus, path, device.what)
        opened = True
        refuse_unfit(read_motors(servos, PATIENCE_S if first else 0.0), file, f"{device.what} on {path}")
        _prepare(servos, path, on_retry)
    except BaseException:
        if opened and first:
            with suppress(PortLost, MotorError):
                servos.cut_all()
        servos.close()
        raise
    return servos


def _load(settings: Robot, path: str, device: Device) -> Any:
    robot, config = driver.so101_follower()
    try:
        return robot(
            config(
                port=path,
                id=settings.id,
                calibration_dir=device.calibration.parent,
                disable_torque_on_disconnect=False,  # done by Arm, motor by motor
            )
        )
    except Exception as e:  # LeRobot's parser raises a family of unrelated types for a file it does not like
        raise UserError(
            f"the calibration {device.calibration} cannot be read ({type(e).__name__}): restore it, "
            f"or {device.remedy}"
        ) from e


def open_port(bus: Any, path: str, what: str) -> None:
    """Open a bus's port for us alone.

    Raises:
        PortLost: it cannot be opened, or another gripwire has it.
    """
    try:
        bus.connect(handshake=False)
    except (OSError, termios.error) as e:
        cause = e.__cause__ or e
        raise PortLost(
            f"the {what}'s port {path} cannot be opened ({reason(cause)}): "
            "check the cable, then find the port with `gripwire robot ports`"
        ) from e
    # The driver polls for an answer in a busy loop: let it sleep until bytes arrive instead.
    bus.port_handler.ser.timeout = _POLL_S
    try:
        fcntl.flock(bus.port_handler.ser.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise PortLost(f"another gripwire drives the {what} on {path}: stop it first") from e


def read_motors(servos: Servos, patience_s: float) -> dict[str, Motor]:
    """What each motor that answers within ``patience_s`` (three rounds at least) says about itself.

    Past the driver, which takes a motor with an alarm for one that does not answer.
    """
    found: dict[str, Motor] = {}
    deadline, rounds = time.monotonic() + patience_s, 0
    while len(found) < len(JOINTS) and (rounds < 3 or time.monotonic() < deadline):
        rounds += 1
        for joint in JOINTS:
            if joint not in found:
                with suppress(MotorError):
                    eeprom, _ = servos.memory(joint, 0, 33)
                    present, alarms = servos.memory(joint, 56, 8)
                    found[joint] = Motor.read(eeprom, present, alarms)
    return found


def refuse_unfit(found: dict[str, Motor], file: dict[str, checks.Ends] | None, where: str) -> None:
    """Warn of what is not well about the motors.

    Raises:
        PortLost: the arm must not be driven like this.
    """
    findings = [finding for finding in checks.motors(found, file) if finding.well is False]
    for finding in findings:
        if finding.fatal:
            raise PortLost(f"the {where}: {finding.text}")
    for finding in findings:
        log.warning("the %s: %s", where, finding.text)


def _prepare(servos: Servos, path: str, on_retry: Callable[[], None]) -> None:
    """LeRobot does this in about 150 exchanges without repetitions: one bad packet must not end the start."""
    for left in reversed(range(ATTEMPTS)):
        try:
            servos.ask(lambda: _configure(servos.robot))
            return
        except MotorError as e:
            on_retry()
            if not left:
                raise PortLost(f"the arm on {path} cannot be set up: {e}; check its cables") from e


def _configure(robot: Any) -> None:
    bus = robot.bus
    if not robot.is_calibrated:
        bus.disable_torque()  # a new homing offset under torque would be a jump
        bus.write_calibration(robot.calibration)
    here = bus.sync_read("Present_Position", normalize=False)
    bus.sync_write("Goal_Position", here, normalize=False)
    robot.configure()  # LeRobot's gains and limits; it ends with torque on
