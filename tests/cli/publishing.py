"""A service that only talks."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gripwire.bus import Publisher
from gripwire.messages import Message
from gripwire.topics import Topic


@contextmanager
def publishing(
    topic: Topic, make: Callable[[], Message], rate_hz: float, payload: bytes | None = None
) -> Iterator[Publisher[Any]]:
    """Publish what ``make`` gives at a rate, on a schedule, until the block ends."""
    end = threading.Event()

    def run() -> None:
        while not end.wait(1 / rate_hz):
            publisher.publish(make(), payload)

    with Publisher(topic) as publisher:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield publisher
        finally:
            end.set()
            thread.join()
