"""What really happened, by exposure. For evaluation only: no part of the product reads this.

``GET /truth?since=SEQ`` answers JSON: ``host`` and ``truth``, the records after that exposure number, oldest
first, at most :data:`PAGE` of them. A reader that asks again from its last record loses nothing for as long
as :data:`KEPT_S`.
"""

import json
import threading
import urllib.error
import urllib.request
from collections import deque
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from itertools import islice
from urllib.parse import parse_qs, urlparse

from gripwire.clock import host_id
from gripwire.errors import UserError
from gripwire_sim.web import Web
from gripwire_sim.world import Snapshot

KEPT_S = 25 * 60
PAGE = 5000


@dataclass(frozen=True)
class Truth:
    """The world at one exposure. ``t``: CLOCK_MONOTONIC ns; ``cube``: metres in the arm's base frame;
    ``cube_quat``: w, x, y, z; ``gripper``: LeRobot's 0..100; ``seed``: the scene's."""

    seq: int
    t: int
    grasped: bool
    cube: tuple[float, float, float]
    cube_quat: tuple[float, float, float, float]
    gripper: float
    seed: int


class Ledger:
    """The last :data:`KEPT_S` seconds of truth, by exposure number."""

    def __init__(self, rate_hz: float) -> None:
        self._records: deque[Truth] = deque(maxlen=round(KEPT_S * rate_hz))
        self._lock = threading.Lock()

    def record(self, seq: int, snapshot: Snapshot) -> None:
        """Numbers must come one after another."""
        from gripwire_sim.joints import to_lerobot

        x, y, z, *quat = (round(value, 6) for value in snapshot.cube.tolist())
        w, i, j, k = quat
        gripper = round(to_lerobot(snapshot.q)["gripper"], 2)
        entry = Truth(seq, snapshot.t, snapshot.grasped, (x, y, z), (w, i, j, k), gripper, snapshot.seed)
        with self._lock:
            self._records.append(entry)

    def since(self, seq: int, limit: int = PAGE) -> list[Truth]:
        with self._lock:
            if not self._records:
                return []
            start = max(0, seq + 1 - self._records[0].seq)
            return list(islice(self._records, start, start + limit))


def serve(ledger: Ledger, host: str, port: int) -> Web:
    """Serve the ledger at ``/truth``.

    Raises:
        UserError: the port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            since = parse_qs(url.query).get("since", ["-1"])[0]
            if url.path != "/truth" or not since.removeprefix("-").isdigit():
                self.send_error(404, "ask for /truth?since=NUMBER")
                return
            records = [asdict(record) for record in ledger.since(int(since))]
            body = json.dumps({"host": host_id(), "truth": records}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Web(host, port, Handler, "the bench's truth")


def fetch(host: str, port: int, since: int = -1, timeout_s: float = 5.0) -> list[Truth]:
    """All truth after exposure ``since``, as far back as the bench remembers.

    Raises:
        UserError: no bench answers there.
    """
    found: list[Truth] = []
    while True:
        url = f"http://{host}:{port}/truth?since={found[-1].seq if found else since}"
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as response:
                page = json.load(response)["truth"]
        except (urllib.error.URLError, TimeoutError, ConnectionError) as e:
            raise UserError(
                f"the bench's truth does not answer at {host}:{port} ({e}); is `gripwire sim run` running?"
            ) from e
        found += [Truth(**{**r, "cube": tuple(r["cube"]), "cube_quat": tuple(r["cube_quat"])}) for r in page]
        if len(page) < PAGE:
            return found
