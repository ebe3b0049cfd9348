"""Keeps the models: verified, warmed up and shadow-scored off the loop, and remembered across restarts."""

import logging
import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gripwire import clock
from gripwire.errors import UserError
from gripwire.files import write_whole
from gripwire_reward import bundle as bundles_
from gripwire_reward import transfer
from gripwire_reward.decision import overridden
from gripwire_reward.scorer import Scorer
from gripwire_reward.shadow import Comparison, Shadow

log = logging.getLogger(__name__)

Overrides = dict[str, float | bool | str]

_LOOK_S = 0.1
"""How often a waiting bundle looks whether the hold has ended."""


class Lease(BaseModel):
    """A consumer's hold on the model. ``until``: CLOCK_MONOTONIC ns of the machine run ``host``, so that no
    change of the wall clock lengthens or shortens it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    until: int
    host: str

    @property
    def left_s(self) -> float:
        """Seconds that it still lasts; 0 when it is over."""
        if self.host != clock.host_id():  # the machine was started anew, and so was its clock
            return 0.0
        return max(0.0, (self.until - clock.monotonic_ns()) / 1e9)


class Remembered(BaseModel):
    """What must survive a restart; one small file, written whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    serving: str = ""
    previous: str = ""
    epoch: int = 0
    waiting: str = ""
    lease: Lease | None = None
    overrides: Overrides = Field(default_factory=dict, description="those that a command set")
    applied: Overrides = Field(default_factory=dict, description="those and the settings'")


@dataclass(frozen=True)
class Outcome:
    """What became of a request. ``scorer``: the model that serves from the next tick on."""

    event: Literal["none", "accepted", "serving", "refused", "waiting", "rolled_back"]
    bundle: str
    state: Remembered
    scorer: Scorer | None = None
    reason: str = ""
    comparison: Comparison = field(default_factory=Comparison)


@dataclass(frozen=True)
class _Request:
    kind: Literal["restore", "swap", "rollback", "override", "remember"]
    bundle: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    force: bool = False
    """Whoever holds the model by the time that it is carried out."""


class Keeper:
    """A thread that makes models ready. Requests are taken in order; :meth:`poll` gives what came of them.

    The remembered state is on disk before its outcome is handed out, so that no reward ever carries an
    epoch that a restart would give away again.
    """

    def __init__(
        self, bundles: Path, state_file: Path, cameras: tuple[str, ...], settings: Overrides,
        shadow_s: float, ask: transfer.Ask | None = None,
    ) -> None:  # fmt: skip
        """``cameras``: the first is the one that is judged; ``settings``: overrides that hold all along;
        ``ask``: whoever on another machine may have a bundle that is not here."""
        self._bundles, self._file, self._cameras, self._ask = bundles, state_file, cameras, ask
        self._settings, self._shadow_s = settings, shadow_s
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._serving: Scorer | None = None
        self._previous: Scorer | None = None
        self._ending = threading.Event()
        self._holding = threading.Lock()  # between looking at the lease and committing to a model
        self.shadow: Shadow | None = None
        self.state = _read(state_file)
        self.lease = self._noted = self.state.lease  # the one in force, and the last to be written down
        self._thread = threading.Thread(target=self._run, name="model keeper", daemon=True)
        self._thread.start()
        if self.state.serving and self.state.applied != self._applied(self.state.overrides):
            self._requests.put(_Request("override", changes=self.state.overrides, force=True))
        if self.state.serving:
            self._requests.put(_Request("restore", self.state.serving))

    # --- asked from the loop ------------------------------------------------------------------------------

    def swap(self, bundle: str) -> None:
        """Make this bundle ready and serve it."""
        self._requests.put(_Request("swap", bundle))

    def rollback(self, force: bool) -> None:
        """Return to the bundle that served before; refused if the model is held by then, unless ``force``."""
        self._requests.put(_Request("rollback", force=force))

    def override(self, overrides: Overrides, force: bool) -> None:
        """Decide by these from now on, besides the settings'. They begin a new epoch. Refused if the model is
        held by then, unless ``force``."""
        self._requests.put(_Request("override", changes=dict(overrides), force=force))

    def hold(self, by: str, lease_s: float) -> None:
        """Hold the model for ``by``.

        Raises:
            UserError: another holds it.
        """
        with self._holding:
            held = self.held
            if held and held.by != by:
                raise UserError(
                    f"the model is held by {held.by} for another {held.left_s:.0f} s; wait, or "
                    "`gripwire reward thaw --force`"
                )
            until = clock.monotonic_ns() + int(lease_s * 1e9)
            self.lease = Lease(by=by, until=until, host=clock.host_id())
        known = self._noted
        # A renewal is written down only when the one on the disk is half over: not every one needs a sync.
        if known is None or known.by != by or not lease_s / 2 < known.left_s <= lease_s:
            self._note(self.lease)

    def release(self, by: str, force: bool) -> None:
        """Let go of the model.

        Raises:
            UserError: another holds it, and ``force`` was not asked for.
        """
        held = self.held
        if held and not force and held.by != by:
            raise UserError(
                f"the model is held by {held.by}, not by {by or 'you'}; --force lets go all the same"
            )
        self.lease = None
        self._note(None)

    def _note(self, lease: Lease | None) -> None:
        self._noted = lease
        self._requests.put(_Request("remember", changes={"lease": lease}))

    @property
    def held(self) -> Lease | None:
        """The lease that is in force now."""
        lease = self.lease
        return lease if lease and lease.left_s > 0 else None

    def poll(self) -> Outcome | None:
        """The next outcome, if there is one. Never waits."""
        try:
            return self._outcomes.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        self._ending.set()
        self._requests.put(None)
        self._thread.join(timeout=5)

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=_LOOK_S if self.state.waiting else None)
            except queue.Empty:
                if self.held is not None:
                    continue
                request = _Request("swap", self.state.waiting)
            if request is None:
                return
            self._carry_out(request)

    def _carry_out(self, request: _Request) -> None:
        wanted = request.bundle or (self.state.serving if request.kind == "override" else self.state.previous)
        try:
            self._do(request, wanted)
        except (UserError, OSError) as e:
            self._refuse(request, wanted, str(e))
        except Exception as e:  # a bundle that breaks the loader must not take the service with it
            log.exception("while loading bundle %s", wanted)
            self._refuse(request, wanted, f"{type(e).__name__}: {e}")

    def _refuse(self, request: _Request, wanted: str, reason: str) -> None:
        if request.kind == "remember":
            self._noted = self.state.lease  # it was not: the next renewal tries again
        if request.kind == "swap" and wanted == self.state.waiting:  # or it would be tried for ever
            try:
                self._remember(waiting="")
            except OSError:
                self.state = self.state.model_copy(update={"waiting": ""})
        self._outcomes.put(Outcome("refused", wanted, self.state, reason=reason))

    def _do(self, request: _Request, wanted: str) -> None:
        if request.kind == "remember":
            self._remember(**request.changes)
        elif request.kind == "override":
            changes: Overrides = request.changes
            if self._serving:  # it may be another one than when it was asked for
                overridden(self._serving.bundle.manifest.decision, self._applied(changes))
            with self._holding:
                self._refuse_if_held(request)
                self._remember(overrides=changes, applied=self._applied(changes), epoch=self.state.epoch + 1)
            event: Literal["serving", "none"] = "serving" if self.state.serving else "none"
            reason = "the decision rule was changed"
            self._outcomes.put(Outcome(event, self.state.serving, self.state, reason=reason))
        elif request.kind == "restore":
            self._serving = self._ready(wanted)
            self._outcomes.put(Outcome("serving", wanted, self.state, self._serving))
        elif request.kind == "rollback":
            if not wanted:
                raise UserError("there is no earlier bundle to return to")
            scorer = self._ready(wanted)
            with self._holding:
                self._refuse_if_held(request)
                self._commit("rolled_back", scorer, Comparison())
        else:
            self._swap(wanted)

    def _swap(self, wanted: str) -> None:
        scorer = self._ready(wanted)
        if self._serving and wanted == self._serving.bundle.id:
            self._remember(waiting="")
            self._outcomes.put(Outcome("serving", wanted, self.state, scorer))
            return
        if self._wait_if_held(wanted):
            return
        self._outcomes.put(Outcome("accepted", wanted, self.state))
        comparison = Comparison()
        if self._serving and self._shadow_s:
            shadow = self.shadow = Shadow(self._serving, scorer)
            try:
                comparison = shadow.run(self._shadow_s, self._ending)
            finally:
                self.shadow = None
        with self._holding:
            if not self._wait_if_held(wanted):
                self._commit("serving", scorer, comparison)

    def _refuse_if_held(self, request: _Request) -> None:
        if (held := self.held) and not request.force:
            raise UserError(
                f"{held.by} holds the model by now: a hold came before the {request.kind} was done"
            )

    def _wait_if_held(self, wanted: str) -> bool:
        if (held := self.held) is None:
            return False
        self._remember(waiting=wanted)
        self._outcomes.put(
            Outcome(
                "waiting",
                wanted,
                self.state,
                reason=f"the model is held by {held.by} for {held.left_s:.0f} s",
            )
        )
        return True

    def _commit(
        self, event: Literal["serving", "rolled_back"], scorer: Scorer, comparison: Comparison
    ) -> None:
        wanted = scorer.bundle.id
        waiting = "" if self.state.waiting == wanted else self.state.waiting
        self._remember(
            serving=wanted, previous=self.state.serving, epoch=self.state.epoch + 1, waiting=waiting
        )
        self._serving, self._previous = scorer, self._serving
        self._outcomes.put(Outcome(event, wanted, self.state, scorer, comparison=comparison))

    def _remember(self, **changes: Any) -> None:
        state = self.state.model_copy(update=changes)
        if state != self.state:
            write_whole(self._file, state.model_dump_json() + "\n")
            self.state = state

    def _applied(self, overrides: Overrides) -> Overrides:
        return self._settings | overrides

    def _folder(self, wanted: str) -> Path:
        """Where the bundle lies; it is brought here first, if it has to be and can be."""
        try:
            return bundles_.find(wanted, self._bundles)
        except UserError:
            if self._ask is None or not bundles_.is_id(wanted):
                raise
        return transfer.fetch(wanted, self._bundles, self._ask, lambda: not self._ending.is_set())

    def _ready(self, wanted: str) -> Scorer:
        for kept in (self._serving, self._previous):
            if kept is not None and kept.bundle.id == wanted:
                overridden(kept.bundle.manifest.decision, self._applied(self.state.overrides))
                return kept
        loaded = bundles_.load(self._folder(wanted))
        wants = [contract.camera for contract in loaded.manifest.inputs]
        if wants[0] != self._cameras[0]:
            raise UserError(
                f"bundle {loaded.id} was trained on camera `{wants[0]}`, this service judges "
                f"`{self._cameras[0]}`; set `camera` in [reward], or train on this camera"
            )
        if missing := [name for name in wants if name not in self._cameras]:
            raise UserError(
                f"bundle {loaded.id} wants the cameras {', '.join(wants)}; there is no "
                f"[cameras.{missing[0]}] here"
            )
        overridden(loaded.manifest.decision, self._applied(self.state.overrides))  # or refuse
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
