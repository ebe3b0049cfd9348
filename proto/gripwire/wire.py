"""Messages to bytes and back: see docs/wire.md.

A message is a ZeroMQ multipart: ``topic + NUL``, a msgpack map, and for frames the raw payload. The NUL
closes the name: a subscription to ``reward`` must not receive ``reward_debug``.
"""

from collections.abc import Sequence
from typing import Any

import msgpack
from pydantic import ValidationError

from gripwire.messages import SCHEMA_VERSION, Message, Wire

Buffer = bytes | bytearray | memoryview

_HALF = 2**63


class WireError(ValueError):
    """These bytes are not a message this side understands; it is counted and dropped."""


def subscription(topic: str) -> bytes:
    """What a SUB socket subscribes to, and the first part of every message on ``topic``."""
    return topic.encode() + b"\0"


def pack(model: Wire) -> bytes:
    """A message, command or reply as one msgpack map."""
    return pack_map(vars(model))


def pack_map(value: dict[str, Any]) -> bytes:
    """A map of plain values, or of our models, as msgpack."""
    return bytes(msgpack.packb(value, default=_fields))


def _fields(model: Any) -> dict[str, Any]:
    """A model within a model; half the cost of having pydantic dump all of it."""
    if isinstance(model, Wire):
        return vars(model)
    raise TypeError(f"{type(model).__name__} cannot travel")


def unpack_map(data: Buffer) -> dict[str, Any]:
    """One msgpack map with string keys.

    Raises:
        WireError: it is something else. Nothing is ever unpickled: extension types are refused.
    """
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_refuse_extension)
    except Exception as e:  # msgpack raises a family of unrelated types for garbage
        raise WireError(f"not msgpack: {e}") from e
    if not isinstance(value, dict):
        raise WireError(f"a msgpack map was expected, not {type(value).__name__}")
    return value


def _refuse_extension(code: int, data: bytes) -> Any:
    raise WireError(f"msgpack extension type {code} is not part of the protocol")


def encode(topic: str, message: Message, payload: Buffer | None = None) -> list[Buffer]:
    """The parts of one message; ``payload`` is not copied."""
    parts: list[Buffer] = [subscription(topic), pack(message)]
    if payload is not None:
        parts.append(payload)
    return parts


def decode[M: Message](parts: Sequence[Buffer], model: type[M]) -> tuple[M, Buffer | None]:
    """The message and its payload.

    Raises:
        WireError: wrong number of parts, not msgpack, another schema version, or a field of a wrong type
            or out of its bounds.
    """
    if len(parts) not in (2, 3):
        raise WireError(f"a message has 2 or 3 parts, not {len(parts)}")
    header = unpack_map(parts[1])
    if header.get("v") != SCHEMA_VERSION:
        raise WireError(f"schema version {header.get('v')!r}, this side speaks {SCHEMA_VERSION}")
    try:
        message = model.model_validate(header)
    except ValidationError as e:
        first = e.errors()[0]
        raise WireError(f"{model.__name__}: {first['loc']}: {first['msg']}") from e
    for name, value in vars(message).items():
        if type(value) is int and not -_HALF <= value < _HALF:
            raise WireError(f"{model.__name__}: {name}: {value} does not fit in 64 bits with sign")
    return message, parts[2] if len(parts) == 3 else None
