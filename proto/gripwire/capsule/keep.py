"""Follows the bus into the ring, in a thread of its own."""

import logging
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from gripwire.capsule.deaths import Deaths
from gripwire.capsule.ring import Ring
from gripwire.messages import Health
from gripwire.survey import Survey

log = logging.getLogger(__name__)

_BATCH_S = 0.2
"""Messages wait in their queues for so long: waking up for each of some 200 a second is most of the cost."""


class Keeper:
    """Everything that ``survey`` hears goes into the ring. It belongs to this thread until :meth:`close`.

    ``deaths``: what the heartbeats told of services that died, for whoever takes it out.
    """

    def __init__(self, ring: Ring, survey: Survey) -> None:
        self.ring = ring
        self.deaths: SimpleQueue[str] = SimpleQueue()
        self.lost = self.received = 0
        self._survey = survey
        self._asked: SimpleQueue[Future[list[Path]] | None] = SimpleQueue()
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ring", daemon=True)
        self._thread.start()

    def hold(self) -> list[Path]:
        """The ring as it is now, on the disk; nothing of it goes until :meth:`release`. Waits for it."""
        future: Future[list[Path]] = Future()
        self._asked.put(future)
        return future.result(timeout=30)

    def release(self) -> None:
        self._asked.put(None)

    def _run(self) -> None:
        try:
            self._follow(self._survey)
        except BaseException as e:
            self.failure = e
            log.exception("while keeping the ring")

    def _follow(self, survey: Survey) -> None:
        deaths = Deaths()
        try:
            while not self._stop.wait(_BATCH_S):
                for topic, received in survey.listen(0.002):
                    self.ring.write(topic, received)
                    self.received += 1
                    if isinstance(received.message, Health):
                        self._tell(deaths.see(received.message, time.monotonic()))
                self._tell(deaths.silent(time.monotonic()))
                self.ring.tend()
                self.lost = sum(reader.gaps.lost + reader.refused for reader in survey.readers.values())
                while not self._asked.empty():
                    self._answer(self._asked.get())
        finally:
            self.ring.close()

    def _tell(self, death: str) -> None:
        if death:
            self.deaths.put(death)

    def _answer(self, future: "Future[list[Path]] | None") -> None:
        if future is None:
            self.ring.release()
        else:
            future.set_result(self.ring.hold())

    def close(self) -> None:
        """Finish the segment that is being written; the ring stays on the disk."""
        self._stop.set()
        self._thread.join()
