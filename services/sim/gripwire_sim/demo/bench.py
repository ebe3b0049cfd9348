"""Episodes on the bench as the demo needs them: performed, and recorded where asked."""

import time
from collections.abc import Callable

from gripwire import clock
from gripwire.bus import Latest
from gripwire.control import Client
from gripwire.errors import UserError
from gripwire.messages import DiscardEpisode, EpisodeState, StartEpisode, StopEpisode
from gripwire.topics import Topics
from gripwire_sim.demo.plan import TASK, Planned
from gripwire_sim.session import ArmError, Session

PATIENCE_S = 30.0
"""The recorder answers late while it imports."""
TRIES = 3
"""Of one episode. On a machine with other work a servo may answer too late once, and the arm is given up."""
_BACK_S = 15.0
"""The robot service finds an arm that answers again within so long."""


class Recording:
    """A demonstrator's session with a recorder beside it."""

    def __init__(self, topics: Topics, cancelled: Callable[[], bool]) -> None:
        self.repeated = 0
        """How many performances came to nothing because the arm failed, and were made again."""
        self._session = Session(topics, cancelled)
        self._recorder = Client(topics.control("recorder"), "recorder")
        self._episode = Latest(topics["episode"], EpisodeState)
        self._cancelled = cancelled
        self._saved_before: int | None = None

    def record(self, planned: Planned) -> None:
        """Record one episode. It is saved while the next is prepared; see :meth:`wait_saved`.

        Where the arm fails in the middle, what was recorded is discarded and the episode performed again.

        Raises:
            ArmError: the arm failed :data:`TRIES` times.
            UserError: the bench or the recorder does not answer, or refuses.
        """
        if self._saved_before is None:
            seen = self._episode.wait(PATIENCE_S)
            self._saved_before = seen.message.saved if seen else 0
        self._again_and_again(lambda: self._record(planned))

    def _record(self, planned: Planned) -> None:
        script = self._session.prepare(planned.kind, planned.seed)
        self._recorder.ask(StartEpisode(task=TASK, dataset=planned.dataset), PATIENCE_S)
        try:
            self._session.perform(script)
        except ArmError:
            self._recorder.ask(DiscardEpisode(), PATIENCE_S)
            raise
        self._recorder.ask(StopEpisode(), PATIENCE_S)

    def play(self, planned: Planned) -> tuple[int, int]:
        """Perform one episode that nobody records; when it began and ended, monotonic ns.

        Raises:
            ArmError: the arm failed :data:`TRIES` times.
            UserError: the bench does not answer, or refuses.
        """
        return self._again_and_again(lambda: self._play(planned))

    def _play(self, planned: Planned) -> tuple[int, int]:
        script = self._session.prepare(planned.kind, planned.seed)
        began = clock.monotonic_ns()
        self._session.perform(script)
        return began, clock.monotonic_ns()

    def _again_and_again[T](self, perform: Callable[[], T]) -> T:
        for _ in range(TRIES - 1):
            try:
                return perform()
            except ArmError:
                if self._cancelled():
                    raise
                self.repeated += 1
                self._session.await_arm(_BACK_S)
        return perform()

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
        self._session.close()
        self._recorder.close()
        self._episode.close()
