"""The recorder's loop: every message in, settled rows to the saver, its state out on `episode`."""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Command, DiscardEpisode, Done, EpisodeState, Reply, StartEpisode, StopEpisode
from gripwire.service import Runtime
from gripwire_recorder import schema
from gripwire_recorder.saver import Job, Saver
from gripwire_recorder.settings import Recorder
from gripwire_recorder.sources import SILENT_S, Sources, offer
from gripwire_recorder.store import Store
from gripwire_recorder.take import SETTLE_NS, Take

log = logging.getLogger(__name__)

_CLOSE_S = 25.0
"""At the end, for episodes that are still being saved: less than the 30 s after which `gripwire up` kills."""


@dataclass
class _Open:
    """An episode that still takes messages: its alignment, and the job it feeds."""

    take: Take
    job: Job
    lost_before: dict[str, int]
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)


class RecorderService:
    """See :mod:`gripwire_recorder` for what is written and what is promised."""

    rate_hz: float | None = 50.0

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.settings = runtime.settings.section("recorder", Recorder)
        self.session = f"{time.strftime('%Y-%m-%dT%H:%M:%S')}-{uuid.uuid4().hex[:6]}"
        self._publisher = runtime.publisher("episode")
        self._store: Store | None = None
        self._saver: Saver | None = None
        self._sources: Sources | None = None
        self._recording: _Open | None = None
        self._closing: list[_Open] = []  # stopped, waiting for messages that are on their way
        self._jobs: list[Job] = []  # not yet saved, in order
        self._saved = 0
        self._lost = ""
        self._last = EpisodeState(state="idle", valid=True)  # what idle says
        self._announced = (self._last, 0.0)

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {StartEpisode: self.start, StopEpisode: self.stop, DiscardEpisode: self.discard}

    def setup(self) -> None:
        data, settings = self.runtime.settings.data, self.settings
        self._store = Store(data / "datasets")
        for text in self._store.recover():
            log.warning("%s", text)
        # LeRobot's import takes 20 s; episodes can be recorded meanwhile, and are saved once it is there.
        versions = self.runtime.versions
        self._saver = Saver(
            settings.fps, settings.crf, data / "cache" / "recorder", lambda v: versions.update(lerobot=v)
        )
        self._sources = Sources(self.runtime)
        self._announce()

    # --- commands -------------------------------------------------------------------------------------

    def start(self, command: StartEpisode) -> Done:
        assert self._store and self._saver and self._sources
        if self._recording:
            name = self._recording.job.name
            raise UserError(f"an episode of dataset `{name}` is being recorded: stop or discard it first")
        if not command.task.strip():
            raise UserError('an episode needs its task in words, for example "grasp the cube"')
        self._drain()
        while self._sources.warming_up():
            time.sleep(0.01)
            self._drain()
        sizes = self._sources.check()
        self._check_disk()
        try:
            job = self._job(command, sizes)
        except OSError as e:
            raise UserError(f"{self._store.root}: cannot be read: {e.strerror}; check the folder") from e
        take = Take(tuple(sizes), self.settings.fps, clock.monotonic_ns())
        for source in self._sources:
            if source.last is not None:
                offer(take, source.last)
        self._lost = ""
        self._recording = _Open(take, job, self._sources.lost())
        self._jobs.append(job)
        self._saver.submit(job)
        self._announce()
        return Done(text=f"recording episode {job.episode} of dataset `{job.name}`")

    def _job(self, command: StartEpisode, sizes: dict[str, tuple[int, int]]) -> Job:
        assert self._store
        name, info = command.dataset, self._store.info(command.dataset)
        if info is not None:
            schema.check_match(name, info, schema.features(sizes), self.settings.fps)
        job = Job(self._store.path(name), name, command.task.strip(), sizes)
        before = [other for other in self._jobs if other.dataset == job.dataset and not other.discarded]
        if any(other.sizes != sizes for other in before):  # its first episode may not be on disk yet
            raise UserError(f"dataset `{name}` has pictures of another size; name another dataset")
        job.episode = (info["total_episodes"] if info else 0) + len(before)
        return job

    def _check_disk(self) -> None:
        assert self._store and self._saver
        if self._saver.broken:
            raise UserError(self._saver.broken)
        if stuck := self._stuck():
            raise UserError(stuck)
        if self._store.ensure():
            log.warning("%s had been removed; made again", self._store.root)
        free = self._store.free_bytes() / 2**20
        if free < self.settings.min_free_mb:
            raise UserError(
                f"only {free:.0f} MB are free on the disk that holds {self._store.root}, and "
                f"[recorder] min_free_mb is {self.settings.min_free_mb}: free some space first"
            )

    def stop(self, _: StopEpisode) -> Done:
        if not self._recording:
            lost = f"; the last one was lost: {self._lost}" if self._lost else ""
            raise UserError(f"no episode is being recorded{lost}")
        job = self._recording.job
        self._stop_recording()
        return Done(text=f"episode {job.episode} of dataset `{job.name}` is being saved")

    def discard(self, _: DiscardEpisode) -> Done:
        if self._recording:
            self._recording.job.discard()
            self._recording = None
            self._announce()
            return Done(text="the episode was thrown away")
        for job in self._jobs:
            if job.stuck and not job.discarded:
                job.discard()
                return Done(text="the episode that could not be saved was thrown away")
        raise UserError("no episode is being recorded; what is saved is not thrown away from here")

    # --- the loop -------------------------------------------------------------------------------------

    def update(self) -> None:
        self._drain()
        now = clock.monotonic_ns()
        if self._recording:
            self._recording.job.extend(self._recording.take.settle(now))
            self._check_limits(now)
        for open_ in list(self._closing):
            if open_.take.complete(now):
                self._end(open_, now)
        self._collect()
        self._report_silence()
        if self._recording and time.monotonic() - self._announced[1] > 0.5:
            self._announce()

    def _drain(self) -> None:
        assert self._sources
        for received in self._sources.drain(self._recording.job.sizes if self._recording else None):
            for open_ in (self._recording, *self._closing):
                if open_:
                    offer(open_.take, received)

    def _check_limits(self, now: int) -> None:
        """End the episode by itself where going on would cost more than it gives."""
        assert self._recording and self._sources
        settings, job = self.settings, self._recording.job
        silent = [s.topic for s in self._sources.needed() if s.silent_s() > settings.give_up_s]
        if job.failed:
            self._stop_recording(job.failed)
        elif (now - self._recording.take.t_start) / 1e9 > settings.max_episode_s:
            self._stop_recording(
                f"ended by itself after [recorder] max_episode_s = {settings.max_episode_s:g} s"
            )
        elif silent:
            self._stop_recording(f"ended by itself: {silent[0]} was silent for {settings.give_up_s:g} s")
        elif sum(job.held for job in self._jobs) > settings.buffer_mb * 2**20:
            why = f"more than [recorder] buffer_mb = {settings.buffer_mb} wait to be saved"
            self._stop_recording(f"ended by itself: {why}")

    def _stop_recording(self, note: str = "") -> None:
        assert self._recording
        if note:
            self._recording.notes.append(note)
            log.warning("%s", note)
        self._recording.take.stop(clock.monotonic_ns())
        self._closing.append(self._recording)
        self._recording = None
        self._announce()

    def _end(self, open_: _Open, now: int) -> None:
        """Hand over the last rows and what there is to say about the episode."""
        self._closing.remove(open_)
        take, job = open_.take, open_.job
        # All that will come has come: do not wait for late messages.
        job.extend(take.settle(now + SETTLE_NS))
        summary = {
            "session": self.session, "task": job.task, "host": clock.host_id(), "started": open_.started,
            "t_start": take.t_start, "drops": self._drops(open_),
            "worst_skew_ms": round(take.worst_skew_ms, 3),
            "problem": "; ".join([*open_.notes, *take.holes(self.settings.hole_s)]),
        }  # fmt: skip
        job.end(summary)

    def _drops(self, open_: _Open) -> dict[str, int]:
        lost = self._sources.lost() if self._sources else {}
        return {
            topic: n - open_.lost_before[topic] for topic, n in lost.items() if n > open_.lost_before[topic]
        }

    def _collect(self) -> None:
        """Report what the saver has finished, in order."""
        self.runtime.problem("stuck", self._stuck())
        while self._jobs and self._jobs[0].done:
            job = self._jobs.pop(0)
            if job.saved_rows:
                self._saved += 1
                self.runtime.count("saved")
                log.info("episode %d of %s is saved: %d rows", job.episode, job.name, job.saved_rows)
            if not job.discarded:
                self.runtime.problem("save", job.failed)
                self._lost = job.failed
                self._last = _state_of(job)
            self._announce()
        if not self._recording and self._jobs and self._stuck() != self._announced[0].problem:
            self._announce()

    def _stuck(self) -> str:
        return next((job.stuck for job in self._jobs if job.stuck and not job.discarded), "")

    def _report_silence(self) -> None:
        assert self._sources
        for source in self._sources.needed():
            during = self._recording is not None and source.silent_s() > SILENT_S
            text = f"{source.topic} is silent while an episode is recorded" if during else ""
            self.runtime.problem(f"silent {source.topic}", text)

    def _announce(self) -> None:
        """Publish the present state on `episode`."""
        pending = [job for job in self._jobs if not job.discarded]
        if self._recording:
            take, job = self._recording.take, self._recording.job
            problem = "; ".join(filter(None, [self._stuck(), *take.holes(self.settings.hole_s)]))
            state = EpisodeState(
                state="recording", valid=True, dataset=job.name, episode=job.episode, task=job.task,
                rows=take.rows, drops=self._drops(self._recording),
                worst_skew_ms=round(take.worst_skew_ms, 3), problem=problem,
            )  # fmt: skip
        elif pending:
            state = _state_of(pending[0]).model_copy(update={"state": "saving", "problem": self._stuck()})
        else:
            state = self._last.model_copy()
        state.saved = self._saved
        self._announced = (state, time.monotonic())
        self._publisher.publish(state)

    def close(self, failed: bool) -> None:
        """Save what is being recorded: who ends the recorder has not asked to throw it away."""
        if self._recording:
            self._stop_recording("the recorder was stopped during the episode")
        for open_ in list(self._closing):
            self._drain()
            self._end(open_, clock.monotonic_ns())
        if self._saver:
            pending = [job for job in self._jobs if not job.discarded]
            self._saver.close(_CLOSE_S if pending else 0.0)
            for job in pending:
                if not job.saved_rows and not job.discarded:
                    why = job.failed or job.stuck or f"it was not saved within {_CLOSE_S:g} s"
                    log.error("lost an episode of dataset `%s`: %s", job.name, why)
            self._collect()
        if self._store:
            self._store.close()


def _state_of(job: Job) -> EpisodeState:
    summary = job.summary
    return EpisodeState(
        state="idle", valid=True, dataset=job.name, episode=job.episode, task=job.task,
        rows=job.saved_rows or len(job.rows), drops=summary.get("drops", {}),
        worst_skew_ms=summary.get("worst_skew_ms", 0.0), problem=job.failed or summary.get("problem", ""),
    )  # fmt: skip


def build(runtime: Runtime) -> RecorderService:
    """For :func:`gripwire.service.run`."""
    return RecorderService(runtime)
