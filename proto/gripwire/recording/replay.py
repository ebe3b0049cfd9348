"""Plays a recording back onto the bus, as if its publishers ran now."""

import hashlib
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from gripwire.bus import Publisher
from gripwire.errors import UserError
from gripwire.messages import Message, Reward
from gripwire.recording.file import Recording
from gripwire.topics import Topic, Topics

_SETTLE_S = 0.3
"""Readers that wait for a publisher try again ten times a second: all should be there at the start."""


class Replay:
    """Stands in for the publishers of some topics of a recording.

    Messages keep their ``seq`` and their order; times are those of now, with the same intervals; ``boot``
    ids are new, the same ones for all that belonged together, so that a second replay is no repetition.
    """

    def __init__(
        self, recording: Recording, topics: Topics, names: Collection[str], all_of_them: bool = True
    ) -> None:
        """Take the ports of these topics; without ``all_of_them``, of those that can be had: ``left_out``
        says why the others cannot.

        Raises:
            UserError: a port is taken, or the stack has no such topic.
        """
        self.sent = 0
        self.left_out: dict[str, str] = {}
        self._recording, self._salt = recording, ""
        self._publishers: dict[str, Publisher[Any]] = {}
        for name in names:
            try:
                self._publishers[name] = Publisher(self._topic(topics, name))
            except UserError as e:
                if all_of_them:
                    self.close()
                    raise
                self.left_out[name] = str(e)

    def _topic(self, topics: Topics, name: str) -> Topic:
        if name in topics:
            return topics[name]
        raise UserError(
            f"topic `{name}` of {self._recording.path} is none of this stack's; add its camera to "
            "gripwire.toml as a slot [cameras.NAME], or leave it out with --topics"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that are played."""
        return tuple(self._publishers)

    def wait_for_readers(self, timeout_s: float) -> bool:
        """Whether anybody reads any of these topics within ``timeout_s``; then others had time to come."""
        deadline = time.monotonic() + timeout_s
        while not any(p.wait_for_subscriber(0.02) for p in self._publishers.values()):
            if time.monotonic() > deadline:
                return False
        time.sleep(_SETTLE_S)
        return True

    def run(self, rate: float, stopped: Callable[[], bool]) -> None:
        """Play to the end or until ``stopped``; with a ``rate`` of 2 twice as fast as it was recorded.

        Once more is as if all publishers had been started anew."""
        begun, first = time.monotonic(), 0
        self._salt = uuid.uuid4().hex
        for recorded in self._recording.messages(self._publishers):
            first = first or recorded.log_time
            due = begun + (recorded.log_time - first) / 1e9 / rate
            while (left := due - time.monotonic()) > 0:
                if stopped():
                    return
                time.sleep(min(left, 0.1))
            if stopped():
                return
            self._renew(recorded.message)
            self._publishers[recorded.topic].play_back(recorded.message, recorded.payload)
            self.sent += 1

    def _renew(self, message: Message) -> None:
        message.boot = self._boot(message.boot)
        if isinstance(message, Reward):
            message.frame_boot = self._boot(message.frame_boot)

    def _boot(self, recorded: str) -> str:
        return hashlib.sha256((self._salt + recorded).encode()).hexdigest()[:16] if recorded else ""

    def close(self, linger_ms: int = 0) -> None:
        """Give up the ports; what is still queued has ``linger_ms`` to leave, in the background."""
        for publisher in self._publishers.values():
            publisher.close(linger_ms)
