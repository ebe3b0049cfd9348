"""A chain of simulated STS3215 servos: bytes in, bytes out.

The protocol is Feetech's (SMS/STS manual, "communication protocol" and "memory table"):

    instruction   FF FF id length instruction parameters... checksum
    status        FF FF id length error       parameters... checksum

``length`` counts what follows it; the checksum is the complement of the sum from ``id`` on. Words are
little-endian; signed ones are sign and magnitude. Nothing here knows about ports, clocks or physics: whoever
owns a :class:`Servo` writes what it senses into it and reads what it was told.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83
BROADCAST = 0xFE
VOLTAGE, OVERHEAT = 0x01, 0x04
"""Bits of the error byte."""
MODEL_STS3215 = 777
STALL_MA = 2400
"""What an STS3215 draws at full torque."""

# Memory table: name -> (address, bytes, position of the sign bit or None)
REGISTERS: dict[str, tuple[int, int, int | None]] = {
    "Firmware_Major_Version": (0, 1, None),
    "Firmware_Minor_Version": (1, 1, None),
    "Model_Number": (3, 2, None),
    "ID": (5, 1, None),
    "Response_Status_Level": (8, 1, None),
    "Min_Position_Limit": (9, 2, None),
    "Max_Position_Limit": (11, 2, None),
    "Max_Temperature_Limit": (13, 1, None),
    "Max_Voltage_Limit": (14, 1, None),
    "Min_Voltage_Limit": (15, 1, None),
    "Max_Torque_Limit": (16, 2, None),
    "Phase": (18, 1, None),
    "P_Coefficient": (21, 1, None),
    "D_Coefficient": (22, 1, None),
    "Homing_Offset": (31, 2, 11),
    "Operating_Mode": (33, 1, None),
    "Torque_Enable": (40, 1, None),
    "Goal_Position": (42, 2, 15),
    "Torque_Limit": (48, 2, None),
    "Lock": (55, 1, None),
    "Present_Position": (56, 2, 15),
    "Present_Velocity": (58, 2, 15),
    "Present_Load": (60, 2, 10),
    "Present_Voltage": (62, 1, None),
    "Present_Temperature": (63, 1, None),
    "Status": (65, 1, None),
    "Moving": (66, 1, None),
    "Present_Current": (69, 2, 15),
}
_SIZE = 128
_READ_ONLY = frozenset((*range(5), *range(56, 71)))
_MAX_PACKET = 250


class Servo:
    """One servo's registers, with what it senses and what it is told in encoder steps."""

    _POWER_ON: ClassVar[dict[str, int]] = {
        "Firmware_Major_Version": 3,
        "Firmware_Minor_Version": 10,
        "Model_Number": MODEL_STS3215,
        "Response_Status_Level": 1,
        "Max_Position_Limit": 4095,
        "Max_Temperature_Limit": 70,
        "Max_Voltage_Limit": 80,
        "Min_Voltage_Limit": 40,
        "Max_Torque_Limit": 1000,
        "Phase": 12,
        "P_Coefficient": 32,
        "D_Coefficient": 32,
        "Torque_Limit": 1000,
        "Present_Voltage": 74,
        "Present_Temperature": 30,
    }

    def __init__(self, number: int, **eeprom: int) -> None:
        self.supply = 74
        """What the power supply gives, in 0.1 V."""
        self._memory = bytearray(_SIZE)
        self._pending: tuple[int, bytes] | None = None
        for name, value in (self._POWER_ON | {"ID": number} | eeprom).items():
            self.set(name, value)
        self.set("Torque_Limit", self.get("Max_Torque_Limit"))

    def get(self, name: str) -> int:
        address, size, sign_bit = REGISTERS[name]
        raw = int.from_bytes(self._memory[address : address + size], "little")
        if sign_bit is None:
            return raw
        magnitude = raw & ((1 << sign_bit) - 1)
        return -magnitude if raw >> sign_bit & 1 else magnitude

    def set(self, name: str, value: int) -> None:
        """Store a value; beyond what the register holds it saturates."""
        address, size, sign_bit = REGISTERS[name]
        if sign_bit is None:
            raw = min(max(value, 0), (1 << 8 * size) - 1)
        else:
            raw = min(abs(value), (1 << sign_bit) - 1) | (1 << sign_bit if value < 0 else 0)
        self._memory[address : address + size] = raw.to_bytes(size, "little")

    @property
    def torque(self) -> bool:
        """Whether the motor holds. A servo with an alarm unloads itself whatever it was told."""
        return bool(self.get("Torque_Enable")) and not self.error

    @property
    def error(self) -> int:
        """The error byte of every status packet."""
        volts = self.get("Present_Voltage")
        fed_well = self.get("Min_Voltage_Limit") <= volts <= self.get("Max_Voltage_Limit")
        hot = self.get("Present_Temperature") > self.get("Max_Temperature_Limit")
        return (0 if fed_well else VOLTAGE) | (OVERHEAT if hot else 0)

    @property
    def goal(self) -> int:
        """Where the encoder should go: the goal, held within the position limits, before homing."""
        low, high = self.get("Min_Position_Limit"), self.get("Max_Position_Limit")
        goal = self.get("Goal_Position")
        if low or high:  # both zero means no limits
            goal = min(max(goal, low), high)
        return goal + self.get("Homing_Offset")

    def sense(self, encoder: int, velocity: float, load: float, temperature: float) -> None:
        """Refresh the present values: encoder steps before homing, steps per second, load -1..1, Celsius."""
        position = encoder - self.get("Homing_Offset")
        self.set("Present_Position", position)
        self.set("Present_Velocity", round(velocity))
        self.set("Present_Load", round(1000 * load))
        self.set("Present_Current", round(STALL_MA * load / 6.5))
        self.set("Present_Voltage", self.supply - round(2 * abs(load)))
        self.set("Present_Temperature", round(temperature))
        self.set("Moving", int(abs(velocity) > 20))
        self.set("Status", self.error)
        if not self.torque:
            # Nothing to jump to when torque comes on: the goal follows the hand that moves the arm.
            self.set("Goal_Position", position)

    def read(self, address: int, size: int) -> bytes | None:
        return bytes(self._memory[address : address + size]) if address + size <= _SIZE else None

    def write(self, address: int, data: bytes) -> None:
        for i, byte in enumerate(data, address):
            if i < _SIZE and i not in _READ_ONLY:
                self._memory[i] = byte

    def write_later(self, address: int, data: bytes) -> None:
        self._pending = (address, data)

    def act(self) -> None:
        """Carry out the write that waits for ACTION."""
        if self._pending:
            self.write(*self._pending)
        self._pending = None


def packet(number: int, code: int, parameters: bytes = b"") -> bytes:
    """An instruction (``code`` is the instruction) or a status (``code`` is the error byte)."""
    body = bytes([number, len(parameters) + 2, code]) + parameters
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


class Chain:
    """Servos on one half-duplex line.

    ``before_read`` and ``after_write`` are called around packets that read or write registers, so that
    present values are fresh and goals take effect at once.

    Faults: the ids in ``silent`` neither hear nor answer; ``corrupt`` is the share of status packets in
    which one byte is flipped.
    """

    def __init__(
        self,
        servos: list[Servo],
        before_read: Callable[[], None] = lambda: None,
        after_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.servos = {servo.get("ID"): servo for servo in servos}
        self.silent: set[int] = set()
        self.corrupt = 0.0
        self.packets = 0
        self.bad_packets = 0
        self._before_read, self._after_write = before_read, after_write
        self._buffer = bytearray()
        self._rng = np.random.default_rng(0)

    def feed(self, data: bytes) -> bytes:
        """Bytes as they come from the line, in any portions -> what the servos answer to whole packets."""
        self._buffer += data
        answer = b""
        while (found := self._next_packet()) is not None:
            number, instruction, parameters = found
            self.packets += 1
            answer += self._answer(number, instruction, parameters)
        return answer

    def forget(self) -> None:
        """Drop a packet that was begun and never finished, as a servo does after a silence on the line."""
        self._buffer.clear()

    def _next_packet(self) -> tuple[int, int, bytes] | None:
        buffer = self._buffer
        while True:
            start = buffer.find(b"\xff\xff")
            if start < 0:
                del buffer[: -1 if buffer.endswith(b"\xff") else len(buffer)]
                return None
            del buffer[:start]
            if len(buffer) < 4:
                return None
            number, length = buffer[2], buffer[3]
            if number == 0xFF or not 2 <= length <= _MAX_PACKET:
                del buffer[0]  # a third FF, or no packet at all: look again one byte on
                continue
            if len(buffer) < length + 4:
                return None
            body = bytes(buffer[2 : length + 4])
            if ~sum(body[:-1]) & 0xFF != body[-1]:
                self.bad_packets += 1
                del buffer[:2]
                continue
            del buffer[: length + 4]
            return number, body[2], body[3:-1]

    def _answer(self, number: int, instruction: int, parameters: bytes) -> bytes:
        if instruction == SYNC_READ and len(parameters) >= 2:
            self._before_read()
            address, size = parameters[0], parameters[1]
            return b"".join(self._read(servo_id, address, size) for servo_id in parameters[2:])
        if instruction == SYNC_WRITE and len(parameters) >= 2:
            self._sync_write(parameters)
            return b""
        targets = [n for n in self.servos if n not in self.silent and number in (n, BROADCAST)]
        if instruction == PING:
            return b"".join(self._status(n) for n in targets)
        if instruction == READ and len(parameters) == 2 and number != BROADCAST:
            self._before_read()
            return b"".join(self._read(n, *parameters) for n in targets)
        if instruction in (WRITE, REG_WRITE, ACTION):
            return b"".join(self._write(n, instruction, parameters, number == BROADCAST) for n in targets)
        return b""

    def _read(self, number: int, address: int, size: int) -> bytes:
        if number in self.silent or number not in self.servos:
            return b""
        data = self.servos[number].read(address, size)
        return b"" if data is None else self._status(number, data)

    def _write(self, number: int, instruction: int, parameters: bytes, broadcast: bool) -> bytes:
        servo = self.servos[number]
        if instruction == ACTION:
            servo.act()
        elif parameters:
            store = servo.write if instruction == WRITE else servo.write_later
            store(parameters[0], parameters[1:])
        self._after_write()
        return b"" if broadcast or not servo.get("Response_Status_Level") else self._status(number)

    def _sync_write(self, parameters: bytes) -> None:
        address, size = parameters[0], parameters[1]
        for at in range(2, len(parameters) - size, size + 1):
            number, data = parameters[at], parameters[at + 1 : at + 1 + size]
            if number in self.servos and number not in self.silent:
                self.servos[number].write(address, data)
        self._after_write()

    def _status(self, number: int, data: bytes = b"") -> bytes:
        reply = packet(number, self.servos[number].error, data)
        if self.corrupt and self._rng.random() < self.corrupt:
            spoilt = bytearray(reply)
            spoilt[int(self._rng.integers(2, len(spoilt)))] ^= 1 << int(self._rng.integers(8))
            return bytes(spoilt)
        return reply
