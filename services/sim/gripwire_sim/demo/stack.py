"""The stack under the demo: `gripwire up --profile sim`'s supervisor in a thread, or one that runs."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gripwire import supervise
from gripwire.errors import UserError
from gripwire.messages import Health
from gripwire.settings import Settings
from gripwire.survey import Survey


class Stack:
    """Starts every service on the bench, keeps them up, and stops them all on :meth:`close`."""

    def __init__(self, settings: Settings, log_dir: Path) -> None:
        supervise.refuse_taken_ports(settings.topics, bench=True)
        self._settings = settings
        self.log_dir = log_dir
        self.health: dict[str, Health] = {}
        self._table = supervise.stack(settings, "sim", frozenset({"capsule", "metrics"}))
        missing = {"sim", "camera", "robot", "reward", "recorder", "trainer"} - {
            process.arguments[0] for process in self._table
        }
        if missing:
            raise UserError(f"the demo needs every service; not installed: {', '.join(sorted(missing))}")
        self._supervisor = supervise.Supervisor(
            settings, self._table, supervise.bench_environment(settings), log_dir
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        topics = [self._settings.topics[f"health/{process.service}"] for process in self._table]
        survey = Survey(topics)
        while not self._stop.is_set():
            self._supervisor.poll({name for name in self._up()})
            survey.listen(0.1)
            for message in list(survey.latest.values()):
                if isinstance(message, Health):  # a new dict: another thread may be going through the old one
                    self.health = self.health | {message.service: message}
        survey.close()
        self._supervisor.stop()

    def _up(self) -> list[str]:
        return [name for name, health in self.health.items() if health.state in ("ready", "degraded")]

    def waiting_for(self, services: set[str]) -> list[str]:
        """Which of ``services`` are not ready yet.

        Raises:
            UserError: one of them was given up by the supervisor.
        """
        for name, child in self._supervisor.children.items():
            if child.given_up:
                raise UserError(
                    f"the {name} service does not stay up: {child.last_words()} (all of it: {child.log_path})"
                )
        return _not_ready(services, self.health)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each service had to be started again."""
        return {name: c.restarts for name, c in self._supervisor.children.items() if c.restarts}

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Running:
    """The stack that runs here already, in containers or under `gripwire up`; it goes on running."""

    log_dir = "its own place: `gripwire stack logs SERVICE`, or where `gripwire up` runs"
    restarts: ClassVar[dict[str, int]] = {}
    """Not ours to count."""

    def __init__(self, settings: Settings) -> None:
        self._survey = Survey([t for t in settings.topics if t.name.startswith("health/")])

    def waiting_for(self, services: set[str]) -> list[str]:
        """Which of ``services`` are not ready yet."""
        self._survey.listen(0.1)
        beats = [beat for beat in self._survey.latest.values() if isinstance(beat, Health)]
        return _not_ready(services, {beat.service: beat for beat in beats})

    def close(self) -> None:
        self._survey.close()


def _not_ready(services: set[str], health: Mapping[str, Health]) -> list[str]:
    # The reward service is degraded until it has a bundle, and works all the same.
    well = {
        s for s, beat in health.items() if beat.state == "ready" or (beat.state, s) == ("degraded", "reward")
    }
    return sorted(services - well)
