"""Who reads what a process publishes: the socket, its readers, and the end of those who flood it."""

import time
from collections import Counter

import zmq

from gripwire import sockets
from gripwire.topics import Endpoint

_EVENTS_AT_ONCE = 100
"""Subscriptions that are looked at before the next message goes out: well below a millisecond. What ZeroMQ
takes back of those who have gone comes on top: left to wait, it would hide who is at it by then."""
_LONGEST, _LONGEST_WITH_KEYS = 320, 640
"""Bytes that a reader sends at once: a subscription, and before it the handshake with an identity of 255."""
_MUCH, _EACH, _PATIENCE_S = 6000, 40, 10.0
"""So many bytes of subscriptions, and so many on top for each, are too many from one connection within that
time. One socket that reads all topics has some 1300, since it subscribes to each at every endpoint; ZeroMQ
keeps 60 bytes for each byte of what nobody else subscribes to."""


class Audience:
    """An XPUB socket that is bound, and those who read from it. For one thread at a time.

    ``first``: the bytes that every message begins with. ``depth``: messages kept for a reader that is behind.
    ``what``: for the error's words. ``readers``: subscribed to that now; ``refused``: what was none, and who
    was hung up on.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, first: bytes, endpoint: Endpoint, depth: int, what: str) -> None:
        self.readers = 0
        self.refused = 0
        self._first = first
        self._port, self._keys = endpoint.port, endpoint.keys
        self._said: Counter[int] = Counter()  # by connection
        self._patient_until = 0.0
        self._peers: dict[int, str] = {}  # connection -> public key of who reads
        self._let_in: object = None
        # XPUB shows subscriptions as they arrive. VERBOSE, or a second subscriber to the same topic would go
        # unseen. Every option before bind: set later it would do nothing.
        self.socket = sockets.context().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.socket.setsockopt(zmq.SNDHWM, depth)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST_WITH_KEYS if self._keys else _LONGEST)
        # Between the kernel and us ZeroMQ takes in all that is there, without a limit, for as long as its own
        # thread brings more: that must be a trickle, and little of it be left when we hang up on somebody.
        # Two at a time, and its thread waits for ours; with ten it kept up, and a flood became gigabytes.
        # (With one, libzmq 4.3.5 never finishes a handshake with keys.)
        self.socket.setsockopt(zmq.RCVHWM, 2)
        self.socket.setsockopt(zmq.RCVBUF, 1024)
        sockets.bind(self.socket, endpoint, what)

    def look(self) -> int:
        """Take note of who has come and gone, and hang up on whoever says too much; how many have come.
        Cheap, never waits."""
        self.cut_revoked()
        fresh = said = 0
        while said < _EVENTS_AT_ONCE:  # what a flood has more than that waits in its sender's own machine
            try:
                event = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            connection = sockets.sender(event)
            said += connection is not None
            if self._take_note(event.bytes, connection is not None):
                fresh += 1
                if self._keys and connection is not None:
                    self._peers[connection] = str(event.get("User-Id"))
            if connection is not None and self._says_too_much(connection, len(event)):
                self.refused += 1
                sockets.hang_up(connection, self._port)
        return fresh

    def cut_revoked(self) -> None:
        """Hang up on readers whose machine was let in and no longer is."""
        if self._keys is None or (let_in := self._keys.allowed.machines()) is self._let_in:
            return
        self._let_in = let_in
        for connection, key in tuple(self._peers.items()):
            if not self._keys.roles(key):
                del self._peers[connection]
                sockets.hang_up(connection, self._port)

    def _take_note(self, said: bytes, by_a_reader: bool) -> bool:
        """Whether a reader has come. What is no subscription to this topic is counted, unless it is ZeroMQ
        that takes back what one who has gone had subscribed to."""
        # A subscription to a prefix of ours (or to everything) receives us as well.
        if said[:1] in (b"\0", b"\1") and self._first.startswith(said[1:]):
            self.readers += 1 if said[:1] == b"\1" else -1
            return said[:1] == b"\1"
        self.refused += by_a_reader
        return False

    def _says_too_much(self, connection: int, size: int) -> bool:
        """Sense or not: ZeroMQ keeps what it has read until we look at it, and a subscription, whatever it is
        to, for as long as its connection lasts."""
        if (now := time.monotonic()) > self._patient_until:
            self._said.clear()
            self._patient_until = now + _PATIENCE_S
        self._said[connection] += _EACH + size
        if self._said[connection] < _MUCH:
            return False
        del self._said[connection]
        return True
