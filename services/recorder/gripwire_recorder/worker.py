"""The process that saves: journals in, episodes out, in order, while the recorder goes on recording.

It talks with the recorder over its standard input and output, one JSON object a line (:mod:`.saver` is the
other end), and ends with it: whatever was not finished is begun anew from its journal. LeRobot is imported
here and nowhere else.
"""

import ctypes
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from gripwire import logs
from gripwire_recorder import journal
from gripwire_recorder.journal import Ending
from gripwire_recorder.lerobot_alone import without_torch
from gripwire_recorder.saving import DiskFull, Outlook, Saved, save
from gripwire_recorder.store import Incomplete

log = logging.getLogger("gripwire.recorder.worker")

NICE = 5
"""Encoding may take its time, as the arm and the reward come first; it comes long before training (19)."""
_POLL_S, _TELL_S, _RETRY_S = 0.05, 0.4, 2.0


@dataclass
class _Task:
    path: Path
    dataset: Path
    outlook: Outlook
    context: dict[str, str | int]
    """What its log lines say."""
    discarded: bool = False
    told: float = field(default_factory=time.monotonic)


class _Discarded(Exception):
    pass


class Worker:
    """Saves one task after the other, as told."""

    def __init__(self, orders: TextIO, reports: TextIO, crf: float) -> None:
        self._orders, self._reports, self._crf = orders, reports, crf
        self._tasks: deque[_Task] = deque()
        self._known: dict[str, _Task] = {}
        self._more = threading.Condition()
        self._over = False

    def listen(self) -> None:
        """Take orders until there is nobody left who gives any; a thread."""
        for line in self._orders:
            order = json.loads(line)
            with self._more:
                self._take(order)
                self._more.notify_all()
        os._exit(0)  # the recorder is gone: a new one begins this anew

    def _take(self, order: dict[str, Any]) -> None:
        kind, path = order["order"], order.get("journal", "")
        if kind == "save":
            outlook = Outlook(growing=order["growing"])
            self._known[path] = _Task(Path(path), Path(order["dataset"]), outlook, order["context"])
            self._tasks.append(self._known[path])
        elif kind == "finish":
            self._over = True
        elif task := self._known.get(path):
            if kind == "discard":
                task.discarded = True
            elif kind == "ended":
                task.outlook.ending = Ending.model_validate(order["ending"])
                task.outlook.growing = False

    def run(self) -> None:
        """Save until told to finish."""
        while True:
            with self._more:
                while not self._tasks and not self._over:
                    self._more.wait()
                if not self._tasks:
                    return
                task = self._tasks.popleft()
            self._do(task)
            self._known.pop(str(task.path), None)
            _give_back()

    def _do(self, task: _Task) -> None:
        logs.context.adopt(task.context)
        stuck = False
        while True:
            try:
                if task.discarded:
                    raise _Discarded
                saved = save(
                    task.path, task.dataset, self._crf, task.outlook, lambda rows: self._tick(task, rows)
                )
            except _Discarded:
                journal.remove(task.path)
                return self._tell(task, "discarded")
            except DiskFull:
                if not stuck:
                    self._tell(task, "stuck")
                stuck = True
                self._pause(task)
            except Exception as e:
                if task.discarded or not task.path.exists():
                    return self._tell(task, "discarded")
                if not isinstance(e, Incomplete):
                    log.exception("saving %s", task.path.name)
                return self._fail(task, str(e) or type(e).__name__)
            else:
                return self._succeed(task, saved)

    def _succeed(self, task: _Task, saved: Saved) -> None:
        if saved.damaged:
            kept = journal.set_aside(task.path, "an episode was made of it, but a part could not be read")
            log.warning("the journal of an episode was damaged in part; it is kept as %s", kept)
        else:
            journal.remove(task.path)
        self._tell(task, "saved", episode=saved.episode, rows=saved.rows, summary=saved.summary)

    def _fail(self, task: _Task, reason: str) -> None:
        kept = ""
        try:
            kept = str(journal.set_aside(task.path, reason))
        except OSError as e:
            log.error("the journal %s cannot be set aside: %s", task.path, e.strerror)
        self._tell(task, "failed", reason=reason, kept=kept)

    def _tick(self, task: _Task, rows: int) -> None:
        if task.discarded:
            raise _Discarded
        if time.monotonic() - task.told >= _TELL_S:
            task.told = time.monotonic()
            self._tell(task, "progress", rows=rows)
        time.sleep(_POLL_S)

    def _pause(self, task: _Task) -> None:
        deadline = time.monotonic() + _RETRY_S
        while time.monotonic() < deadline and not task.discarded:
            time.sleep(_POLL_S)

    def _tell(self, task: _Task, event: str, **more: Any) -> None:
        self.say({"event": event, "journal": str(task.path), **more})

    def say(self, report: dict[str, Any]) -> None:
        """A line for the recorder."""
        try:
            print(json.dumps(report), file=self._reports, flush=True)
        except BrokenPipeError:
            os._exit(0)


def _give_back() -> None:
    """Free memory goes back to the system, where the C library would keep it (glibc): half a MiB an episode,
    and there are many in a shift."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def main(log_format: str, crf: str, cache: str) -> None:
    """``python -m gripwire_recorder.worker LOG_FORMAT CRF CACHE``, started by the recorder."""
    # Libraries print what they like: only reports may go where the recorder listens.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logs.configure("recorder", log_format)
    os.nice(NICE)
    worker = Worker(sys.stdin, reports, float(crf))
    threading.Thread(target=worker.listen, name="orders", daemon=True).start()
    # Never to the Hub. And `datasets` keeps a copy of every table it opens: not in the user's home.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": cache,
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    shutil.rmtree(cache, ignore_errors=True)
    try:
        with without_torch():
            import lerobot

            from gripwire_recorder import writer  # noqa: F401
    except Exception as e:
        log.exception("LeRobot cannot be imported")
        worker.say({"event": "broken", "reason": str(e)})
        return
    worker.say({"event": "ready", "lerobot": lerobot.__version__})
    worker.run()
    shutil.rmtree(cache, ignore_errors=True)
    os._exit(0)  # LeRobot leaves threads behind


if __name__ == "__main__":
    main(*sys.argv[1:])
