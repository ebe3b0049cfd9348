"""Listens to many topics from one thread and meters each."""

from collections.abc import Sequence

import zmq

from gripwire import clock, sockets
from gripwire.bus import Queued, Received
from gripwire.liveness import Liveness, Meter
from gripwire.messages import Message
from gripwire.topics import Topic


class Survey:
    """Readers of several topics, polled together."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self.meters = {topic.name: Meter(topic) for topic in topics}
        self.readers: dict[str, Queued[Message]] = {
            topic.name: Queued(topic, topic.message) for topic in topics
        }
        self.latest: dict[str, Message] = {}
        self._tended = 0
        self._poller = zmq.Poller()
        self._by_socket = {reader.socket: name for name, reader in self.readers.items()}
        for socket in self._by_socket:
            self._poller.register(socket, zmq.POLLIN)

    def listen(self, seconds: float) -> list[tuple[str, Received[Message]]]:
        """Take in everything that arrives within ``seconds``; what arrived, in order, with its topic."""
        arrived: list[tuple[str, Received[Message]]] = []
        end = clock.monotonic_ns() + int(seconds * 1e9)
        while (left := end - clock.monotonic_ns()) > 0:
            ready = self._poller.poll(sockets.milliseconds(min(left / 1e9, 0.5)))
            if clock.monotonic_ns() > self._tended + 500_000_000:
                self._tended = clock.monotonic_ns()
                for reader in self.readers.values():
                    reader.tend()
            for socket, _ in ready:
                name = self._by_socket[socket]
                for received in self.readers[name].drain():
                    self.meters[name].see(received)
                    self.latest[name] = received.message
                    arrived.append((name, received))
        return arrived

    def barred(self) -> str:
        """Why nothing is heard where that is the keys' fault, in words; empty where it is not."""
        return next((reader.barred for reader in self.readers.values() if reader.barred), "")

    def judge(self) -> dict[str, Liveness]:
        """Every topic's liveness now."""
        now = clock.monotonic_ns()
        return {name: meter.judge(now) for name, meter in self.meters.items()}

    def close(self) -> None:
        for reader in self.readers.values():
            reader.close()
