"""The HTTP side: which path shows what. The format is prometheus_client's business."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from gripwire.errors import UserError

_PATH = "/metrics"


class Web:
    """Answers GET from threads of its own.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """

    def __init__(
        self, bind: str, port: int, whole: CollectorRegistry, services: Mapping[str, CollectorRegistry]
    ) -> None:
        self._apps = {_PATH: make_wsgi_app(whole)}
        self._apps |= {f"{_PATH}/{name}": make_wsgi_app(registry) for name, registry in services.items()}
        try:
            self._server = make_server(bind, port, self._answer, ThreadingWSGIServer, _Quiet)
        except OSError as e:
            raise UserError(
                f"metrics cannot be served at {bind}:{port}: {e.strerror}; choose another with --port and "
                "--bind, or `port` and `bind` in [metrics]"
            ) from e
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").rstrip("/")
        if app := self._apps.get(path):
            answer: Iterable[bytes] = app(environ, start_response)
            return answer
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return ["".join(f"{known}\n" for known in self._apps).encode()]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Quiet(WSGIRequestHandler):
    """A scrape every few seconds is no news."""

    timeout = 10
    """Seconds that a client may take to ask: one that connects and says nothing must not stay for ever."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass
