"""The recorder's loop: every message into the episode's journal, its state out on `episode`."""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from gripwire import clock, logs
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    DiscardEpisode,
    Done,
    EpisodeState,
    Label,
    MarkEpisode,
    Reply,
    StartEpisode,
    StartSession,
    SteerSession,
    StopEpisode,
)
from gripwire.service import Runtime
from gripwire_recorder import schema, verdicts
from gripwire_recorder.disk import Disk
from gripwire_recorder.jobs import Jobs
from gripwire_recorder.journal import Journal, Opening
from gripwire_recorder.open_episode import OpenEpisode
from gripwire_recorder.saver import Job
from gripwire_recorder.session import Session
from gripwire_recorder.settings import Recorder
from gripwire_recorder.sources import SILENT_S, Sizes, Sources
from gripwire_recorder.store import Store
from gripwire_recorder.take import Take

log = logging.getLogger(__name__)

_CLOSE_S = 25.0
"""At the end, for episodes that are still being saved: less than the 30 s after which `gripwire up` kills."""
_TRY_AGAIN_S = 1.0
_LOOK_S = 0.01


class RecorderService:
    """See :mod:`gripwire_recorder` for what is written and what is promised."""

    rate_hz: float | None = 50.0

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.settings = runtime.settings.section("recorder", Recorder)
        self.session_id = f"{time.strftime('%Y-%m-%dT%H:%M:%S')}-{uuid.uuid4().hex[:6]}"
        self._publisher = runtime.publisher("episode")
        self._recording: OpenEpisode | None = None
        self._closing: list[OpenEpisode] = []  # stopped, waiting for messages that are on their way
        self._session: Session | None = None
        self._mine: set[str] = set()  # datasets begun by this recorder
        self._last = EpisodeState(state="idle", valid=True)  # what idle says
        self._announced = (self._last, 0.0)

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {
            StartEpisode: self.start, StopEpisode: self.stop, DiscardEpisode: self.discard,
            MarkEpisode: self.mark, StartSession: self.start_session, SteerSession: self.steer,
        }  # fmt: skip

    def setup(self) -> None:
        data, settings = self.runtime.settings.data, self.settings
        self._store = Store(data / "datasets")
        for text in self._store.recover():
            log.warning("%s", text)
        self._journals = data / "journals"
        self._disk = Disk(self._store.root, settings.min_free_mb)
        # LeRobot's import takes some seconds; episodes can be recorded meanwhile.
        self._jobs = Jobs(self.runtime, settings.crf, self._store)
        self._jobs.recover(self._journals)
        self._sources = Sources(self.runtime)
        self._announce()

    # --- commands -------------------------------------------------------------------------------------

    def start(self, command: StartEpisode) -> Done:
        if self._session:
            raise UserError("a session is under way; `gripwire recorder session end` ends it")
        self._begin(command.task, command.dataset, command.append)
        assert self._recording
        job, left = self._recording.job, self._disk.minutes_left
        room = "" if left is None or left > 120 else f"; the disk has room for {left:g} minutes"
        return Done(text=f"recording episode {job.episode} of dataset `{job.name}`{room}")

    def _begin(self, task: str, dataset: str, append: bool) -> None:
        if self._recording:
            name = self._recording.job.name
            raise UserError(f"an episode of dataset `{name}` is being recorded: stop or discard it first")
        if not task.strip():
            raise UserError('an episode needs its task in words, for example "grasp the cube"')
        self._check_dataset(dataset, append)
        self._drain()
        for _ in range(round(2 * SILENT_S / _LOOK_S)):  # looks, not seconds: the machine may be held up again
            if not self._sources.missing():
                break
            time.sleep(_LOOK_S)
            self._drain()
        sizes = self._sources.check()
        self._check_disk()
        episode = self._jobs.next_episode(dataset, schema.features(sizes), sizes, self.settings.fps)
        now = clock.monotonic_ns()
        opening = Opening(
            dataset=dataset, task=task.strip(), fps=self.settings.fps, sizes=sizes, session=self.session_id,
            host=clock.host_id(), started=time.time(), t_start=now, hole_s=self.settings.hole_s,
        )  # fmt: skip
        journal = Journal(self._journals, opening)
        job = Job(journal.path, self._store.path(dataset), opening, episode=episode)
        take = Take(tuple(sizes), self.settings.fps, now)
        self._recording = OpenEpisode(take, journal, job, self._sources.lost())
        for source in self._sources:
            if source.last is not None:
                self._recording.keep(source.topic, source.last)
        self._mine.add(dataset)
        self._jobs.add(job)
        self._announce()

    def _check_dataset(self, dataset: str, append: bool) -> None:
        known = self._store.info(dataset) is not None or self._jobs.pending_in(dataset)
        if known and not append and dataset not in self._mine:
            raise UserError(
                f"dataset `{dataset}` exists already: add to it with --append, or name another dataset"
            )

    def _check_disk(self) -> None:
        self._jobs.check()
        if self._store.ensure():
            log.warning("%s had been removed; made again", self._store.root)
        free = self._disk.free_mb()
        if free < self._disk.floor_mb:
            raise UserError(
                f"only {free:.0f} MB are free on the disk that holds {self._store.root}, and "
                f"[recorder] min_free_mb is {self.settings.min_free_mb}: free some space first"
            )

    def stop(self, _: StopEpisode) -> Done:
        if not self._recording:
            lost = f"; the last one was lost: {self._jobs.lost}" if self._jobs.lost else ""
            raise UserError(f"no episode is being recorded{lost}")
        job = self._recording.job
        self._stop_recording()
        if self._session:
            self._session.cut_short(time.monotonic())
        return Done(text=f"episode {job.episode} of dataset `{job.name}` is being saved")

    def discard(self, _: DiscardEpisode) -> Done:
        if self._recording:
            self._throw_away()
            if self._session:
                self._session.cut_short(time.monotonic())
            return Done(text="the episode was thrown away")
        if self._jobs.discard_stuck():
            return Done(text="the episode that could not be saved was thrown away")
        raise UserError("no episode is being recorded; what is saved is not thrown away from here")

    def _throw_away(self) -> None:
        assert self._recording
        self._jobs.discard(self._recording.job)
        self._recording.journal.abandon()
        self._recording = None
        self._announce()

    def mark(self, command: MarkEpisode) -> Done:
        verdict = "success" if command.success else "failure"
        if self._recording and command.reject:
            raise UserError("the episode is still being recorded: discard it, or reject it afterwards")
        if self._recording:
            self._recording.mark(command)
            self._announce()
            return Done(text=f"{verdict} from now on")
        about = self._jobs.mark_last(command)
        self._announce()
        return Done(text=f"{about} is {'not to be used' if command.reject else f'marked as a {verdict}'}")

    # --- sessions -------------------------------------------------------------------------------------

    def start_session(self, command: StartSession) -> Done:
        if self._session or self._recording:
            raise UserError("an episode or a session is under way: end it first")
        if not command.task.strip():
            raise UserError('a session needs its task in words, for example "grasp the cube"')
        self._check_dataset(command.dataset, command.append)
        self._drain()
        self._sources.check()
        self._check_disk()
        self._session = Session(command, time.monotonic())
        self._announce()
        return Done(text=f"{command.episodes} episodes of {command.seconds:g} s in `{command.dataset}`")

    def steer(self, command: SteerSession) -> Done:
        if not self._session and self._recording and command.what == "redo":
            return self._again(self._recording.job.opening)
        if not self._session:
            raise UserError("no session is under way; `gripwire record-session` begins one")
        session, now = self._session, time.monotonic()
        acts = {"next": session.next, "redo": session.redo, "end": lambda _: session.end()}[command.what](now)
        if command.what == "redo" and not acts:
            raise UserError("there is no episode of this session to be repeated")
        for act in acts:
            self._act(act)
        self._announce()
        return Done(text=f"{session.done} of {session.plan.episodes} episodes")

    def _again(self, opening: Opening) -> Done:
        """Throw away what is being recorded, and begin the same anew."""
        self._throw_away()
        self._begin(opening.task, opening.dataset, append=True)
        return Done(text="thrown away; recording it once more")

    def _follow_session(self) -> None:
        session, now = self._session, time.monotonic()
        if not session:
            return
        if session.phase == "recording" and not self._recording:  # ended by itself
            session.cut_short(now)
        for act in session.tick(now):
            self._act(act)

    def _act(self, act: str) -> None:
        if act == "start" and self._session:
            self._begin_in(self._session)
        elif act == "stop" and self._recording:
            self._stop_recording()
        elif act == "discard" and self._recording:
            self._throw_away()
        elif act == "reject":
            self._jobs.mark_last(MarkEpisode(reject=True))
        elif act == "over" and self._session:
            log.info("the session is over: %d episodes", self._session.done)
            self._session = None
            self.runtime.problem("session")
            self._announce()

    def _begin_in(self, session: Session) -> None:
        plan = session.plan
        try:
            self._begin(plan.task, plan.dataset, plan.append or session.done > 0)
        except UserError as e:
            self.runtime.problem("session", f"the session waits: {e}")
            session.refused(time.monotonic(), _TRY_AGAIN_S)
            return
        self.runtime.problem("session")
        session.begun(time.monotonic())
        self._announce()
        if plan.success is not None:
            self.mark(MarkEpisode(success=plan.success, by="session"))

    # --- the loop -------------------------------------------------------------------------------------

    def update(self) -> None:
        self._drain()
        now = clock.monotonic_ns()
        self._disk.see(self._sources.bytes)
        if self._recording:
            self._recording.take.settle(now)
            self._check_limits(now)
        for open_ in list(self._closing):
            open_.take.settle(now)
            if open_.take.complete(now):
                self._end(open_)
        self._follow_session()
        self._collect()
        self._report_silence()
        busy = self._recording or self._session
        if busy and time.monotonic() - self._announced[1] > 0.5:
            self._announce()

    def _drain(self) -> None:
        sizes: Sizes | None = self._recording.job.opening.sizes if self._recording else None
        for arrived in self._sources.drain(sizes):
            for open_ in (self._recording, *self._closing):
                if open_:
                    open_.keep(arrived.topic, arrived.received, arrived.refusal)
            if isinstance(arrived.received.message, Label):
                self._note(arrived.received.message)

    def _note(self, label: Label) -> None:
        """A verdict from the bus about the episode that is being recorded, or about one that is saved."""
        open_ = self._recording
        if open_ and open_.is_about(label):
            open_.verdicts.append(verdicts.of_label(label))
        elif label.dataset and label.episode >= 0 and not label.now:
            self._jobs.note(label)

    def _check_limits(self, now: int) -> None:
        """End the episode by itself where going on would cost more than it gives."""
        assert self._recording
        settings = self.settings
        silent = [s.topic for s in self._sources.needed() if s.silent_s > settings.give_up_s]
        trouble = self._recording.trouble(now, settings)
        if not trouble and silent:
            trouble = f"ended by itself: {silent[0]} was silent for {settings.give_up_s:g} s"
        if not trouble and self._disk.nearly_full:
            trouble = (
                f"ended by itself: less than {self._disk.stop_mb:g} MB (half of [recorder] min_free_mb) are "
                f"free on the disk that holds {self._store.root}"
            )
        if trouble:
            self._stop_recording(trouble)

    def _stop_recording(self, note: str = "") -> None:
        assert self._recording
        if note:
            self._recording.notes.append(note)
            log.warning("%s", note)
        self._recording.take.stop(clock.monotonic_ns())
        self._closing.append(self._recording)
        self._recording = None
        self._announce()

    def _end(self, open_: OpenEpisode) -> None:
        self._closing.remove(open_)
        self._jobs.ending(open_.job, open_.journal, open_.end(self._sources.lost()))

    def _collect(self) -> None:
        """Report what has been saved, in order."""
        for job in self._jobs.collect():
            if not job.discarded:
                self._last = _state_of(job)
            self._announce()
        if not self._recording and self._jobs.waiting and self._jobs.stuck != self._announced[0].problem:
            self._announce()

    def _report_silence(self) -> None:
        for source in self._sources.needed():
            during = self._recording is not None and source.silent_s > SILENT_S
            text = f"{source.topic} is silent while an episode is recorded" if during else ""
            self.runtime.problem(f"silent {source.topic}", text)

    def _announce(self) -> None:
        """Publish the present state on `episode`."""
        pending = self._jobs.waiting
        if self._recording:
            state = self._recording.state(self._sources.lost(), self._jobs.stuck, self.settings.hole_s)
        elif pending:
            state = _state_of(pending[0])
            state.state, state.problem = "saving", self._jobs.stuck
        else:
            state = self._last.model_copy()
        state.saved, state.recovered = self._jobs.saved, self._jobs.recovered
        state.minutes_left = self._disk.minutes_left
        if self._session:
            state.session_episodes, state.session_done = self._session.plan.episodes, self._session.done
            state.session_phase = self._session.phase
            state.session_left_s = round(self._session.left(time.monotonic()), 2)
        self._announced = (state, time.monotonic())
        logs.context.see(state)
        self._publisher.publish(state)
        if self._recording:
            self._recording.journal.write("episode", Received(state.model_copy(), None, clock.monotonic_ns()))

    def close(self, failed: bool) -> None:
        """Save what is being recorded: who ends the recorder has not asked to throw it away."""
        if not hasattr(self, "_sources"):
            if hasattr(self, "_jobs"):
                self._jobs.close(0.0)
            return
        if self._recording:
            self._stop_recording("the recorder was stopped during the episode")
        for open_ in list(self._closing):
            self._drain()
            self._end(open_)
        self._jobs.close(_CLOSE_S)
        self._collect()
        self._store.close()


def _state_of(job: Job) -> EpisodeState:
    summary = job.summary
    return EpisodeState(
        state="idle", valid=True, dataset=job.name, episode=job.episode, task=job.opening.task,
        rows=job.saved_rows or (0 if job.done else job.rows), drops=summary.get("drops", {}),
        worst_skew_ms=summary.get("worst_skew_ms", 0.0), problem=job.failed or summary.get("problem", ""),
        verdict=verdicts.last([*summary.get("verdicts", []), *job.late_verdicts]),
    )  # fmt: skip


def build(runtime: Runtime) -> RecorderService:
    """For :func:`gripwire.service.run`."""
    return RecorderService(runtime)
