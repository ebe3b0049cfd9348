"""What must be known of a JPEG without decoding it: its size, and where it ends (ITU-T T.81, annex B)."""

from collections.abc import Iterator

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS = 0xDA
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Marker and offset of its length field, for each complete segment up to the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            yield marker, at + 2
            if marker == _SOS:
                return
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def size(data: bytes | bytearray) -> tuple[int, int]:
    """Width and height in pixels, from the frame header.

    Raises:
        ValueError: not a JPEG, or cut off before its frame header.
    """
    if data[:2] == _SOI:
        for marker, at in _segments(data):
            if marker in _FRAME_HEADERS and at + 7 <= len(data):
                height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 3, at + 5))
                if width and height:
                    return width, height
    raise ValueError("not a JPEG picture")


def complete(data: bytes | bytearray) -> bool:
    """Whether the picture has its end marker; cameras may pad after it."""
    return data[:2] == _SOI and data[-64:].rstrip(b"\0\r\n").endswith(_EOI)


def end(data: bytes | bytearray, searched: int = 0) -> int:
    """Offset behind the end marker, -1 while it has not arrived; bytes before ``searched`` held none.

    The search starts behind the headers: a thumbnail in them has an end marker of its own. In scan data
    every 0xFF is followed by 0 or a restart marker, so the first end marker there is the real one.
    """
    for marker, at in _segments(data):
        if marker == _SOS:
            found = data.find(_EOI, max(at, searched - 1))
            return found + 2 if found >= 0 else -1
    return -1
