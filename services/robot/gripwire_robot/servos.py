"""LeRobot's Feetech bus, one exchange at a time, with its many kinds of failure made two."""

import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gripwire.messages import JOINTS

MODEL = "sts3215"
SHORT_TIMEOUT_MS = 20
"""For motors that may be silent: LeRobot's 50 ms each cost three ticks. A real bus answers in 1 to 2 ms."""

CORRUPT = "answers with corrupt packets"
_ALARMS = {1: "supply voltage", 2: "angle sensor", 4: "overheated", 8: "over current", 32: "overload"}
"""Bits of the error byte in every status packet (Feetech's protocol)."""


PRESENT, PRESENT_BYTES = 56, 15
"""Registers 56 to 70 of an STS3215: position, velocity, load, voltage, temperature, ..., current. The 13
bytes more than the position's two take 0.8 ms for six motors at 1 Mbaud; a second read would take longer."""
MA_PER_UNIT = 6.5


class PortLost(Exception):
    """The serial port is gone, or what answers there is not the arm. The text is for people."""


class MotorError(Exception):
    """One exchange failed; the port is still there."""


@dataclass(frozen=True)
class Present:
    """What a motor says about itself."""

    position: float
    """LeRobot's units."""
    temperature: float
    """Degrees Celsius."""
    current: float
    """Milliamperes, without direction."""


class Servos:
    """Six servos through the bus of a LeRobot SO-101 follower or leader (``what``, in words). Every method
    raises ``PortLost``, and ``MotorError`` where one motor is to blame."""

    def __init__(self, robot: Any, port: str, what: str = "arm") -> None:
        self.robot = robot
        self._bus, self._port, self._what = robot.bus, port, what

    def ask[T](self, exchange: Callable[[], T]) -> T:
        """One exchange through the driver.

        What is left of an earlier one is thrown away first: the driver would take a late answer for this
        one's.
        """
        handler = self._bus.port_handler
        try:
            handler.is_using = False
            handler.ser.reset_input_buffer()
            return exchange()
        # ConnectionError is what LeRobot raises for a silent motor; it is an OSError too, so it comes first.
        except (ConnectionError, RuntimeError, IndexError) as e:
            raise MotorError(_plain(e)) from e
        except (OSError, termios.error, TypeError) as e:  # TypeError: pyserial on a closed descriptor
            raise PortLost(
                f"the {self._what}'s port {self._port} is gone ({reason(e)}); "
                f"check the USB cable: the {self._what} is taken up again by itself"
            ) from e

    @contextmanager
    def short_timeout(self) -> Iterator[None]:
        """Within it a silent motor costs ``SHORT_TIMEOUT_MS`` per exchange."""
        handler = self._bus.port_handler
        usual = handler.setPacketTimeout
        handler.setPacketTimeout = lambda length: handler.setPacketTimeoutMillis(SHORT_TIMEOUT_MS)
        try:
            yield
        finally:
            handler.setPacketTimeout = usual

    def positions(self, joints: list[str]) -> dict[str, float]:
        """Present positions in LeRobot's units, in one transfer. (Alarms are not looked at here.)"""

        def exchange() -> dict[str, float]:
            values: dict[str, float] = self._bus.sync_read("Present_Position", joints)
            # An answer that is too short would be read as position 0.
            if any(len(data) != 2 for data in self._bus.sync_reader.data_dict.values()):
                raise IndexError("short packet")
            return values

        return self.ask(exchange)

    def present(self, joints: list[str]) -> dict[str, Present]:
        """Position, temperature and current in one transfer. (Alarms are not looked at here.)"""
        bus = self._bus
        numbers = {joint: bus.motors[joint].id for joint in joints}

        def exchange() -> dict[str, Present]:
            reader = type(bus.sync_reader)(bus.port_handler, bus.packet_handler, PRESENT, PRESENT_BYTES)
            for number in numbers.values():
                reader.addParam(number)
            status = reader.txRxPacket()
            if status != 0:
                raise ConnectionError(bus.packet_handler.getTxRxResult(status))
            data = {joint: bytes(reader.data_dict[number]) for joint, number in numbers.items()}
            if any(len(block) != PRESENT_BYTES for block in data.values()):
                raise IndexError("short packet")
            steps = {numbers[joint]: _signed(block[0:2]) for joint, block in data.items()}
            position = bus._normalize(steps)  # what sync_read does with them
            return {
                joint: Present(position[numbers[joint]], block[7], abs(_signed(block[13:15])) * MA_PER_UNIT)
                for joint, block in data.items()
            }

        return self.ask(exchange)

    def write_goals(self, goal: dict[str, float]) -> None:
        """Goal positions in LeRobot's units, in one packet that no motor acknowledges."""
        self.ask(lambda: self._bus.sync_write("Goal_Position", goal))

    def byte(self, joint: str, register: str) -> tuple[int, str]:
        """A one-byte register, and the motor's alarms in words (empty: none)."""
        bus = self._bus
        address, _ = bus.model_ctrl_table[MODEL][register]
        number = bus.motors[joint].id
        value, status, error = self.ask(
            lambda: bus.packet_handler.read1ByteTxRx(bus.port_handler, number, address)
        )
        if status != 0:
            raise MotorError(_plain(RuntimeError(bus.packet_handler.getTxRxResult(status))))
        return value, ", ".join(text for bit, text in _ALARMS.items() if error & bit)

    def memory(self, joint: str, address: int, size: int) -> tuple[bytes, str]:
        """Registers in one piece, and the motor's alarms in words (empty: none)."""
        bus = self._bus
        number = bus.motors[joint].id
        data, status, error = self.ask(
            lambda: bus.packet_handler.readTxRx(bus.port_handler, number, address, size)
        )
        if status != 0 or len(data) != size:
            raise MotorError(_plain(RuntimeError(bus.packet_handler.getTxRxResult(status))))
        return bytes(data), ", ".join(text for bit, text in _ALARMS.items() if error & bit)

    def set_torque(self, joint: str, on: bool) -> None:
        """Torque of one motor; returns when the motor has acknowledged it.

        A motor with an alarm obeys and complains in one packet: then its register decides.
        """
        act = self._bus.enable_torque if on else self._bus.disable_torque
        try:
            self.ask(lambda: act(joint))
        except MotorError:
            with suppress(MotorError):
                if bool(self.byte(joint, "Torque_Enable")[0]) == on:
                    return
            raise

    def set_grip(self, thousandths: int) -> None:
        """The share of its torque that the gripper may use."""
        self.ask(lambda: self._bus.write("Torque_Limit", "gripper", thousandths, normalize=False))

    def cut_all(self) -> None:
        """Torque off at all motors in one packet that none acknowledges."""
        off = dict.fromkeys(JOINTS, 0)
        self.ask(lambda: self._bus.sync_write("Torque_Enable", off, normalize=False))

    def limits(self) -> dict[str, tuple[float, float]]:
        """Joint ranges in LeRobot's units, from the calibration."""
        resolution = self._bus.model_resolution_table[MODEL] - 1
        out = {}
        for joint in JOINTS:
            c = self.robot.calibration[joint]
            half = (c.range_max - c.range_min) / 2 * 360 / resolution
            out[joint] = (0.0, 100.0) if joint == "gripper" else (-half, half)
        return out

    def close(self) -> None:
        """Close the port, whatever state it is in."""
        with suppress(Exception):
            self._bus.port_handler.closePort()
        # LeRobot's robots disconnect when they are collected, unless their bus says it is closed.
        self._bus.port_handler.is_open = False


def _signed(word: bytes) -> int:
    """Sign and magnitude, little-endian."""
    value = int.from_bytes(word, "little")
    return -(value & 0x7FFF) if value & 0x8000 else value


def reason(error: BaseException) -> str:
    """`Input/output error`, whichever of pyserial's and the system's exceptions carries it."""
    return str(getattr(error, "strerror", None) or (error.args[-1] if error.args else error))


def listed(reasons: dict[str, str] | Iterable[tuple[str, str]]) -> str:
    """`elbow_flex (does not answer), gripper (hot: 71 C)`."""
    return ", ".join(f"{joint} ({reason})" for joint, reason in dict(reasons).items())


def _plain(error: Exception) -> str:
    text = str(error)
    if "no status packet" in text:
        return "does not answer"
    if "Incorrect status packet" in text or isinstance(error, IndexError):
        return CORRUPT
    if "[RxPacketError]" in text:
        return "alarm: " + text.rpartition("]")[2].strip(" !")
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
