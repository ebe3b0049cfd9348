"""How a message of the bus looks inside an MCAP file: see docs/recordings.md.

JSON, so that any reader of MCAP shows it without our code. A camera's message is what Foxglove knows as a
compressed or raw image, with our header as one more field of it: https://docs.foxglove.dev/docs/sdk/schemas
"""

import base64
import json
from typing import Any

from gripwire.messages import Frame, Message
from gripwire.wire import Buffer

_NS = 1_000_000_000
_BINARY = {"type": "string", "contentEncoding": "base64"}
_TIME = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
_IMAGE = {"timestamp": _TIME, "frame_id": {"type": "string"}, "data": _BINARY, "header": {"type": "object"}}
_IMAGES: dict[str, dict[str, Any]] = {
    "foxglove.CompressedImage": _IMAGE | {"format": {"type": "string"}},
    "foxglove.RawImage": _IMAGE
    | {name: {"type": "integer"} for name in ("width", "height", "step")}
    | {"encoding": {"type": "string"}},
}


def schema_name(message: Message) -> str:
    """The name of the schema that this message is written in."""
    if isinstance(message, Frame):
        return "foxglove.RawImage" if message.encoding == "rgb8" else "foxglove.CompressedImage"
    return f"gripwire.{type(message).__name__}"


def schema(message: Message) -> dict[str, Any]:
    """The JSON schema of what :func:`to_json` gives, without references or alternatives, which the readers
    of recordings do not all know."""
    properties = _IMAGES.get(schema_name(message)) or _properties(type(message).model_json_schema())
    return {"title": schema_name(message), "type": "object", "properties": properties}


def _properties(whole: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(field) for name, field in whole["properties"].items()}


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """The field's type, that of a value which is there; maps are objects of whatever they hold."""
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    kind = options[0].get("type", "object")
    plain = {"type": kind} | {key: field[key] for key in ("description",) if key in field}
    if kind == "array":
        plain["items"] = {"type": options[0].get("items", {}).get("type", "object")}
    return plain


def to_json(message: Message, payload: Buffer | None) -> bytes:
    """The message and its payload; numbers keep every bit."""
    header = message.model_dump_json().encode()
    if not isinstance(message, Frame):
        return header
    seconds, nanoseconds = divmod(message.t_wall, _NS)
    image: dict[str, Any] = {
        "timestamp": {"sec": seconds, "nsec": nanoseconds},
        "frame_id": message.camera,
    }
    if message.encoding == "rgb8":
        image |= {"width": message.width, "height": message.height, "encoding": "rgb8"}
        image |= {"step": message.width * 3}
    else:
        image |= {"format": message.encoding}
    # Put together by hand: an encoder would look at every letter of the picture for what needs escaping.
    data = b'"%b"' % base64.b64encode(payload) if payload is not None else b"null"
    return b'%b, "data": %b, "header": %b}' % (json.dumps(image).encode()[:-1], data, header)


def from_json[M: Message](data: bytes, model: type[M]) -> tuple[M, bytes | None]:
    """What :func:`to_json` was given.

    Raises:
        ValueError: these bytes are no message of this model.
    """
    if not issubclass(model, Frame):
        return model.model_validate_json(data), None
    image = json.loads(data)
    if not isinstance(image, dict) or "header" not in image:
        raise ValueError("an image without the header that gripwire writes beside it")
    picture = image.get("data")
    payload = None if picture is None else base64.b64decode(picture, validate=True)
    return model.model_validate(image["header"]), payload
