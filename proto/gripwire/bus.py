"""One publisher and two readers; services use these and never a bare socket.

``Publisher`` sends. ``Latest`` has a thread and one slot: never older than one message, whatever its
reader's pace. ``Queued`` keeps a deep queue, loses nothing within it, and says exactly what it lost.
"""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import zmq

from gripwire import clock, curve, sockets, wire
from gripwire.audience import Audience
from gripwire.messages import Message
from gripwire.topics import Topic

_COPIED_BYTES = 1 << 20
"""Up to here a copy costs less than pyzmq's account of who still needs the memory."""


@dataclass(frozen=True)
class Received[M: Message]:
    """A message as it arrived. ``t_receive`` is this process's CLOCK_MONOTONIC in ns."""

    message: M
    payload: wire.Buffer | None
    t_receive: int

    def age_ms(self) -> float:
        """Milliseconds since capture where the clocks compare, else since it was received. A capture that is
        still to come is not believed: its message would stay young for ever."""
        same = self.message.host == clock.host_id() and 0 < self.message.t_capture <= self.t_receive
        return (clock.monotonic_ns() - (self.message.t_capture if same else self.t_receive)) / 1e6


class Publisher[M: Message]:
    """Binds a topic's port and publishes on it.

    It fills the header's ``seq``, ``boot``, ``host`` and times. Safe to call from several threads.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.sent = 0
        self._lock = threading.Lock()  # a socket used by two threads at once aborts the process
        self._last: list[wire.Buffer] | None = None
        # It shows subscriptions as they arrive: a latched topic answers them, and `wait_for_subscriber`
        # needs no sleep.
        name = wire.subscription(topic.name)
        self._audience = Audience(name, topic.binds, topic.depth, f"topic `{topic.name}`")
        self._socket = self._audience.socket

    @property
    def refused(self) -> int:
        """What came that is no subscription to this topic, and readers that were hung up on for a flood."""
        return self._audience.refused

    def publish(self, message: M, payload: wire.Buffer | None = None) -> M:
        """Send; a full queue drops this message for the reader that is behind, never blocks."""
        with self._lock:
            message.seq, self.sent = self.sent, self.sent + 1
            message.boot, message.host = clock.boot_id(), clock.host_id()
            message.t_wall, now = time.time_ns(), clock.monotonic_ns()
            message.t_publish, message.t_capture = now, message.t_capture or now
            self._send(message, payload)
        return message

    def play_back(self, message: M, payload: wire.Buffer | None = None) -> None:
        """Send a recorded message as if it were published now: it keeps its ``seq``, ``boot`` and the time
        from capture to publication."""
        with self._lock:
            now = clock.monotonic_ns()
            message.t_capture = now - (message.t_publish - message.t_capture)
            message.t_publish, message.t_wall, message.host = now, time.time_ns(), clock.host_id()
            self.sent += 1
            self._send(message, payload)

    def _send(self, message: M, payload: wire.Buffer | None) -> None:
        self._audience.cut_revoked()
        parts = wire.encode(self.topic.name, message, payload)
        large = payload is not None and memoryview(payload).nbytes > _COPIED_BYTES
        self._socket.send_multipart(parts, copy=not large)
        if self.topic.latched:
            self._last = parts
        self._answer_subscriptions()

    def poll(self) -> None:
        """Give new readers of a latched topic its last message; cheap, call it every tick."""
        with self._lock:
            self._answer_subscriptions()

    def _answer_subscriptions(self) -> None:
        if self._audience.look() and self._last is not None:
            self._socket.send_multipart(self._last)

    def subscribers(self) -> int:
        """Readers that are connected now."""
        with self._lock:
            if not self._socket.closed:
                self._answer_subscriptions()
            return self._audience.readers

    def wait_for_subscriber(self, timeout_s: float, count: int = 1) -> bool:
        """Block until ``count`` readers have subscribed. The first messages before that are lost to them."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                self._answer_subscriptions()
                if self._audience.readers >= count:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._socket.poll(int(min(left, 0.05) * 1000) + 1)

    def close(self, linger_ms: int = 0) -> None:
        """Give up the port; what is still queued has ``linger_ms`` to leave, in the background."""
        with self._lock:
            self._socket.close(linger_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_BARRED_S = 3.0
_SILENT_S = 3.0
_RECONNECT_S = 0.1
"""How soon ZeroMQ tries again to reach a publisher: readers should be back before its first message."""


class Subscription:
    """A SUB socket on one topic that comes back after everything, an oversized message included.

    ZeroMQ reconnects by itself when a publisher goes away, but not after it has refused a message above
    MAXMSGSIZE, nor after the publisher has refused the reader's key: it drops that connection for good, and
    the reader would be deaf without a word. ``barred``: why there is no connection, in words, while that is
    the keys' fault.
    """

    def __init__(self, topic: Topic, depth: int) -> None:
        self.refused = 0
        self.barred = ""
        self._endpoint = topic.endpoint
        self._barred_at = 0.0
        self._server = topic.endpoint.server
        self._cut_at: float | None = None
        self._tried_at = 0.0
        # A topic with a rate that is silent for so long may be cut off, and neither side know.
        self._silent_s = max(_SILENT_S, 5 / topic.rate_hz) if topic.rate_hz else math.inf
        self._heard_at = time.monotonic()
        self.socket = sockets.context().socket(zmq.SUB)
        # Every option before connect: set afterwards they silently do nothing.
        self.socket.setsockopt(zmq.RCVHWM, depth)
        self.socket.setsockopt(zmq.MAXMSGSIZE, topic.max_bytes)
        self.socket.setsockopt(zmq.RECONNECT_IVL, sockets.milliseconds(_RECONNECT_S))
        sockets.stay_in_touch(self.socket, topic.rate_hz)
        self.socket.setsockopt(zmq.SUBSCRIBE, wire.subscription(topic.name))
        self._monitor = sockets.monitor(self.socket, zmq.EVENT_DISCONNECTED | sockets.HANDSHAKE)
        sockets.connect(self.socket, self._endpoint)

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """The parts of the next message; None when none arrived within ``timeout_s``."""
        parts = self._receive(timeout_s)
        if parts is None:
            self.revive()
        else:
            self._heard_at = time.monotonic()
        return parts

    def _receive(self, timeout_s: float) -> list[bytes] | None:
        with suppress(zmq.Again):
            return self.socket.recv_multipart(zmq.NOBLOCK)
        if timeout_s > 0:
            # Waiting in `recv` itself: a poll before it would delay what has just arrived.
            self.socket.setsockopt(zmq.RCVTIMEO, sockets.milliseconds(timeout_s))
            with suppress(zmq.Again):
                return self.socket.recv_multipart()
        return None

    def revive(self) -> None:
        """Connect anew after a refusal, or after a silence: what the other side still holds for us is thrown
        away then, which would come as new hours later. Cheap; only while nothing waits to be received: it
        would be lost."""
        now = time.monotonic()
        while (event := sockets.next_event(self._monitor)) is not None:
            if event & sockets.HANDSHAKE_FAILED:
                self.barred, self._barred_at = curve.why(event, self._endpoint, self._endpoint.keys), now
                continue
            self._cut_at = now if event == zmq.EVENT_DISCONNECTED else None
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                # Back at once, when only our own attempt could do it: cut by a refusal, not by a death.
                self.refused += not self.barred and now - self._tried_at < _RECONNECT_S
                self.barred = ""
            self._tried_at = 0.0
        if now - self._barred_at > _BARRED_S:  # nobody is there any more who could refuse us
            self.barred = ""
        told = bool(self.barred) and self._endpoint.server != self._server  # of another key to expect
        if told or (self._cut_at is not None and now - self._cut_at > 2 * _RECONNECT_S):
            self._cut_at, self._tried_at, self._server = None, now, self._endpoint.server
            self._connect_anew()
        elif now - self._heard_at > self._silent_s:
            self._heard_at = now
            self._connect_anew()

    def _connect_anew(self) -> None:
        self.socket.disconnect(self._endpoint)
        sockets.connect(self.socket, self._endpoint)

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()


_MOST = 2**53
"""A count of losses stays a number that every reader of a heartbeat can hold, whatever a publisher claims."""


class Gaps:
    """Counts what a reader lost, by ``seq`` within one publisher's ``boot``."""

    def __init__(self) -> None:
        self.lost = 0
        self.restarts = 0
        self.ranges: list[tuple[str, int, int]] = []  # boot, first and last seq lost
        self._boot, self._next = "", 0

    def see(self, message: Message) -> bool:
        """Note a message; False when it is a repetition (a latched topic answering another reader)."""
        if message.boot != self._boot:
            self.restarts += self._boot != ""
            self._boot, self._next = message.boot, message.seq + 1
            return True
        if message.seq < self._next:
            return False
        if message.seq > self._next:
            self.lost = min(self.lost + message.seq - self._next, _MOST)
            self.ranges.append((message.boot, self._next, message.seq - 1))
            del self.ranges[:-1000]
        self._next = message.seq + 1
        return True


_building = threading.Lock()


class Reader[M: Message](ABC):
    """What both readers have in common: take a message, count what was refused and what was lost.

    ``barred``: why there is no connection while that is the keys' fault, with the remedy; else empty.
    """

    def __init__(self, topic: Topic, message: type[M]) -> None:
        self.topic = topic
        self.received = 0
        self.refused = 0
        self.refusal = ""
        self.barred = ""
        self.gaps = Gaps()
        with _building:  # not by two threads at the first message: older pydantics do not bear that
            message.model_rebuild()
        self._model = message
        self._name = wire.subscription(topic.name)

    def _take(self, subscription: Subscription, timeout_s: float) -> Received[M] | None:
        """The next message that parses and is no repetition; None when none came in time.

        When the time is up, no more nonsense is passed over than is kept for a reader: a flood of it must not
        hold the owner up."""
        deadline, spare = time.monotonic() + timeout_s, self.topic.depth
        while spare and (parts := subscription.receive(deadline - time.monotonic())) is not None:
            now = clock.monotonic_ns()
            spare -= time.monotonic() >= deadline
            try:
                if parts[0] != self._name:
                    raise wire.WireError(f"it is about another topic: {parts[0][:60]!r}")
                message, payload = wire.decode(parts, self._model)
            except wire.WireError as e:
                self.refused, self.refusal = self.refused + 1, str(e)
                continue
            if self.gaps.see(message):
                self.received += 1
                return Received(message, payload, now)
        self.barred = subscription.barred
        if subscription.refused:
            self.refused, subscription.refused = self.refused + subscription.refused, 0
            self.refusal = f"a message above {self.topic.max_bytes} bytes"
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of the socket."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Latest[M: Message](Reader[M]):
    """The newest message of a topic, kept by a thread of its own.

    CONFLATE is not used: on multipart messages it drops all parts but the last without a word.
    """

    def __init__(self, topic: Topic, message: type[M]) -> None:
        super().__init__(topic, message)
        self._slot: Received[M] | None = None
        self._fresh = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"latest {topic.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        subscription = Subscription(self.topic, self.topic.depth)
        try:
            while not self._stop.is_set():
                received = self._take(subscription, 0.1)
                if received is not None:
                    with self._fresh:
                        self._slot = received
                        self._fresh.notify_all()
        finally:
            subscription.close()

    def get(self) -> Received[M] | None:
        """The newest message, or None before the first."""
        with self._fresh:
            return self._slot

    def wait(self, timeout_s: float, after: Received[M] | None = None) -> Received[M] | None:
        """The newest message that is not ``after``; None when none came in time."""
        with self._fresh:
            self._fresh.wait_for(lambda: self._slot is not None and self._slot is not after, timeout_s)
            return self._slot if self._slot is not after else None

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Queued[M: Message](Reader[M]):
    """Every message of a topic in order, with an account of what was lost. For one thread only."""

    def __init__(self, topic: Topic, message: type[M], depth: int | None = None) -> None:
        super().__init__(topic, message)
        self._depth = depth or topic.depth
        self._subscription = Subscription(topic, self._depth)
        self.socket = self._subscription.socket

    def receive(self, timeout_s: float = 0.0) -> Received[M] | None:
        """The next message, waiting at most ``timeout_s``; None when there is none."""
        return self._take(self._subscription, timeout_s)

    def tend(self) -> None:
        """For owners that poll :attr:`socket` themselves: call it now and then while nothing arrives."""
        if not self.socket.poll(0):
            self._subscription.revive()
            self.barred = self._subscription.barred

    def drain(self) -> Iterator[Received[M]]:
        """All messages that have arrived by now; no more than its queue holds, so that a flood ends."""
        for _ in range(self._depth):
            if (received := self.receive()) is None:
                return
            yield received

    def close(self) -> None:
        self._subscription.close()
