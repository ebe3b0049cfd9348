"""What all ZeroMQ sockets here share: the context, keys, patience, and how to learn who is there."""

import ctypes
import math
import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

import zmq

from gripwire import curve
from gripwire.errors import UserError
from gripwire.topics import Endpoint

_context: tuple[int, zmq.Context[zmq.Socket[bytes]] | None] = (0, None)
_doorkeeper: curve.Doorkeeper | None = None
_opening = threading.RLock()
"""Of two threads that are the first at once, one makes what both use."""


def _after_fork() -> None:
    global _opening
    _opening = threading.RLock()  # a thread that is not in the child may have held it


os.register_at_fork(after_in_child=_after_fork)


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """This process's ZeroMQ context. A forked child gets a new one: contexts do not survive fork."""
    global _context
    with _opening:
        pid, existing = _context
        if existing is None or pid != os.getpid() or existing.closed:
            existing = zmq.Context()
            # Without this, a process that ends hangs for as long as an unreachable peer has messages waiting.
            existing.setsockopt(zmq.LINGER, 0)
            _context = (os.getpid(), existing)
        return existing


def finish(timeout_s: float) -> None:
    """At the end of a process: what closed sockets still have to send leaves, for as long as each lingers.
    Sockets that are still open in this process are of no use afterwards."""
    ending = threading.Thread(target=context().term, daemon=True)
    ending.start()
    ending.join(timeout_s)


def doorkeeper() -> curve.Doorkeeper:
    """Who answers for the keys that come to this process's sockets; there is none before it is asked for."""
    global _doorkeeper
    with _opening:
        if _doorkeeper is None or _doorkeeper.context is not context():
            _doorkeeper = curve.Doorkeeper(context())
        return _doorkeeper


def refused_peers() -> int:
    """How often a machine came to this process's sockets whose key is not allowed here."""
    return _doorkeeper.refused if _doorkeeper else 0


def bind(socket: zmq.Socket[bytes], endpoint: str, what: str) -> None:
    """Bind, with the keys of an :class:`Endpoint`, or say who is in the way.

    A port that was closed a moment ago is still held by ZeroMQ's own thread: that is waited out.
    """
    if isinstance(endpoint, Endpoint) and endpoint.keys:
        curve.serve(socket, endpoint.keys, doorkeeper())
    deadline = time.monotonic() + 0.5
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as e:
            if e.errno == zmq.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            socket.close()
            if e.errno == zmq.EADDRINUSE:
                raise UserError(
                    f"{what} cannot use {endpoint}: another process holds that port; stop it, or choose "
                    "other ports with --port-base (GRIPWIRE_PORT_BASE, or `port_base` in gripwire.toml)"
                ) from e
            why = e.strerror or str(e)
            raise UserError(f"{what} cannot use {endpoint}: {why}; check `bind` in gripwire.toml") from e


def stay_in_touch(socket: zmq.Socket[bytes], rate_hz: float | None) -> None:
    """Before ``connect``: try again soon where the network drops everything without a word, and notice that
    it does on a topic that may be silent by right.

    Not by ZeroMQ's own heartbeats: with them libzmq 4.3.5 aborts the process of a reader whose queue is full
    (its issue 3937).
    """
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 1000)  # TCP alone would try again after 1, 3, 7, 15, ... seconds
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    if rate_hz is None:
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 3)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)


def connect(socket: zmq.Socket[bytes], endpoint: Endpoint) -> None:
    """Connect, with the endpoint's keys. Every other option must be set before."""
    if endpoint.keys:
        curve.join(socket, endpoint.keys, endpoint.server)
    socket.connect(endpoint)


def milliseconds(seconds: float) -> int:
    """A poll's time-out, rounded up: rounding down would spin through the last millisecond."""
    return max(0, math.ceil(seconds * 1000))


def sender(event: zmq.Frame) -> int | None:
    """The file descriptor that ZeroMQ has an event's sender under; None for what ZeroMQ itself says."""
    try:
        return int(event.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None


def hang_up(connection: int, port: int) -> None:
    """Cut a connection to this process's ``port``, given the file descriptor that ZeroMQ has it under."""
    # A copy: ZeroMQ may close its own at any moment, and the number then be another file's, hence the check.
    with suppress(OSError, IndexError), socket.socket(fileno=os.dup(connection)) as peer:
        if peer.getsockname()[1] != port:
            return
        if sys.platform == "linux":  # connect(2): AF_UNSPEC dissolves it, with all that waits to be read
            nowhere = struct.pack("H14x", socket.AF_UNSPEC)
            ctypes.CDLL(None).connect(peer.fileno(), nowhere, len(nowhere))
        else:
            peer.shutdown(socket.SHUT_RDWR)


HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
HANDSHAKE = HANDSHAKE_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED


def monitor(socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """A socket that tells what happens to ``socket``'s connections. Close it after ``disable_monitor``."""
    where = f"inproc://monitor-{id(socket)}-{time.monotonic_ns()}"
    socket.monitor(where, events)
    told = context().socket(zmq.PAIR)
    # A monitor that is full and not read stops ZeroMQ's own thread, and with it every socket: no limit here.
    told.setsockopt(zmq.RCVHWM, 0)
    told.connect(where)
    return told


def next_event(told: zmq.Socket[bytes]) -> int | None:
    """The number of the next event of a :func:`monitor`; None when there is none."""
    try:
        # zmq_socket_monitor(3): the number is in the first two bytes, in this machine's order.
        return int.from_bytes(told.recv_multipart(zmq.NOBLOCK)[0][:2], sys.byteorder)
    except zmq.Again:
        return None


def why_barred(endpoint: Endpoint, kind: int, timeout_s: float = 1.0) -> str:
    """Why ``endpoint`` and this machine's keys do not go together, by trying; empty when they do, or when
    nobody is there. ``kind``: of the socket to try with."""
    with context().socket(kind) as socket:
        told = monitor(socket, zmq.EVENT_CONNECT_RETRIED | HANDSHAKE)
        connect(socket, endpoint)
        reason = ""
        if told.poll(milliseconds(timeout_s)) and (event := next_event(told)) and event & HANDSHAKE_FAILED:
            reason = curve.why(event, endpoint, endpoint.keys)
        socket.disable_monitor()
        told.close()
    return reason
