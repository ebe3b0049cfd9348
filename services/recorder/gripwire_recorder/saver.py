"""The recorder's end of the worker that saves: starts it, tells it what to do, takes its reports."""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire import logs
from gripwire_recorder import journal
from gripwire_recorder.journal import Ending, Opening

log = logging.getLogger(__name__)

_FRUGAL = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Each episode has threads and tables of its own: what one has freed, glibc gives to no other, and Arrow's
own allocator gives nothing back. After 36 episodes: 147 MiB instead of 243; 129 with what the worker gives
back after each."""
_CRASHES = 3
"""So often the worker may die over one episode until its journal is set aside."""


@dataclass
class Job:
    """An episode on its way to the disk, as far as it is known here."""

    journal: Path
    dataset: Path
    opening: Opening
    recovered: bool = False
    discarded: bool = False
    episode: int = -1  # the one it will be; once saved, the one it is

    # What the worker has told.
    rows: int = 0
    stuck: str = ""
    """Why it waits, in plain words."""
    failed: str = ""
    """Why it was given up."""
    done: bool = False
    saved_rows: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    crashes: int = 0
    ending: Ending | None = None
    """Only of a journal that could not take it."""
    late_verdicts: list[dict[str, Any]] = field(default_factory=list)
    """What people said when the episode was over."""

    @property
    def name(self) -> str:
        return self.opening.dataset


class Saver:
    """Saves jobs one after the other, in the worker. All methods are for one thread, that of the loop.

    ``on_loaded`` gets LeRobot's version once the worker has imported it; ``lock`` is an open file that the
    worker shall hold as long as it lives.
    """

    def __init__(
        self, crf: float, cache: Path, log_format: str, lock: Callable[[], int],
        on_loaded: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._command = [
            sys.executable, "-m", "gripwire_recorder.worker", log_format, str(crf), str(cache),
        ]  # fmt: skip
        self._lock, self._on_loaded = lock, on_loaded
        self._jobs: dict[str, Job] = {}
        self._reports: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
        self._ending = False
        self._generation = 0
        self.broken = ""
        """Why nothing can be saved at all, e.g. LeRobot is not installed."""
        self._start()

    def _start(self) -> None:
        self._generation += 1
        lock = self._lock()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(lock,),
            env=os.environ | _FRUGAL,
            # Ctrl+C is for the recorder, which ends the worker itself. Not a session of its own: Linux gives
            # every session the same share of the processors, however nice it is (autogroup, sched(7)).
            process_group=0,
        )  # fmt: skip
        args = (self._generation, self._process.stdout)
        self._listener = threading.Thread(target=self._listen, args=args, name="worker reports", daemon=True)
        self._listener.start()

    def _listen(self, generation: int, lines: Any) -> None:
        for line in lines:
            self._reports.put((generation, json.loads(line)))
        self._reports.put((generation, None))

    # --- orders ---------------------------------------------------------------------------------------

    def submit(self, job: Job, growing: bool) -> None:
        """Begin to save ``job``, whose journal may still be ``growing``."""
        self._jobs[str(job.journal)] = job
        self._save(job, growing)

    def _save(self, job: Job, growing: bool) -> None:
        about = logs.context.fields() | {"episode": f"{job.name}/{job.episode}"}
        self._order("save", job, dataset=str(job.dataset), growing=growing, context=about)

    def ended(self, job: Job, ending: Ending) -> None:
        """Tell how an episode ended whose journal cannot say it."""
        job.ending = ending
        self._order("ended", job, ending=ending.model_dump())

    def discard(self, job: Job) -> None:
        """Give the episode up, and its journal."""
        job.discarded = True
        self._order("discard", job)

    def _order(self, order: str, job: Job | None = None, **more: Any) -> None:
        line = {"order": order, "journal": str(job.journal) if job else "", **more}
        try:
            assert self._process.stdin
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has died: poll() starts another and repeats what it has to know

    # --- reports --------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Take in what the worker has reported."""
        while not self._reports.empty():
            generation, report = self._reports.get()
            if generation != self._generation:
                continue
            if report is None:
                self._bury()
            elif report["event"] == "ready":
                self._on_loaded(report["lerobot"])
            elif report["event"] == "broken":
                why = f"LeRobot cannot be imported ({report['reason']})"
                self.broken = f"{why}; install this service's dependencies again"
            elif job := self._jobs.get(report["journal"]):
                self._note(job, report)

    def _note(self, job: Job, report: dict[str, Any]) -> None:
        event = report["event"]
        if event == "progress":
            job.rows = report["rows"]
        elif event == "stuck":
            job.stuck = (
                f"the disk that holds {job.dataset.parent} is full: the episode is kept in its journal and "
                "saved as soon as there is room; free some space, or give it up with "
                "`gripwire recorder discard`"
            )
        else:
            job.stuck, job.done = "", True
            del self._jobs[str(job.journal)]
            if event == "saved":
                job.episode, job.saved_rows = report["episode"], report["rows"]
                job.summary = report["summary"]
            elif event == "failed":
                kept = f"; what was recorded is kept as {report['kept']}" if report["kept"] else ""
                job.failed = (
                    f"the episode could not be saved in dataset `{job.name}`: {report['reason']}{kept}"
                )

    def _bury(self) -> None:
        """The worker has ended. Unless it was told to, start another one, with all there is to do."""
        code = self._process.wait()
        if self._ending or self.broken:
            return
        log.error("the process that saves episodes has died (exit code %d); another one is started", code)
        if self._jobs:
            first = next(iter(self._jobs.values()))
            first.crashes += 1
            if first.crashes >= _CRASHES:
                self._set_aside(first)
        self._start()
        for job in list(self._jobs.values()):
            self._save(job, growing=job.ending is None and not job.recovered)
            if job.ending is not None:
                self._order("ended", job, ending=job.ending.model_dump())
            if job.discarded:
                self._order("discard", job)

    def _set_aside(self, job: Job) -> None:
        reason = f"the process that saves episodes died over it {_CRASHES} times"
        report = {"event": "failed", "reason": reason, "kept": str(journal.set_aside(job.journal, reason))}
        self._note(job, report)

    def close(self, timeout_s: float) -> None:
        """Let the worker finish what it has; what it does not finish in time stays in the journals."""
        self._ending = True
        self._order("finish")
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(1.0)  # its last words are in the queue
        while not self._reports.empty():
            self.poll()
