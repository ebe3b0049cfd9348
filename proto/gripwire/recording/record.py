"""Follows topics of the live bus into a file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gripwire.recording.file import RecordingFile
from gripwire.survey import Survey
from gripwire.topics import Topic

FLUSH_S = 0.5
SYNC_S = 1.0


class Recorder:
    """Everything that is published on ``topics`` from now on goes into the file.

    Raises:
        UserError: the file exists, or cannot be written.
    """

    def __init__(self, path: Path, topics: Sequence[Topic]) -> None:
        self.file = RecordingFile(path)
        self._survey = Survey(topics)
        self._flushed = self._synced = time.monotonic()

    def run(self, stopped: Callable[[], bool], tell: Callable[["Recorder"], None]) -> None:
        """Record until ``stopped``; ``tell`` is called once a second."""
        told = time.monotonic()
        while not stopped():
            self.take(0.1)
            if time.monotonic() - told >= 1.0:
                told = time.monotonic()
                tell(self)

    def take(self, seconds: float) -> None:
        """Write what arrives within ``seconds``."""
        for topic, received in self._survey.listen(seconds):
            self.file.write(topic, received)
        now = time.monotonic()
        if now - self._synced >= SYNC_S:
            self.file.sync()
            self._flushed = self._synced = now
        elif now - self._flushed >= FLUSH_S:
            self.file.flush()
            self._flushed = now

    def lost(self) -> dict[str, int]:
        """Messages by topic that were published and never came here, or could not be read."""
        readers = self._survey.readers.items()
        return {name: lost for name, r in readers if (lost := r.gaps.lost + r.refused)}

    def close(self) -> None:
        self._survey.close()
        self.file.close()
