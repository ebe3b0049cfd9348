"""LeRobot's own calibration by hand, with what is kept, refused and looked at around it."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import checks, connect, driver
from gripwire_robot.connect import Device
from gripwire_robot.servos import MotorError, PortLost, Servos

_TORQUE_ENABLE = 40


def calibrate(device: Device, say: Callable[[str], object], ask: Callable[[str], bool]) -> Path:
    """Let LeRobot calibrate the arm; its prompts are its own. Returns the file that holds it now.

    What was in that file before stays beside it with the date behind its name.

    Raises:
        UserError: there is no terminal, the port or a motor is missing or in use, the person breaks off, or
            what was recorded cannot be used. The file is then as it was.
    """
    if not sys.stdin.isatty():
        raise UserError("calibrating is done by hand at a terminal: start it in one")
    path = connect.usable(device)
    kept = _keep(device.calibration)
    try:
        _by_hand(device, path, ask)
    finally:
        if kept and not device.calibration.is_file():
            kept.replace(device.calibration)
        elif kept and device.calibration.read_bytes() == kept.read_bytes():
            kept.unlink()
    if kept and kept.exists():
        say(f"the calibration before is kept as {kept}")
    judged = checks.ranges(checks.calibration(device.calibration, device.remedy))
    if not judged.well:
        say(f"{judged.text}, once more, and move every joint from stop to stop")
    return device.calibration


def _by_hand(device: Device, path: str, ask: Callable[[str], bool]) -> None:
    arm = _load(device, path, ask)
    servos = Servos(arm, path, device.what)
    try:
        connect.open_port(arm.bus, path, device.what)
        connect.refuse_unfit(
            connect.read_motors(servos, connect.PATIENCE_S), None, f"{device.what} on {path}"
        )
        _let_go(servos, ask)
        _run(arm, device)
    except PortLost as e:
        raise UserError(str(e)) from e
    finally:
        servos.close()


def _keep(file: Path) -> Path | None:
    """A copy with the date behind its name."""
    if not file.is_file():
        return None
    kept = file.with_name(f"{file.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    shutil.copy2(file, kept)
    return kept


def _load(device: Device, path: str, ask: Callable[[str], bool]) -> Any:
    """LeRobot's arm with the calibration that there is, or without one if that cannot be read."""
    arm, config = driver.so101_follower() if device.what == "arm" else driver.so101_leader()
    file = device.calibration

    def load() -> Any:
        return arm(config(port=path, id=file.stem, calibration_dir=file.parent))

    try:
        return load()
    except Exception as e:  # LeRobot's parser raises a family of unrelated types for a broken file
        if not file.is_file():
            raise
        if not ask(f"{file} cannot be read ({type(e).__name__}). Calibrate anew and replace it?"):
            raise UserError("nothing was calibrated") from e
        file.unlink()  # there is a copy
        return load()


def _let_go(servos: Servos, ask: Callable[[str], bool]) -> None:
    """A limp arm, or none is calibrated: new offsets under torque are a jump."""
    try:
        holding = [joint for joint in JOINTS if servos.memory(joint, _TORQUE_ENABLE, 1)[0] != b"\0"]
        if holding and not ask("The arm holds itself and will go limp: hold it. Go on?"):
            raise UserError("nothing was calibrated")
        for joint in JOINTS:
            servos.set_torque(joint, on=False)
    except MotorError as e:
        raise UserError(f"a motor {e}; nothing was calibrated: check the cables and try again") from e


def _run(arm: Any, device: Device) -> None:
    unfinished = (
        f"nothing was written to {device.calibration}; the motors may have lost theirs: "
        "calibrate again, or `gripwire robot run` writes the file's to them"
    )
    try:
        arm.calibrate()
    except (KeyboardInterrupt, EOFError):
        raise UserError(f"broken off: {unfinished}") from None
    except ValueError as e:  # LeRobot's, of joints that did not move, and of positions that no motor can hold
        still = [joint for joint in JOINTS if joint in str(e)]
        if still:
            why = f"{', '.join(still)} was not moved"
            remedy = "move every joint but wrist_roll from stop to stop before the second ENTER"
        else:
            why = f"what was recorded cannot be used ({e})"
            remedy = "bring every joint to the middle of its range before the first ENTER, and keep it there"
        raise UserError(f"{why}; {unfinished}; {remedy}") from e
    except (OSError, RuntimeError) as e:  # a motor that does not answer, or complains
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"a motor failed ({reason}): {unfinished}; check the cables") from e
