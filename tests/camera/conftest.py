"""Cameras to test with: an HTTP stream that the test controls, and video files whose frames are numbered."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

BOUNDARY = b"frame"


def numbered(number: int, size: tuple[int, int] = (160, 120)) -> NDArray[np.uint8]:
    """A BGR picture that shows ``number`` as eight black or white stripes, robust to compression."""
    width, height = size
    bits = [255 * (number >> bit & 1) for bit in range(8)]
    row = np.repeat(np.array(bits, np.uint8), width // 8)
    return np.repeat(np.broadcast_to(row, (height, width))[:, :, None], 3, axis=2).copy()


def number_in(image: NDArray[np.uint8]) -> int:
    """The number that :func:`numbered` drew."""
    stripes = image.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(1 << bit for bit, value in enumerate(stripes) if value > 127)


def jpeg_of(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()


def part(body: bytes, length: int | None = -1, **headers: object) -> bytes:
    """One part as a server writes it; ``length`` None leaves Content-Length away, -1 tells the truth."""
    lines = [b"--" + BOUNDARY, b"Content-Type: image/jpeg"]
    if length is not None:
        lines.append(b"Content-Length: %d" % (len(body) if length < 0 else length))
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body + b"\r\n"


class MjpegServer:
    """A real HTTP server on a real port that sends what the test says, when it says so."""

    def __init__(self, port: int = 0, status: str = "200 OK", content_type: str | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/stream?x=1"
        self.requests: queue.Queue[bytes] = queue.Queue()
        kind = content_type or f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}"
        self._head = f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\n\r\n".encode()
        self._client: socket.socket | None = None
        self._connected = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096) or b"\r\n\r\n"
            client.sendall(self._head)
            self.requests.put(request)
            self._client = client
            self._connected.set()

    def wait_for_client(self, timeout_s: float = 10.0) -> None:
        assert self._connected.wait(timeout_s), "nobody connected"

    def send(self, data: bytes) -> None:
        self.wait_for_client()
        assert self._client
        self._client.sendall(data)

    def hang_up(self) -> None:
        """Close the connection; the next client is welcome."""
        self._connected.clear()
        if self._client:
            self._client.close()

    def close(self) -> None:
        # accept() in the other thread would keep the port open after close() alone
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()


@pytest.fixture
def mjpeg() -> Iterator[Callable[..., MjpegServer]]:
    servers: list[MjpegServer] = []

    def make(**options: Any) -> MjpegServer:
        servers.append(MjpegServer(**options))
        return servers[-1]

    yield make
    for server in servers:
        if server.listener.fileno() >= 0:
            server.close()


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """Write a video file of ``frames`` numbered pictures."""

    def make(frames: int, fps: float = 50.0) -> Path:
        path = tmp_path / "film.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (160, 120))
        for number in range(frames):
            writer.write(numbered(number))
        writer.release()
        return path

    return make


@pytest.fixture
def camera_process(port_base: int, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `gripwire camera run` with flags; what still runs at the end is stopped."""
    started: list[subprocess.Popen[str]] = []
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}

    def start(*flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gripwire", "camera", "run", "--port-base", str(port_base), *flags]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture
def helpers() -> Any:
    """The functions above, for test modules (which cannot import this file)."""
    import types

    return types.SimpleNamespace(numbered=numbered, number_in=number_in, jpeg=jpeg_of, part=part)
