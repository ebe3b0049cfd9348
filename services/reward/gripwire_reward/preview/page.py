"""The preview as a page for a browser: the picture as MJPEG, the keys as buttons. On loopback only."""

import queue
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.preview.session import Session

_BOUNDARY = "moment"
_KEYS = {"minus": "-", "plus": "+", "set": "s", "video": "v"}
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>gripwire preview</title>
<style>body{background:#18181c;color:#ddd;font:14px system-ui;margin:16px;max-width:920px}
img{width:100%;image-rendering:auto}button{font:inherit;padding:8px 14px;margin:8px 6px 0 0}</style>
<h1 style="font-size:16px">gripwire reward preview</h1><img src="stream" alt="live picture">
<div><button id="minus">threshold &minus;</button><button id="plus">threshold +</button>
<button id="set">have the service use it</button><button id="video">record a video</button></div>
<p id="said" role="status"></p>
<script>for(const b of document.querySelectorAll("button"))b.onclick=async()=>{
const r=await fetch("key/"+b.id,{method:"POST"});document.getElementById("said").textContent=await r.text()}
addEventListener("keydown",e=>{const k={"+":"plus","-":"minus","s":"set","v":"video"}[e.key];
if(k)document.getElementById(k).click()})</script></html>"""


class Page:
    """Serves the newest picture to any number of browsers."""

    def __init__(self, session: Session, host: str, port: int) -> None:
        self.session, self.host = session, host
        self.keys: queue.SimpleQueue[tuple[str, queue.SimpleQueue[str]]] = queue.SimpleQueue()
        self._fresh = threading.Condition()
        self._jpeg, self._count = b"", 0
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(self))
        except OSError as e:
            raise UserError(
                f"the preview cannot use port {port}: {e.strerror}; choose another with --port"
            ) from e
        self._server.daemon_threads = True
        self.address = f"http://{host}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, name="preview page", daemon=True).start()

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Have browsers see this picture (h, w, 3) RGB next."""
        ok, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        if ok:
            with self._fresh:
                self._jpeg, self._count = jpeg.tobytes(), self._count + 1
                self._fresh.notify_all()

    def take_keys(self) -> None:
        """Press what browsers pressed; they are told what came of it."""
        while True:
            try:
                key, answer = self.keys.get_nowait()
            except queue.Empty:
                return
            self.session.press(key)
            answer.put(self.session.said)

    def after(self, count: int) -> tuple[bytes, int]:
        """The newest JPEG that is not number ``count``."""
        with self._fresh:
            self._fresh.wait_for(lambda: self._count != count, timeout=1.0)
            return self._jpeg, self._count

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._meant():
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._answer("text/html; charset=utf-8", _PAGE)
            elif self.path == "/stream":
                self._stream()
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            key = _KEYS.get(self.path.removeprefix("/key/"))
            site = self.headers.get("Sec-Fetch-Site", "same-origin")
            # A page of somebody else's that is open in the same browser must not move a threshold.
            if key is None or site not in ("same-origin", "none") or not self._meant():
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            said: queue.SimpleQueue[str] = queue.SimpleQueue()
            page.keys.put((key, said))
            try:
                self._answer("text/plain; charset=utf-8", said.get(timeout=5).encode())
            except queue.Empty:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)

        def _meant(self) -> bool:
            """A name of somebody else's, made to lead here, would be of the same origin as this page."""
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            return name in (page.host, "localhost", "127.0.0.1", "::1")

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.end_headers()
            count = 0
            try:
                while True:
                    jpeg, new = page.after(count)
                    if new == count:
                        continue
                    count = new
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return  # the browser has gone

        def log_message(self, *_: Any) -> None:
            """Not a word: the terminal shows what matters."""

    return Handler
