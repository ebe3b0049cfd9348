"""The thread that turns settled rows into saved episodes, in order, while recording goes on.

It follows an episode row by row, so that little is left to do when the episode ends. Rows stay in memory
until their episode is durable: when the disk fills up, the episode is written again once there is room.
"""

import errno
import logging
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gripwire_recorder.store import Incomplete, Staging
from gripwire_recorder.take import Row

if TYPE_CHECKING:
    from gripwire_recorder.writer import EpisodeWriter

log = logging.getLogger(__name__)

_RETRY_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Job:
    """An episode on its way to the disk. The loop appends rows and ends it; the saver reads and reports."""

    dataset: Path
    name: str
    task: str
    sizes: dict[str, tuple[int, int]]
    rows: list[Row] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)  # complete once `ended`
    ended: bool = False
    discarded: bool = False
    held: int = 0  # bytes of pictures in memory
    moved: threading.Event = field(default_factory=threading.Event)  # set on every change by the loop

    # The saver's report.
    stuck: str = ""  # why it waits, in plain words
    failed: str = ""  # why it gave up
    done: bool = False
    episode: int = -1
    saved_rows: int = 0

    def extend(self, rows: list[Row]) -> None:
        for row in rows:
            before = self.rows[-1].pictures if self.rows else {}
            # In a hole of the camera several rows hold the same picture.
            self.held += sum(len(p.data) for name, p in row.pictures.items() if p is not before.get(name))
            self.rows.append(row)
        self.moved.set()

    def end(self, summary: dict[str, Any]) -> None:
        self.summary, self.ended = summary, True
        self.moved.set()

    def discard(self) -> None:
        self.discarded = True
        self.moved.set()


class _Discarded(Exception):
    pass


class _Stopped(Exception):
    pass


def _give_way() -> None:
    """Encoding may take its time: the arm and the reward come first. On Linux a priority is a thread's own,
    and the encoder's threads take over that of the one that starts them."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class Saver:
    """Saves jobs one after the other. ``on_loaded`` gets LeRobot's version once that is imported."""

    def __init__(self, fps: int, crf: float, cache: Path, on_loaded: Callable[[str], None]) -> None:
        self._fps, self._crf, self._cache = fps, crf, cache
        self._on_loaded = on_loaded
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.broken = ""
        """Why nothing can be saved at all, e.g. LeRobot is not installed."""
        self.thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> None:
        """Begin to save ``job``, which need not have ended."""
        self._jobs.put(job)

    def close(self, timeout_s: float) -> bool:
        """Finish what was submitted; False when it took longer (the thread may then not end by itself)."""
        self._jobs.put(None)
        self.thread.join(timeout_s)
        self._stop.set()
        self.thread.join(2.0)
        return not self.thread.is_alive()

    def _run(self) -> None:
        _give_way()
        try:
            self._load()
        except Exception as e:
            log.exception("LeRobot cannot be imported")
            self.broken = f"LeRobot cannot be imported ({e}); install this service's dependencies again"
        while (job := self._jobs.get()) is not None:
            try:
                if self.broken:
                    job.failed = self.broken
                else:
                    self._save(job)
            except (_Discarded, _Stopped):
                pass
            except Exception as e:
                if not isinstance(e, Incomplete):
                    log.exception("saving an episode of dataset %s", job.name)
                job.failed = f"the episode could not be saved in dataset `{job.name}`: {e}"
            finally:
                shutil.rmtree(self._cache, ignore_errors=True)
                job.rows, job.held = [], 0
                job.done = True

    def _load(self) -> None:
        # Never to the Hub. And `datasets` keeps a copy of every table it opens: not in the user's home.
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_DATASETS_CACHE"] = str(self._cache)
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
        shutil.rmtree(self._cache, ignore_errors=True)
        import lerobot

        from gripwire_recorder import writer  # noqa: F401

        self._on_loaded(lerobot.__version__)

    def _save(self, job: Job) -> None:
        """Until it is saved, discarded or impossible."""
        while not self._attempt(job):
            for _ in range(int(_RETRY_S / 0.1)):
                if self._stop.wait(0.1):
                    job.failed = job.stuck or "the recorder was stopped before the episode was saved"
                    raise _Stopped
                if job.discarded:
                    raise _Discarded
        job.stuck = ""

    def _attempt(self, job: Job) -> bool:
        """Write the whole job into a copy and publish it; False when it has to be tried again."""
        from gripwire_recorder.writer import EpisodeWriter

        staging: Staging | None = None
        writer: EpisodeWriter | None = None
        try:
            staging = Staging(job.dataset)
            staging.prepare()
            writer = EpisodeWriter(staging.path, job.name, job.task, self._fps, self._crf, job.sizes)
            self._follow(job, writer)
            if writer.unreadable:
                note = f"{writer.unreadable} pictures could not be decoded; the ones before stand in for them"
                problems = [text for text in (job.summary["problem"], note) if text]
                job.summary = job.summary | {"problem": "; ".join(problems)}
            rows = writer.finish(job.summary | {"unreadable": writer.unreadable})
            if staging.changed_meanwhile():
                log.warning("dataset %s was changed by someone else: its episode is written again", job.name)
                return False
            staging.publish()
            job.episode, job.saved_rows, job.stuck = writer.episode, rows, ""
            return True
        except Exception as e:
            if not _is_full(e):
                raise
            # Announced below, after the copy is gone: only then is the statement about free space true.
            full = True
        else:
            full = False
        finally:
            if writer is not None and job.saved_rows == 0:
                writer.abandon()
            if staging is not None:
                staging.discard()
        if full:
            job.stuck = (
                f"the disk that holds {job.dataset.parent} is full: the episode is kept in memory and saved "
                "as soon as there is room; free some space, or give it up with `gripwire recorder discard`"
            )
        return False

    def _follow(self, job: Job, writer: "EpisodeWriter") -> None:
        """Write rows as they settle, until the episode has ended."""
        written = 0
        while True:
            job.moved.clear()
            ended = job.ended  # before looking at the rows: none is added after it
            while written < len(job.rows) and not job.discarded:
                writer.add(job.rows[written])
                written += 1
            if job.discarded:
                raise _Discarded
            if ended:
                return
            if self._stop.is_set():
                raise _Stopped
            job.moved.wait(0.5)


def _is_full(error: BaseException) -> bool:
    """Whether the disk (or a quota) is full. Libraries wrap the error, and LeRobot's encoder thread reports
    it only as text."""
    known = {f"[Errno {number}]" for number in _FULL} | {os.strerror(number) for number in _FULL}
    link: BaseException | None = error
    while link is not None:
        if (isinstance(link, OSError) and link.errno in _FULL) or any(text in str(link) for text in known):
            return True
        link = link.__cause__ or link.__context__
    return False
