"""A camera that gives JPEGs over HTTP, as most do: what stands in for hardware takes next to no time here."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from gripwire_sim.web import Web


@contextmanager
def served(pictures: list[bytes], hz: float) -> Iterator[str]:
    """The address of a stream of these pictures, over and over at ``hz``, until the block ends."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            due, number = time.monotonic(), 0
            while not ended.is_set():
                jpeg = pictures[number % len(pictures)]
                head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                due, number = due + 1 / hz, number + 1
                ended.wait(max(0.0, due - time.monotonic()))

        def log_message(self, *_: object) -> None:
            pass

    web = Web("127.0.0.1", 0, Handler, "the camera")
    try:
        yield web.url
    finally:
        ended.set()
        web.close()
