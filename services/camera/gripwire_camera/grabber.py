"""The thread that stands at the camera: nothing the loop does may delay a grab."""

import logging
import queue
import threading
from collections import deque

from gripwire_camera.sources import Picture, Source, SourceLost

log = logging.getLogger("gripwire.camera")

BACKOFF_S = (0.2, 5.0)
DEPTH = 8


class Grabber:
    """Reads a source in a thread of its own, reconnecting for as long as it lives.

    A picture waits in a queue of ``DEPTH``; when the loop is that far behind, a file waits for it, and of a
    camera the oldest picture goes and is counted.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problem = f"waiting for the first picture from {source.address}"
        self.dropped = 0
        self.connects = 0
        self.ended = False
        self.error: BaseException | None = None
        self._pictures: deque[Picture] = deque(maxlen=DEPTH)
        self._arrived = threading.Condition()
        self._outdated = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grabber", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float) -> Picture:
        """The oldest picture waiting.

        Raises:
            queue.Empty: none came in time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._pictures, timeout_s):
                raise queue.Empty
            picture = self._pictures.popleft()
            self._arrived.notify()
            return picture

    def renew(self) -> None:
        """Throw away what waits, here and at the source, and connect anew: nobody has looked for a while, and
        a picture that was kept meanwhile must not pass for one of now."""
        with self._arrived:
            self._outdated = True
            self._pictures.clear()

    @property
    def waiting(self) -> int:
        return len(self._pictures)

    def _run(self) -> None:
        backoff = BACKOFF_S[0]
        try:
            while not self._stop.is_set() and not self.ended:
                before = self.connects
                try:
                    self._session()
                except SourceLost as e:
                    self.problem = str(e)
                finally:
                    self.source.close()
                backoff = BACKOFF_S[0] if self.connects > before else min(BACKOFF_S[1], backoff * 2)
                self._stop.wait(backoff)
        except BaseException as e:  # handed to the loop, which ends the service with it
            self.error = e

    def _session(self) -> None:
        """One connection, from open to loss. It counts as made when its first picture is here."""
        self._outdated = False
        for warning in self.source.open():
            log.warning("%s: %s", self.source.address, warning)
        first = True
        while not self._stop.is_set():
            picture = self.source.read()
            if picture is None:
                self.ended = True
                return
            if first:
                first, self.problem = False, ""
                self.connects += 1
            with self._arrived:
                if self._outdated:
                    self._outdated = False
                    raise SourceLost(f"{self.source.address} was not read for a while; connecting anew")
                while self.source.patient and len(self._pictures) == DEPTH and not self._stop.is_set():
                    self._arrived.wait(0.1)
                self.dropped += len(self._pictures) == DEPTH
                self._pictures.append(picture)
                self._arrived.notify()

    def close(self) -> None:
        self._stop.set()
        self.source.interrupt()
        self._thread.join(3.0)
