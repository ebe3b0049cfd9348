"""From a port's name to six motors that hold still, or a sentence that says what is missing."""

import fcntl
import logging
import os
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import driver
from gripwire_robot.servos import MODEL, MotorError, PortLost, Servos, reason
from gripwire_robot.settings import Robot

log = logging.getLogger("gripwire.robot")

ATTEMPTS = 10
PATIENCE_S = 1.5
"""For motors that do not answer at the start: an adapter just plugged in, or a busy bench, takes a moment."""
_POLL_S = 0.002


def check(settings: Robot) -> None:
    """What can be known without importing the driver.

    Raises:
        UserError: no port set, no such port, no permission, no calibration file.
    """
    port = settings.port
    if not port:
        raise UserError(
            "no serial port is set for the arm: give --port or set `port` in [robot] of gripwire.toml "
            "(`lerobot-find-port` finds it)"
        )
    if not os.path.exists(port):
        raise UserError(
            f"the arm's port {port} does not exist: check the USB cable, "
            "then find the port with `lerobot-find-port`"
        )
    if not os.access(port, os.R_OK | os.W_OK):
        raise UserError(
            f"no permission to use the arm's port {port}: add yourself to the group that owns it "
            "(`sudo usermod -aG dialout $USER`), then log in again"
        )
    path = settings.calibration_file()
    if not path.is_file():
        raise UserError(f"there is no calibration {path}: {_how_to_calibrate(settings)}")


def connect(settings: Robot, on_retry: Callable[[], None], first: bool) -> Servos:
    """Open the port, find the motors, bring calibration and gains in order, and hold the present pose.

    The goal registers are set to where the joints are before torque comes on: nothing moves. Where the
    ``first`` connection fails, torque is cut: nobody would watch over an arm that an earlier process left
    holding. Later ones leave an arm alone that holds itself while its port comes and goes.

    Raises:
        PortLost: the port is not there or taken, or a motor is missing or of the wrong model.
        UserError: the calibration file cannot be used.
    """
    robot = _load(settings)
    servos = Servos(robot, str(settings.port))
    opened = False
    try:
        _open(robot, settings)
        opened = True
        _find_motors(servos, settings, first)
        _prepare(servos, settings, on_retry)
    except BaseException:
        if opened and first:
            with suppress(PortLost, MotorError):
                servos.cut_all()
        servos.close()
        raise
    return servos


def _load(settings: Robot) -> Any:
    follower, follower_config = driver.so101_follower()
    path = settings.calibration_file()
    config = follower_config(
        port=str(settings.port),
        id=settings.id,
        calibration_dir=path.parent,
        disable_torque_on_disconnect=False,  # done by Arm, motor by motor
    )
    try:
        robot = follower(config)
    except Exception as e:  # LeRobot's parser raises a family of unrelated types for a broken file
        raise UserError(
            f"the calibration {path} cannot be read ({type(e).__name__}): restore it, "
            f"or {_how_to_calibrate(settings)}"
        ) from e
    known = robot.calibration
    if wrong := [j for j in JOINTS if j not in known or known[j].range_min >= known[j].range_max]:
        raise UserError(
            f"the calibration {path} says nothing usable about {', '.join(wrong)}: "
            f"{_how_to_calibrate(settings)}"
        )
    return robot


def _open(robot: Any, settings: Robot) -> None:
    try:
        robot.bus.connect(handshake=False)
    except (OSError, termios.error) as e:
        cause = e.__cause__ or e
        raise PortLost(
            f"the arm's port {settings.port} cannot be opened ({reason(cause)}): "
            "check the cable, then find the port with `lerobot-find-port`"
        ) from e
    # The driver polls for an answer in a busy loop: let it sleep until bytes arrive instead.
    robot.bus.port_handler.ser.timeout = _POLL_S
    try:
        fcntl.flock(robot.bus.port_handler.ser.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise PortLost(f"another gripwire drives the arm on {settings.port}: stop it first") from e


def _find_motors(servos: Servos, settings: Robot, first: bool) -> None:
    models = servos.models(PATIENCE_S if first else 0.0)
    missing = [f"{joint} (motor {i})" for i, joint in enumerate(JOINTS, 1) if joint not in models]
    if missing:
        who = "no motor answers" if len(missing) == len(JOINTS) else f"no answer from {', '.join(missing)}"
        raise PortLost(
            f"the arm on {settings.port}: {who}; check its power supply and the cables between the motors"
        )
    expected = servos.robot.bus.model_number_table[MODEL]
    if wrong := [joint for joint, model in models.items() if model != expected]:
        raise PortLost(
            f"the arm on {settings.port}: {', '.join(wrong)} is no STS3215 motor; is this the right port?"
        )


def _prepare(servos: Servos, settings: Robot, on_retry: Callable[[], None]) -> None:
    """LeRobot does this in about 150 exchanges without repetitions: one bad packet must not end the start."""
    for left in reversed(range(ATTEMPTS)):
        try:
            servos.ask(lambda: _configure(servos.robot, settings))
            return
        except MotorError as e:
            on_retry()
            if not left:
                raise PortLost(f"the arm on {settings.port} cannot be set up: {e}; check its cables") from e


def _configure(robot: Any, settings: Robot) -> None:
    bus = robot.bus
    if not robot.is_calibrated:
        log.warning(
            "the motors' calibration differs from %s; the file's is written to them",
            settings.calibration_file(),
        )
        bus.disable_torque()  # a new homing offset under torque would be a jump
        bus.write_calibration(robot.calibration)
    here = bus.sync_read("Present_Position", normalize=False)
    bus.sync_write("Goal_Position", here, normalize=False)
    robot.configure()  # LeRobot's gains and limits; it ends with torque on


def _how_to_calibrate(settings: Robot) -> str:
    path: Path | None = settings.calibration_dir
    folder = f" --robot.calibration_dir={path}" if path else ""
    return (
        f"calibrate with `lerobot-calibrate --robot.type=so101_follower --robot.port={settings.port} "
        f"--robot.id={settings.id}{folder}`"
    )
