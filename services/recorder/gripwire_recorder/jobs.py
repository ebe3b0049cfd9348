"""The episodes that are not yet durable, in order, from their start to what became of them."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gripwire.errors import UserError
from gripwire.messages import Label, MarkEpisode
from gripwire.recording.follow import Follower
from gripwire.service import Runtime
from gripwire_recorder import journal, schema, verdicts
from gripwire_recorder.journal import Ending, Journal
from gripwire_recorder.saver import Job, Saver
from gripwire_recorder.sources import Sizes
from gripwire_recorder.store import Store

log = logging.getLogger(__name__)


class Jobs:
    """Hands episodes to the saver and keeps account of them."""

    def __init__(self, runtime: Runtime, crf: float, store: Store) -> None:
        self._runtime, self._store = runtime, store
        self._labels = runtime.settings.data / "labels"
        versions = runtime.versions
        self._saver = Saver(
            crf, runtime.settings.data / "cache" / "recorder", runtime.settings.bus.log, store.lock_fd,
            lambda version: versions.update(lerobot=version),
        )  # fmt: skip
        self._jobs: list[Job] = []
        self._journals: list[tuple[Job, Journal, Ending]] = []  # being closed
        self._latest: Job | None = None
        self.saved = self.recovered = 0
        self.lost = ""
        """Why the last episode was given up."""

    def recover(self, folder: Path) -> None:
        """Make episodes of the journals that an earlier recorder has left."""
        for path in journal.unfinished(folder):
            try:
                with Follower(path) as look:
                    next(look.more(), None)
                    opening = journal.read_opening(look.notes)
                if opening is None:
                    raise UserError("nothing of an episode had reached the disk")
                dataset = self._store.path(opening.dataset)
            except UserError as e:
                log.warning("%s is set aside: %s", journal.set_aside(path, str(e)), e)
                continue
            log.warning("an episode of dataset `%s` is recovered from %s", opening.dataset, path.name)
            job = Job(path, dataset, opening, recovered=True, late_verdicts=verdicts.noted(path))
            self._jobs.append(job)
            self._saver.submit(job, growing=False)

    # --- what the recorder asks -----------------------------------------------------------------------

    @property
    def waiting(self) -> list[Job]:
        """Episodes that are recorded or being saved and not thrown away."""
        return [job for job in self._jobs if not job.discarded]

    @property
    def stuck(self) -> str:
        """Why saving does not get on; empty when it does."""
        return next((job.stuck for job in self.waiting if job.stuck), "")

    def check(self) -> None:
        """Whether a new episode could be saved.

        Raises:
            UserError: it could not, and why.
        """
        if trouble := self._saver.broken or self.stuck:
            raise UserError(trouble)

    def pending_in(self, dataset: str) -> bool:
        """Whether an episode of ``dataset`` is on its way, so that it may not be on the disk yet."""
        return any(job.name == dataset for job in self.waiting)

    def next_episode(self, name: str, features: dict[str, Any], sizes: Sizes, fps: int) -> int:
        """The number of the next episode of dataset ``name``.

        Raises:
            UserError: no episode with these features can be added to it.
        """
        try:
            info = self._store.info(name)
        except OSError as e:
            raise UserError(f"{self._store.root}: cannot be read: {e.strerror}; check the folder") from e
        if info is not None:
            schema.check_match(name, info, features, fps)
        before = [job for job in self.waiting if job.name == name]
        if any(job.opening.sizes != sizes for job in before):  # its first episode may not be on disk yet
            raise UserError(f"dataset `{name}` has pictures of another size; name another dataset")
        return (info["total_episodes"] if info else 0) + len(before)

    # --- what the recorder tells ----------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """An episode begins."""
        self._jobs.append(job)
        self._latest = job
        self._saver.submit(job, growing=True)

    def ending(self, job: Job, closing: Journal, ending: Ending) -> None:
        """An episode has ended; its journal is being closed."""
        self._journals.append((job, closing, ending))

    def discard(self, job: Job) -> None:
        self._saver.discard(job)

    def discard_stuck(self) -> bool:
        """Give up an episode that cannot be saved; whether there was one."""
        for job in self.waiting:
            if job.stuck:
                self._saver.discard(job)
                journal.remove(job.journal)  # or the next recorder would save it, if this one ends at once
                return True
        return False

    def mark_last(self, command: MarkEpisode) -> str:
        """Note a verdict about the last episode as a whole; which one that is, in words.

        Raises:
            UserError: there is none.
        """
        job = self._latest
        if job is None or job.discarded or job.failed:
            raise UserError("there is no episode to be marked: this recorder has not recorded one")
        given = verdicts.verdict(command)
        if job.done:
            verdicts.keep(self._labels, job.name, job.episode, given)
        else:
            try:
                verdicts.note(job.journal, given)
            except OSError as e:  # it stays here; only this recorder's death would lose it
                log.warning("the verdict is not on the disk yet: %s", e.strerror)
        job.late_verdicts.append(given)
        return f"episode {job.episode} of dataset `{job.name}`"

    def note(self, label: Label) -> None:
        """Keep a person's verdict about a range of a saved episode."""
        try:
            info = self._store.info(label.dataset)
        except (UserError, OSError):
            info = None
        if info is None or label.episode >= info["total_episodes"]:
            log.warning("a label about episode %d of `%s`, which is not here", label.episode, label.dataset)
            return
        verdicts.keep(self._labels, label.dataset, label.episode, verdicts.of_label(label))

    # --- the loop -------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Job]:
        """Episodes of which is known, since the last call, what became of them; in order."""
        self._tend_journals()
        self._saver.poll()
        self._runtime.problem("stuck", self.stuck)
        while self._jobs and self._jobs[0].done:
            job = self._jobs.pop(0)
            self._account(job)
            yield job

    def _tend_journals(self) -> None:
        """A journal that could not be closed cannot say how its episode ended."""
        for entry in list(self._journals):
            job, closing, ending = entry
            if closing.join(0.0):
                self._journals.remove(entry)
                if closing.failed:
                    self._saver.ended(job, ending)

    def _account(self, job: Job) -> None:
        if job.saved_rows:
            self.saved += 1
            self.recovered += job.recovered
            self._runtime.count("saved")
            how = ", recovered" if job.recovered else ""
            log.info("episode %d of %s is saved: %d rows%s", job.episode, job.name, job.saved_rows, how)
            for given in job.late_verdicts:
                verdicts.keep(self._labels, job.name, job.episode, given)
        if job.saved_rows or job.discarded:
            verdicts.forget(job.journal)
        if not job.discarded:
            self._runtime.problem("save", job.failed)
            self.lost = job.failed

    def close(self, timeout_s: float) -> None:
        """Save what can be saved in time. The rest stays in its journals."""
        deadline = time.monotonic() + timeout_s
        for _, closing, _ in self._journals:
            closing.join(max(0.1, deadline - time.monotonic()))
        self._tend_journals()
        self._saver.poll()
        pending = [job for job in self.waiting if not job.done]
        self._saver.close(max(0.0, deadline - time.monotonic()) if pending else 0.0)
        for job in pending:
            if not job.done and not job.discarded:
                log.warning(
                    "an episode of dataset `%s` is not saved yet%s: the next recorder makes it of %s",
                    job.name, f" ({job.stuck})" if job.stuck else "", job.journal,
                )  # fmt: skip
