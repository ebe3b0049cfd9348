"""The trainer service: takes one training job at a time and tells how it goes."""

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gripwire import control, names
from gripwire.errors import UserError
from gripwire.messages import Command, Done, Offer, ReadBundle, Reply, Train, TrainerState
from gripwire.service import MORE_MEMORY, Runtime
from gripwire_trainer import contained
from gripwire_trainer.settings import BACKBONES, OF_THE_MACHINE, TrainerSettings
from gripwire_trainer.task import Task

_PERIOD_S = 0.5


class _Cancelled(Exception):
    """The service is stopping: leave the job."""


class TrainerService:
    """Trains on request, in a thread, and publishes `trainer` at 2 Hz meanwhile."""

    rate_hz = 20.0

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.section("trainer", TrainerSettings)
        self._publisher = runtime.publisher("trainer")
        self._state = TrainerState()
        self._changed = threading.Lock()
        self._thread: threading.Thread | None = None
        self._published = 0.0
        self._ready = self._running = False
        self._job: Any = None
        self._container: contained.Container | None = None

    @property
    def commands(self) -> dict[type[Command], Any]:
        return {Train: self._train, ReadBundle: self._read_bundle}

    def setup(self) -> None:
        """Import the engine now, so that a job starts at once."""
        if self._settings.run_in == "container":
            self._runtime.versions["image"] = self._settings.image
            contained.clean(self._runtime.settings.data)
            self._ready = True
            self._publish()
            return
        os.nice(19)  # the arm and the reward come first, then what the recorder saves
        import onnxruntime
        import torch

        from gripwire_trainer import job, report

        report.prepare()

        self._job, self._ready = job, True
        self._runtime.versions["torch"] = torch.__version__
        self._runtime.versions["onnxruntime"] = onnxruntime.__version__
        self._publish()

    def update(self) -> None:
        """One tick: publish while busy, and the end of a job once."""
        now = time.monotonic()
        if self._running and not (self._thread and self._thread.is_alive()):
            self._running = False
            self._publish()
        elif self._running and now - self._published >= _PERIOD_S:
            self._publish()

    def _publish(self) -> None:
        self._published = time.monotonic()
        with self._changed:
            message = self._state.model_copy(update={"valid": True})
        self._publisher.publish(message)

    def _train(self, command: Train) -> Reply:
        if self._running and self._state.done and self._thread:
            self._thread.join()  # it has said its last word, so that whoever waited for it may come
            self.update()
        if self._running:
            raise UserError(f"job {self._state.job} is under way ({self._state.stage}); wait for its end")
        if not self._ready:
            raise UserError("the trainer is still starting; ask again in a few seconds")
        task = Task(self._labels(command.labels), self._runtime.settings.data, self._options(command))
        with self._changed:
            self._state = TrainerState(job=uuid.uuid4().hex[:8], stage="read")
        self._running = True
        self._thread = threading.Thread(
            target=self._work, args=(task, command.offer), name="job", daemon=True
        )
        self._thread.start()
        return Done(text=f"job {self._state.job}")

    def _read_bundle(self, command: ReadBundle) -> Reply:
        from gripwire_reward import transfer

        return transfer.read(self._runtime.settings.data / "bundles", command)

    def _labels(self, name: str) -> Path:
        """A label file by its name under labels/; paths never travel."""
        folder = self._runtime.settings.data / "labels"
        if found := names.file_below(folder, name) or names.file_below(folder, f"{name}.json"):
            return found
        raise UserError(f"{name[:80]!r}: no such label file under {folder}; put it there")

    def _options(self, command: Train) -> TrainerSettings:
        if taken := [name for name in OF_THE_MACHINE if name in command.options]:
            raise UserError(
                f"option `{taken[0]}`: it is set in [trainer] where the trainer runs, by its owner"
            )
        known = (*BACKBONES, self._settings.backbone)
        if (
            command.options.get("backbone", known[0]) not in known
        ):  # it may be a folder, and paths never travel
            raise UserError(
                f"option `backbone`: a command chooses among {', '.join(known)}; any other is set in "
                "[trainer] where the trainer runs, by its owner"
            )
        try:
            return TrainerSettings.model_validate(self._settings.model_dump() | command.options)
        except ValidationError as e:
            first = e.errors()[0]
            raise UserError(f"option `{'.'.join(map(str, first['loc']))}`: {first['msg']}") from e

    def _work(self, task: Task, offer: bool) -> None:
        """The job's thread. Whatever happens ends up in the state."""
        try:
            result = self._run(task, self._offer if offer else None)
            failures = "; ".join(result.failures)
            self._finish(error=failures, seconds=result.seconds, metrics=result.metrics)
            self._runtime.problem("job", failures)
        except _Cancelled:
            self._finish(error="the trainer was stopped")
        except UserError as e:
            self._finish(error=str(e))
            self._runtime.problem("job", str(e))
        except Exception as e:  # a job that breaks must not take the service with it
            error = f"{type(e).__name__}: {e}"
            if _is_out_of_memory(e):
                error = f"training is out of memory ({error[:200]}): {MORE_MEMORY}, or lower `batch`"
            self._finish(error=error)
            self._runtime.problem("job", f"training failed: {error}")

    def _run(self, task: Task, offer: Callable[[str], None] | None) -> Any:
        """Train here, or in a container; what came of it."""
        if self._settings.run_in == "container":
            self._container = contained.Container(task, self._settings.image)
            if self._runtime.stopping.is_set():  # close() has not seen it
                raise UserError("the trainer was stopped")
            return self._container.run(self._say, offer, self._sealed)
        offer_result = (lambda result: offer(result.bundle.id)) if offer else None
        return self._job.run(task, self._say, offer_result, self._sealed)

    def _say(self, stage: str, part: float, metrics: dict[str, float]) -> None:
        if self._runtime.stopping.is_set():
            raise _Cancelled
        with self._changed:
            update = {"stage": stage, "progress": part, "metrics": dict(metrics)}
            self._state = self._state.model_copy(update=update)

    def _finish(self, **outcome: Any) -> None:
        with self._changed:
            stage = "failed" if outcome.get("error") else "done"
            self._state = self._state.model_copy(
                update={"stage": stage, "progress": 1.0, "done": True, **outcome}
            )

    def _offer(self, bundle: str) -> None:
        endpoint = self._runtime.topics.control("reward")
        try:
            control.request(endpoint, "reward", Offer(bundle=bundle))
        except UserError as e:
            raise UserError(f"{e}; `gripwire reward swap {bundle}` offers it again") from e

    def _sealed(self, bundle: str) -> None:
        """The bundle is on the disk: from here on its id goes out with whatever becomes of the job."""
        with self._changed:
            self._state = self._state.model_copy(update={"bundle": bundle})

    def close(self, failed: bool) -> None:
        self._runtime.stopping.set()
        if self._container:
            self._container.stop()
        if self._thread:
            self._thread.join(timeout=10)


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch and ONNX Runtime say so in words of their own."""
    words = ("can't allocate memory", "out of memory", "bad_alloc", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
