"""The camera over HTTP: an endless multipart stream of JPEGs (multipart/x-mixed-replace).

Each part says which exposure it is: ``X-Exposure-Seq``, its number; ``X-Exposure-Time``, CLOCK_MONOTONIC ns;
``X-Host``, the kernel whose clock that is.
"""

import contextlib
from http.server import BaseHTTPRequestHandler

from gripwire.clock import host_id
from gripwire_sim.picture import Camera, Exposure
from gripwire_sim.web import Web

BOUNDARY = "gripwire-frame"


def part(exposure: Exposure) -> bytes:
    """One part of the stream, from its boundary to the line break after the picture."""
    head = (
        f"--{BOUNDARY}\r\n"
        "Content-Type: image/jpeg\r\n"
        f"Content-Length: {len(exposure.jpeg)}\r\n"
        f"X-Exposure-Seq: {exposure.seq}\r\n"
        f"X-Exposure-Time: {exposure.t}\r\n"
        f"X-Host: {host_id()}\r\n\r\n"
    )
    return head.encode() + exposure.jpeg + b"\r\n"


def serve(camera: Camera, host: str, port: int) -> Web:
    """Serve the stream at ``/``. Every client has a thread and gets the newest picture whenever it is ready
    for one, so that a slow client sees fewer pictures and delays nobody.

    Raises:
        UserError: the port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if camera.dropped:
                self.send_error(503, "the camera is unplugged")
                return
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has gone, or takes nothing any more
                self._stream()
            self.close_connection = True

        def _stream(self) -> None:
            place = 0
            while not camera.dropped and camera.failure is None:
                if news := camera.wait(place, timeout_s=0.2):
                    place, exposure = news
                    self.wfile.write(part(exposure))

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Web(host, port, Handler, "the bench's camera")
