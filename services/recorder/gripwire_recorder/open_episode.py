"""An episode that still takes messages."""

import time
from dataclasses import dataclass, field
from typing import Any

from gripwire import clock
from gripwire.bus import Received
from gripwire.messages import EpisodeState, Label, MarkEpisode
from gripwire_recorder import verdicts
from gripwire_recorder.journal import Ending, Journal
from gripwire_recorder.saver import Job
from gripwire_recorder.settings import Recorder
from gripwire_recorder.sources import offer
from gripwire_recorder.take import Take


@dataclass
class OpenEpisode:
    """Its journal, and an alignment without pictures that tells how far it is."""

    take: Take
    journal: Journal
    job: Job
    lost_before: dict[str, int]
    """By topic, what the recorder's readers had lost when it began."""
    notes: list[str] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, topic: str, received: Received[Any], refused: str = "") -> None:
        """A message into the journal; into the rows, unless it was refused."""
        self.journal.write(topic, received)
        if not refused:
            offer(self.take, received, clock.host_id(), with_pictures=False)

    def mark(self, command: MarkEpisode) -> None:
        """A verdict from now on."""
        now = clock.monotonic_ns()
        label = Label(
            valid=True, success=command.success, by=command.by, now=True, t_capture=now, t_publish=now,
            t_wall=time.time_ns(), host=clock.host_id(),
        )  # fmt: skip
        self.keep("label", Received(label, None, now))
        self.verdicts.append(verdicts.verdict(command))

    def is_about(self, label: Label) -> bool:
        return label.dataset in ("", self.job.name) and label.episode in (-1, self.job.episode)

    def trouble(self, now: int, settings: Recorder) -> str:
        """Why going on would cost more than it gives, as far as the episode itself shows it."""
        if self.journal.failed:
            return f"ended by itself: {self.journal.failed}"
        if self.job.failed:
            return self.job.failed
        if (now - self.take.t_start) / 1e9 > settings.max_episode_s:
            return f"ended by itself after [recorder] max_episode_s = {settings.max_episode_s:g} s"
        if self.journal.held > settings.buffer_mb * 2**20:
            why = f"more than [recorder] buffer_mb = {settings.buffer_mb} wait for the disk"
            return f"ended by itself: {why}"
        return ""

    def drops(self, lost: dict[str, int]) -> dict[str, int]:
        """By topic what was lost since it began, of what was lost in all."""
        return {
            topic: n - self.lost_before[topic] for topic, n in lost.items() if n > self.lost_before[topic]
        }

    def end(self, lost: dict[str, int]) -> Ending:
        """All that will come has come: close the journal behind it."""
        assert self.take.t_stop is not None
        ending = Ending(
            t_stop=self.take.t_stop, drops=self.drops(lost), notes=self.notes, verdicts=self.verdicts
        )
        self.journal.end(ending)
        return ending

    def state(self, lost: dict[str, int], stuck: str, hole_s: float) -> EpisodeState:
        """What is said of it on `episode` while it is recorded."""
        take, job = self.take, self.job
        return EpisodeState(
            state="recording", valid=True, dataset=job.name, episode=job.episode, task=job.opening.task,
            rows=take.rows, drops=self.drops(lost), worst_skew_ms=round(take.worst_skew_ms, 3),
            problem="; ".join(filter(None, [stuck, *take.holes(hole_s)])),
            verdict=verdicts.last(self.verdicts),
        )  # fmt: skip
