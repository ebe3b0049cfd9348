"""CURVE on ZeroMQ sockets: who binds shows this machine's key and asks who comes; who connects shows it too.

ZeroMQ asks a handler in this process about every key that comes (RFC 27, ZAP). Without the handler nobody
gets in: the sockets insist on it.
"""

import logging
import threading

import zmq

from gripwire.keys import Keys

log = logging.getLogger(__name__)

_HANDLER = "inproc://zeromq.zap.01"
_NAMED = 100
"""So many unknown peers are told of in the log; all are counted."""


def serve(socket: zmq.Socket[bytes], keys: Keys, doorkeeper: "Doorkeeper") -> None:
    """Before ``bind``: let in only whom ``keys`` knows."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, doorkeeper.domain(keys))
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler: nobody, not everybody


def join(socket: zmq.Socket[bytes], keys: Keys, server: str) -> None:
    """Before ``connect``: show our key, and talk to nobody who cannot show ``server``."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(server))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(keys.public))
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)


class Doorkeeper:
    """Answers ZeroMQ's question about each peer that comes to a socket of this context, from a thread.

    A peer that is let in is known by its public key: frames have it as ``User-Id``.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.context = context
        self.refused = 0
        self._domains: dict[bytes, Keys] = {}
        self._told: set[tuple[bytes, str]] = set()
        self._socket = context.socket(zmq.REP)
        self._socket.bind(_HANDLER)
        threading.Thread(target=self._run, name="doorkeeper", daemon=True).start()

    def domain(self, keys: Keys) -> bytes:
        """The name under which ZeroMQ asks about peers of these keys' sockets."""
        name = next((name for name, known in self._domains.items() if known is keys), None)
        if name is None:
            name = f"stack-{len(self._domains)}".encode()
            self._domains[name] = keys
        return name

    def _run(self) -> None:
        while True:
            try:
                question = self._socket.recv_multipart()
            except zmq.ContextTerminated:
                self._socket.close()
                return
            try:
                answer = self._answer(question)
            except Exception:  # it must go on, or nobody gets in any more
                log.exception("while a peer was asked for its key")
                answer = [*question[:2], b"500", b"the allow list could not be looked at", b"", b""]
            self._socket.send_multipart(answer)

    def _answer(self, question: list[bytes]) -> list[bytes]:
        version, request, domain, address, _, mechanism, *credentials = question
        keys = self._domains.get(domain)
        if mechanism == b"CURVE" and keys and len(credentials) == 1:
            key = credentials[0].hex()
            if keys.roles(key):
                return [version, request, b"200", b"OK", key.encode(), b""]
            self._note(domain, keys, key, address.decode(errors="replace"))
        return [version, request, b"400", b"not allowed here", b"", b""]

    def _note(self, domain: bytes, keys: Keys, key: str, address: str) -> None:
        self.refused += 1
        if (domain, key) in self._told or len(self._told) >= _NAMED:
            return
        self._told.add((domain, key))
        log.warning(
            "a machine at %s is not allowed here; if it is one of yours: `gripwire keys allow NAME %s "
            "--role watch`", address, key,
        )  # fmt: skip


def why(event: int, endpoint: str, keys: Keys | None) -> str:
    """What a failed handshake, by the monitor's ``event``, means to who wanted to connect, and the remedy."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and keys:
        return (
            f"{endpoint} does not let this machine in: `gripwire keys allow NAME {keys.public} --role watch` "
            "there does"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and keys:
        return (
            f"{endpoint} is served without keys, which this data folder has ({keys.folder}): give that stack "
            "the same data folder or keys of its own, and start it anew"
        )
    if keys:
        return (
            f"{endpoint} broke off before a word was said: it has another key than is expected of it, or "
            "none: see `gripwire keys list`; `gripwire keys show` there prints it"
        )
    # ZeroMQ tells of one and the same refusal now as a breach of protocol, now without detail.
    return (
        f"{endpoint} asks for keys, and this data folder has none: name the stack's with --data or "
        "GRIPWIRE_DATA, or on another machine run `gripwire keys new`"
    )
