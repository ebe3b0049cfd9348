"""An MJPEG stream taken apart: `multipart/x-mixed-replace`, part by part, as the bytes arrive.

Pure: bytes and their arrival times in, pictures out. Real cameras break every rule of the format, so
nothing here raises: what makes no sense is skipped up to the next boundary and counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gripwire import jpeg

MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class Part:
    """One picture. ``headers`` have lower-case names; ``t_first`` is when the part's first byte came (ns)."""

    body: bytes
    headers: dict[str, str]
    t_first: int


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type announces, None if it is no multipart stream.

    Some servers count the leading dashes of the delimiter into the name; they are left out here.
    """
    kind, _, rest = content_type.partition(";")
    if not kind.strip().lower().startswith("multipart/"):
        return None
    for item in rest.split(";"):
        name, _, value = item.partition("=")
        if name.strip().lower() == "boundary":
            return value.strip().strip('"').lstrip("-").encode("latin-1", "replace") or None
    return None


class Parser:
    """Feed it what the socket gives; it yields each picture as soon as its last byte is there.

    A part ends at its Content-Length; without one, at the JPEG's end marker or the next boundary, whichever
    is seen first: waiting for the boundary alone would hold every picture back until the next one.
    """

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self.skipped = 0
        self._delimiter = b"--" + boundary
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._step = self._seek
        self._headers: dict[str, str] = {}
        self._length: int | None = None
        self._searched = 0
        self._t_first = 0
        self._t_now = 0
        self._ready: list[Part] = []

    def feed(self, data: bytes, t_ns: int) -> Iterator[Part]:
        """Take bytes that arrived at ``t_ns``; the pictures they complete."""
        self._buffer += data
        self._t_now = t_ns
        if self._step == self._read_headers and not self._t_first:
            self._t_first = t_ns
        while self._step():
            pass
        ready, self._ready = self._ready, []
        yield from ready

    def _seek(self) -> bool:
        """Find the boundary line; everything before it is somebody's padding."""
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: -len(self._delimiter)]
            return False
        newline = self._buffer.find(b"\n", at)
        if newline < 0:
            del self._buffer[:at]
            return len(self._buffer) > MAX_HEADER_BYTES and self._skip(len(self._delimiter))
        del self._buffer[: newline + 1]
        # All that could be used was used before, so what is here now arrived with the last bytes.
        self._t_first = self._t_now if self._buffer else 0
        self._step = self._read_headers
        return True

    def _read_headers(self) -> bool:
        stop = _blank_line(self._buffer)
        if stop is None:
            return len(self._buffer) > MAX_HEADER_BYTES and self._skip(0)
        lines = bytes(self._buffer[: stop[0]]).decode("latin-1").splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        self._headers = {name.strip().lower(): value.strip() for name, value in pairs}
        length = self._headers.get("content-length", "")
        self._length = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        del self._buffer[: stop[1]]
        self._searched = 0
        if self._length is not None and self._length > self._max_bytes:
            return self._skip(0)
        self._step = self._read_body
        return True

    def _read_body(self) -> bool:
        length = self._length if self._length is not None else self._find_end()
        if length is not None and len(self._buffer) >= length:
            self._emit(bytes(self._buffer[:length]))
            del self._buffer[:length]
            self._step = self._seek
            return True
        if self._length is None and len(self._buffer) > self._max_bytes:
            return self._skip(0)
        return False

    def _find_end(self) -> int | None:
        """Length of a body that has no Content-Length, None while its end is not here."""
        end = jpeg.end(self._buffer, self._searched)
        boundary = self._buffer.find(self._delimiter, max(0, self._searched - len(self._delimiter)))
        self._searched = len(self._buffer)
        found = [at for at in (end, boundary) if at >= 0]
        return min(found) if found else None

    def _emit(self, body: bytes) -> None:
        if jpeg.complete(body):
            self._ready.append(Part(body, self._headers, self._t_first))
        else:
            self.skipped += 1

    def _skip(self, drop: int) -> bool:
        self.skipped += 1
        del self._buffer[:drop]
        self._step = self._seek
        return True


def _blank_line(buffer: bytearray) -> tuple[int, int] | None:
    """Where the headers end and the body begins."""
    for blank in (b"\r\n", b"\n"):
        if buffer.startswith(blank):  # no headers at all
            return 0, len(blank)
    ends = [
        (at, at + len(stop))
        for stop in (b"\r\n\r\n", b"\n\n")
        if (at := buffer.find(stop, 0, MAX_HEADER_BYTES)) >= 0
    ]
    return min(ends) if ends else None
