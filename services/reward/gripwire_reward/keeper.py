"""Keeps the models: loads, verifies and warms up off the loop, remembers what serves across restarts."""

import logging
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gripwire.errors import UserError
from gripwire.files import write_whole
from gripwire_reward import bundle as bundles_
from gripwire_reward.scorer import Scorer

log = logging.getLogger(__name__)


class Remembered(BaseModel):
    """What must survive a restart; one small file, written whole."""

    model_config = ConfigDict(extra="forbid")

    serving: str = ""
    previous: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a request: a model to serve from the next tick on, or a refusal."""

    event: Literal["serving", "refused", "rolled_back"]
    bundle: str
    state: Remembered
    scorer: Scorer | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Request:
    kind: Literal["restore", "swap", "rollback"]
    bundle: str = ""


class Keeper:
    """A thread that makes models ready. Requests are taken in order; :meth:`poll` gives what came of them.

    The remembered state is on disk before its outcome is handed out, so that no reward ever carries an
    epoch that a restart would give away again.
    """

    def __init__(self, bundles: Path, state_file: Path, camera: str) -> None:
        self._bundles, self._file, self._camera = bundles, state_file, camera
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._serving: Scorer | None = None
        self._previous: Scorer | None = None
        self.state = _read(state_file)
        self._thread = threading.Thread(target=self._run, name="model keeper", daemon=True)
        self._thread.start()
        if self.state.serving:
            self._requests.put(_Request("restore", self.state.serving))

    def swap(self, bundle: str) -> None:
        """Make this bundle ready and serve it."""
        self._requests.put(_Request("swap", bundle))

    def rollback(self) -> None:
        """Return to the bundle that served before."""
        self._requests.put(_Request("rollback"))

    def poll(self) -> Outcome | None:
        """The next outcome, if there is one. Never waits."""
        try:
            return self._outcomes.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        self._requests.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            wanted = request.bundle or self.state.previous
            try:
                outcome = self._serve(request, wanted)
            except (UserError, OSError) as e:
                outcome = Outcome("refused", wanted, self.state, reason=str(e))
            except Exception as e:  # a bundle that breaks the loader must not take the service with it
                log.exception("while loading bundle %s", wanted)
                outcome = Outcome("refused", wanted, self.state, reason=f"{type(e).__name__}: {e}")
            self._outcomes.put(outcome)

    def _serve(self, request: _Request, wanted: str) -> Outcome:
        if not wanted:
            raise UserError("there is no earlier bundle to return to")
        scorer = self._ready(wanted)
        if request.kind == "restore":
            self._serving = scorer
            return Outcome("serving", scorer.bundle.id, self.state, scorer)
        if request.kind == "swap" and self._serving and scorer.bundle.id == self._serving.bundle.id:
            return Outcome("serving", scorer.bundle.id, self.state, scorer)
        state = Remembered(serving=scorer.bundle.id, previous=self.state.serving, epoch=self.state.epoch + 1)
        write_whole(self._file, state.model_dump_json() + "\n")
        self.state, self._serving, self._previous = state, scorer, self._serving
        event: Literal["serving", "rolled_back"] = "serving" if request.kind == "swap" else "rolled_back"
        return Outcome(event, scorer.bundle.id, state, scorer)

    def _ready(self, wanted: str) -> Scorer:
        for kept in (self._serving, self._previous):
            if kept is not None and kept.bundle.id == wanted:
                return kept
        loaded = bundles_.load(bundles_.find(wanted, self._bundles))
        camera = loaded.manifest.inputs[0].camera
        if camera != self._camera:
            raise UserError(
                f"bundle {loaded.id} was trained on camera `{camera}`, this service judges `{self._camera}`; "
                "set `camera` in [reward], or train on this camera"
            )
        scorer = Scorer(loaded)
        scorer.warm_up()
        return scorer


def _read(file: Path) -> Remembered:
    """The remembered state; a file that cannot be read costs the model, never the service."""
    if not file.exists():
        return Remembered()
    try:
        return Remembered.model_validate_json(file.read_bytes())
    except (ValidationError, OSError) as e:
        log.warning("%s cannot be read (%s); starting without a model", file, str(e).splitlines()[0])
        return Remembered()
