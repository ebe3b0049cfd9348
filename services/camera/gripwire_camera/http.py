"""MJPEG over HTTP, read part by part and passed on as it came: nothing is decoded, nothing held back."""

import base64
import http.client
import ssl
from contextlib import suppress
from urllib.parse import SplitResult, unquote

from gripwire import clock, jpeg
from gripwire.topics import MIB
from gripwire_camera.multipart import Parser, Part, boundary_of
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture, SourceLost, without_password

STALLED_AFTER_S = 1.0
MAX_PART_BYTES = 15 * MIB  # the topic's limit of 16 MiB, less the header
_CHUNK = 64 * 1024


class HttpStream:
    """An MJPEG stream (`multipart/x-mixed-replace`)."""

    live = True
    patient = False

    def __init__(self, name: str, url: SplitResult, settings: Camera) -> None:
        self.address = without_password(url)
        self.broken = 0
        self._name, self._url = name, url
        # A stream slower than one picture a second is stalled only after three of its periods.
        self._timeout_s = max(STALLED_AFTER_S, 3.0 / settings.fps) if settings.fps else STALLED_AFTER_S
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._parser: Parser | None = None
        self._waiting: list[Part] = []

    def open(self) -> list[str]:
        url = self._url
        host = url.hostname or ""
        if url.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                host, url.port, timeout=self._timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, url.port, timeout=self._timeout_s)
        try:
            self._connection.request("GET", self._target(), headers=self._headers())
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as e:
            raise self._lost(f"does not answer ({_reason(e)})") from e
        self._begin(self._response)
        return []

    def _begin(self, response: http.client.HTTPResponse) -> None:
        if response.status != 200:
            raise self._lost(f"answers {response.status} {response.reason}")
        content_type = response.getheader("Content-Type") or ""
        boundary = boundary_of(content_type)
        if boundary is None:
            raise self._lost(f"is no MJPEG stream (it sends {content_type or 'no content type'})")
        self._parser = Parser(boundary, MAX_PART_BYTES)
        self._waiting = []

    def _target(self) -> str:
        return (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")

    def _headers(self) -> dict[str, str]:
        if not self._url.username:
            return {}
        login = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
        return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}

    def read(self) -> Picture:
        while True:
            while self._waiting:
                if picture := self._picture(self._waiting.pop(0)):
                    return picture
            self._waiting = self._receive()

    def _receive(self) -> list[Part]:
        response, parser = self._response, self._parser
        if response is None or parser is None:
            raise self._lost("is closed")
        try:
            data = response.read1(_CHUNK)
        except TimeoutError as e:
            raise self._lost(f"has sent nothing for {self._timeout_s:g} s") from e
        except (OSError, ValueError, http.client.HTTPException) as e:
            raise self._lost(f"broke off ({_reason(e)})") from e
        now = clock.monotonic_ns()
        if not data:
            raise self._lost("ended the stream")
        before = parser.skipped
        parts = list(parser.feed(data, now))
        self.broken += parser.skipped - before
        return parts

    def _picture(self, part: Part) -> Picture | None:
        try:
            width, height = jpeg.size(part.body)
        except ValueError:
            self.broken += 1
            return None
        t_capture, exposure = exposure_of(part)
        return Picture(part.body, width, height, t_capture, exposure)

    def _lost(self, what: str) -> SourceLost:
        return SourceLost(f"camera {self._name}: {self.address} {what}; is it on, and the address right?")

    def interrupt(self) -> None:
        connection = self._connection
        if connection and connection.sock:
            with suppress(OSError):
                connection.sock.shutdown(2)

    def close(self) -> None:
        if self._response:
            self._response.close()
        if self._connection:
            self._connection.close()
        self._connection = self._response = self._parser = None


def exposure_of(part: Part) -> tuple[int, int]:
    """When the picture was exposed (CLOCK_MONOTONIC ns) and its number at the source (-1: not given).

    `X-Exposure-Time` counts only with an `X-Host` that is this machine's: other clocks do not compare. A
    time that lies ahead of the part's arrival is no exposure time.
    """
    time_ns = _int(part.headers.get("x-exposure-time"))
    same_clock = part.headers.get("x-host") == clock.host_id()
    t_capture = time_ns if same_clock and 0 < time_ns <= part.t_first else part.t_first
    return t_capture, _int(part.headers.get("x-exposure-seq"))


def _int(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else -1


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
