"""Episodes on the bench as the demo needs them: performed, and recorded where asked."""

import time
from collections.abc import Callable

from gripwire.bus import Latest
from gripwire.control import Client
from gripwire.errors import UserError
from gripwire.messages import EpisodeState, StartEpisode, StopEpisode
from gripwire.topics import Topics
from gripwire_sim.demo.plan import TASK, Planned
from gripwire_sim.session import Session

PATIENCE_S = 30.0
"""The recorder answers late while it imports."""


class Recording:
    """A demonstrator's session with a recorder beside it."""

    def __init__(self, topics: Topics, cancelled: Callable[[], bool]) -> None:
        self.session = Session(topics, cancelled)
        self._recorder = Client(topics.control("recorder"), "recorder")
        self._episode = Latest(topics["episode"], EpisodeState)
        self._cancelled = cancelled
        self._saved_before: int | None = None

    def record(self, planned: Planned) -> None:
        """Record one episode. It is saved while the next is prepared; see :meth:`wait_saved`."""
        if self._saved_before is None:
            seen = self._episode.wait(PATIENCE_S)
            self._saved_before = seen.message.saved if seen else 0
        script = self.session.prepare(planned.kind, planned.seed)
        self._recorder.ask(StartEpisode(task=TASK, dataset=planned.dataset), PATIENCE_S)
        self.session.perform(script)
        self._recorder.ask(StopEpisode(), PATIENCE_S)

    def wait_saved(self, count: int, timeout_s: float) -> EpisodeState:
        """Block until the recorder has made ``count`` of these episodes durable.

        Raises:
            UserError: it has not within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        seen, before = self._episode.get(), self._saved_before or 0
        while seen is None or seen.message.saved - before < count:
            if time.monotonic() > deadline or self._cancelled():
                found = seen.message if seen else EpisodeState(state="idle")
                raise UserError(
                    f"the recorder has saved {found.saved - before} of {count} episodes"
                    f"{': ' + found.problem if found.problem else ''}; see its log"
                )
            seen = self._episode.wait(0.2, after=seen) or seen
        return seen.message

    def close(self) -> None:
        self.session.close()
        self._recorder.close()
        self._episode.close()
