"""Trains anew whenever a label file is saved, and offers what is not worse than what serves."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import ModelState
from gripwire.settings import Settings
from gripwire_reward import bundle as bundles
from gripwire_trainer import compare, job, labels, report
from gripwire_trainer import offer as offering
from gripwire_trainer.builder import WarmBuilder
from gripwire_trainer.compare import Verdict

log = logging.getLogger(__name__)

POLL_S = 0.1
_SETTLED = ("bundle", "offer", "build")
"""Stages that another saved label does not interrupt: what has been learnt is worth its offer."""

Tell = Callable[[str, dict[str, Any]], None]
"""Told an event (`waiting`, `saved`, `refused`, `decided`) and what there is to say of it."""

Stamp = tuple[tuple[str, int, int, int], ...]


class _Stopped(Exception):
    """The watch is to end: leave the job."""


class _SavedAgain(Exception):
    """A label was saved while a job was under way: what it learns from is out of date."""


@dataclass
class Watch:
    """One label file or merge of them, and the reward service that gets what is learnt from it.

    :meth:`run` returns when ``stop`` says so. Labels in error, or a service that is not there, end nothing:
    they are told, and the next saved label is waited for.
    """

    task: job.Task
    settings: Settings
    tell: Tell
    say: job.Say
    stop: Callable[[], bool]
    bench: job.Bench = field(default_factory=lambda: job.Bench(WarmBuilder))
    _sources: list[Path] = field(default_factory=list)

    def run(self) -> None:
        """Train once on what is there, then on every saved label."""
        seen: Stamp | None = None
        report.prepare()
        if self.task.settings.build:
            WarmBuilder.warm_up()
        self._look_for_sources()
        with Latest(self.settings.topics["model"], ModelState) as self._model:
            while not self.stop():
                stamp = self._stamp()
                if stamp == seen:
                    time.sleep(POLL_S)
                    continue
                self._look_for_sources()
                stamp = self._stamp()
                self.tell("saved", {"files": _changed(seen, stamp)})
                seen = stamp
                try:
                    self._once(stamp)
                except _Stopped:
                    return
                except _SavedAgain:
                    seen = None  # even if the file is as it was again by now
                    continue
                except UserError as e:
                    self.tell("refused", {"why": str(e)})
                except Exception as e:  # the next saved label may fare better
                    log.exception("while training on %s", self.task.target)
                    self.tell("refused", {"why": f"{type(e).__name__}: {e}"})
                self.tell("waiting", {})

    def _once(self, stamp: Stamp) -> None:
        start = time.monotonic()
        verdict: list[Verdict] = []
        offered_s: list[float] = []
        waits = ""

        def say(stage: str, part: float, metrics: dict[str, float]) -> None:
            if self.stop():
                raise _Stopped
            if stage not in _SETTLED and self._stamp() != stamp:
                raise _SavedAgain
            self.say(stage, part, metrics)

        def offer(result: job.Result) -> None:
            nonlocal waits
            verdict.append(self._judge(result))
            if verdict[0].offer:
                waits = offering.offer(self.settings, result.bundle.id)
                offered_s.append(time.monotonic() - start)

        result = job.run(self.task, say, offer, bench=self.bench)
        self.tell(
            "decided",
            {
                "bundle": result.bundle.id,
                "offered": bool(offered_s),
                "why": verdict[0].why if verdict and (offered_s or not verdict[0].offer) else "",
                "waits": waits,
                "failures": result.failures,
                "dataset": result.dataset,
                "metrics": result.metrics,
                "seconds": result.seconds | {"to_offer": round(offered_s[0], 2) if offered_s else None,
                                             "all": round(time.monotonic() - start, 2)},
            },
        )  # fmt: skip

    def _judge(self, result: job.Result) -> Verdict:
        """Hold the new bundle against the serving one.

        Raises:
            UserError: there is no service to offer it to, or the two cannot be compared.
        """
        received = self._model.get() or self._model.wait(2.0)
        if received is None:
            raise UserError(
                self._model.barred
                or f"no reward service at {self.settings.topics['model'].endpoint}, so it was not offered; "
                f"start one, then `gripwire reward swap {result.bundle.id}`"
            )
        serving = received.message.serving
        if not serving:
            return Verdict(True, "nothing serves yet")
        if serving == result.bundle.id:
            return Verdict(False, "it serves already")
        store = result.material.store
        remedy = f"; `gripwire reward swap {result.bundle.id}` serves it all the same"
        try:
            old = bundles.load(bundles.find(serving, self.task.data / "bundles"))
            before = compare.judge_serving(old, store, result.episodes)
        except UserError as e:
            return Verdict(False, f"{e}{remedy}")
        now = compare.judge_new(result.outcome.held_out, result.outcome.selected)
        return compare.decide(now, before, serving)

    def _stamp(self) -> Stamp:
        """What tells one state of the label files from another."""
        return tuple(_stamps([self.task.target, *self._sources]))

    def _look_for_sources(self) -> None:
        """The files that the merge names, in error or not; those of before while the merge itself is."""
        with contextlib.suppress(UserError):
            self._sources = labels.source_files(self.task.target)


def _stamps(files: list[Path]) -> Iterator[tuple[str, int, int, int]]:
    for file in dict.fromkeys(file.resolve() for file in files):
        try:
            stat = os.stat(file)
            yield str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino
        except OSError:
            yield str(file), 0, 0, 0


def _changed(before: Stamp | None, after: Stamp) -> list[str]:
    known = set(before or ())
    return [Path(stamp[0]).name for stamp in after if stamp not in known]
