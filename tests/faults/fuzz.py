"""Seeded garbage: random bytes, and valid messages bent in a place or two."""

import random
import socket
import struct
from collections.abc import Sequence
from typing import Any, Self

import msgpack

from gripwire.messages import COMMANDS, JOINTS, SCHEMA_VERSION, EpisodeState, Message

POSITION = dict.fromkeys(JOINTS, 1.5)

_NESTED: Any = 0
for _ in range(400):
    _NESTED = [_NESTED]

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), float("nan"), float("inf"), -0.0, 1e308,
    7.0, "", "\0", "x" * 300, "../../etc", b"\xff\xfe", [], {}, {"": {"": {}}}, [[]] * 40, _NESTED,
    dict.fromkeys(map(str, range(60)), "wide"), msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2),
)  # fmt: skip
"""Values that a field does not expect: of another type, out of bounds, empty, long, deep."""

BOMBS = (
    b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\x91" * 600, b"\x81\xa1v" * 300, b"\xc1", b"", b"\x80", b"\xc9\x00\x00\x00\x01\x05x",
)  # fmt: skip
"""msgpack that announces gigabytes, nests for ever, or is none."""


class Garbler:
    """Messages that are wrong in ever new ways, the same ones for the same seed.

    ``valid``: maps as they would be packed. Now and then what comes out is still a valid message.
    """

    def __init__(self, valid: Sequence[dict[str, Any]], seed: int) -> None:
        self._random = random.Random(seed)
        self._valid = list(valid)
        self._packed = [msgpack.packb(message) for message in valid]
        self._ways = (
            self._noise,
            self._flip,
            self._cut,
            self._repeat,
            self._splice,
            self._misfit,
            self._misfit,
        )

    def __call__(self) -> bytes:
        made = self._random.choice(self._ways)()
        return made[:8000]

    def _pick(self) -> bytearray:
        return bytearray(self._random.choice(self._packed))

    def _noise(self) -> bytes:
        if self._random.random() < 0.3:
            return self._random.choice(BOMBS)
        return self._random.randbytes(self._random.randrange(80))

    def _flip(self) -> bytes:
        data = self._pick()
        for _ in range(self._random.randint(1, 4)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        return bytes(data)

    def _cut(self) -> bytes:
        data = self._pick()
        return bytes(data[: self._random.randrange(len(data))])

    def _repeat(self) -> bytes:
        data = self._pick()
        at = self._random.randrange(len(data))
        piece = bytes(data[at : at + self._random.randint(1, 20)]) * self._random.randint(1, 30)
        return bytes(data[:at] + piece + data[at:])

    def _splice(self) -> bytes:
        one, other = self._pick(), self._pick()
        return bytes(one[: self._random.randrange(len(one))] + other[self._random.randrange(len(other)) :])

    def _misfit(self) -> bytes:
        return bytes(msgpack.packb(misfit(self._random, self._random.choice(self._valid))))


def misfit(rng: random.Random, message: dict[str, Any]) -> dict[str, Any]:
    """``message``, which is not empty, with the wrong thing in one field, or without that field.

    Mostly in a map below, where the field has one.
    """
    key = rng.choice(list(message))
    below = message[key]
    if isinstance(below, dict) and below and rng.random() < 0.7:
        return message | {key: misfit(rng, below)}
    if rng.random() < 0.1:
        return {name: value for name, value in message.items() if name != key}
    return message | {key: rng.choice(NASTY)}


def requests() -> list[dict[str, Any]]:
    """One well-formed request of every kind there is."""
    arguments: dict[str, Any] = {
        "position": POSITION, "tip": [0.2, 0.0, 0.1], "seconds": 1.0, "by": "fuzz", "on": False,
        "task": "fuzz", "dataset": "fuzz", "success": False, "episodes": 1, "what": "end", "labels": "none",
        "bundle": "0" * 20,
        "lease_s": 0.1, "seed": 1, "joint": "", "value": 0.0, "threshold": 0.5,
    }  # fmt: skip
    made = []
    for number, (kind, command) in enumerate(COMMANDS.items()):
        known = {name: value for name, value in arguments.items() if name in command.model_fields}
        if kind == "Fault":
            known["what"] = "clear"
        made.append({"v": SCHEMA_VERSION, "id": f"f{number}", "kind": kind, "args": known, "host": "h"})
    return made


class Peer:
    """A ZeroMQ peer made by hand (ZMTP 3.0, NULL mechanism), so that it can say what no library would."""

    def __init__(self, endpoint: str, kind: bytes = b"SUB", timeout_s: float = 20.0) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        mechanism = b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + mechanism)
        self._receive(64)
        properties = _property(b"Socket-Type", kind) + _property(b"Identity", b"")
        self.socket.sendall(frame(b"\x05READY" + properties, flags=4))
        flags, length = self._receive(2)
        self._receive(length if not flags & 2 else int.from_bytes(self._receive(7), "big"))

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the peer hung up")
            data += piece
        return data

    def send(self, data: bytes) -> None:
        """Bytes as they are: see :func:`frame`."""
        self.socket.sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value


def frame(body: bytes, flags: int = 0) -> bytes:
    """One ZMTP frame; ``flags``: 1 more to come, 4 a command."""
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body


def messages(model: type[Message]) -> list[dict[str, Any]]:
    """Well-formed messages of a kind, as they would be packed: sparse, and with every field filled."""
    header = {
        "v": SCHEMA_VERSION, "seq": 7, "boot": "b" * 16, "host": "h" * 36, "t_capture": 10**15,
        "t_publish": 10**15 + 5, "t_wall": 10**18, "valid": True,
    }  # fmt: skip
    needed: dict[str, Any] = {
        "camera": "gripper_cam", "width": 64, "height": 48, "encoding": "jpeg", "position": POSITION,
        "state": "idle" if model is EpisodeState else "ready", "success": True, "service": "robot",
    }  # fmt: skip
    sparse = header | {name: value for name, value in needed.items() if name in model.model_fields}
    return [
        sparse,
        model.model_validate(sparse).model_dump() | sparse,
        sparse | {"reason": "x", "new": [1, {}]},
    ]
