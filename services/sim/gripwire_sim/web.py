"""A small threaded HTTP server whose failures are plain."""

import errno
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gripwire.errors import UserError


class Web:
    """Serves ``handler`` at ``host:port`` from threads of its own until it is closed. Port 0 takes any."""

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler], what: str) -> None:
        try:
            self._server = _Server((host, port), handler)
        except OSError as e:
            reason = "another process holds that port" if e.errno == errno.EADDRINUSE else e.strerror
            raise UserError(
                f"{what} cannot use {host}:{port}: {reason}; stop the other one, or choose other ports with "
                "--port-base (GRIPWIRE_PORT_BASE, or `port_base` in gripwire.toml)"
            ) from e
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=what, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        # Stalled clients must not be able to hold a thread, nor old pictures in a long queue.
        connection.settimeout(10.0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no error."""
