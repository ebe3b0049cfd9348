"""What a model file may not have: data in other files, and operators that ONNX itself does not define.

ONNX Runtime would open any file that a graph names, and show its bytes as numbers. So the graph is looked
through before the engine sees it: a walk over protobuf's wire format, so that serving needs no ONNX package.
Field numbers are those of onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterator

from gripwire.errors import UserError

# Which fields of a message hold which messages; the rest is skipped.
_INSIDE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
    "OperatorSet": {},
}
_DOMAIN = {"Node": 7, "OperatorSet": 1}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_STANDARD = (b"", b"ai.onnx")
_DEEPEST = 60
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def refuse_strange(model: bytes, name: str) -> None:
    """Look a model file through. ``name``: what it is, for a person.

    Raises:
        UserError: it has its data elsewhere or operators of its own, or it is no ONNX file.
    """
    try:
        _walk(memoryview(model), "Model", name, 0)
    except (IndexError, ValueError) as e:
        raise UserError(f"{name}: not an ONNX model ({e}); train again") from e


def _walk(data: memoryview, kind: str, name: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} levels deep")
    for field, value in _fields(data):
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            raise UserError(
                f"{name}: a tensor's data lies in another file, which is never opened: export the model with "
                "its weights inside"
            )
        if field == _DOMAIN.get(kind) and isinstance(value, memoryview) and bytes(value) not in _STANDARD:
            domain = bytes(value[:80]).decode(errors="replace")
            raise UserError(
                f"{name}: it has operators of `{domain}`, and only ONNX's own are run: export it for those"
            )
        inside = _INSIDE[kind].get(field)
        if inside and isinstance(value, memoryview):
            _walk(value, inside, name, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a message (protobuf's encoding, "Message Structure")."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(data, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if at + size > len(data):
            raise ValueError("it ends in the middle")
        if wire_type == _BYTES:
            yield field, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that begins ``at``, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")
