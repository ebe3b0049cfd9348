"""The capsule service: keeps the last minutes of the bus, saves them when asked or when a service dies."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from gripwire.capsule import join
from gripwire.capsule.keep import Keeper
from gripwire.capsule.ring import Ring
from gripwire.capsule.settings import Capsule, Floor
from gripwire.errors import UserError
from gripwire.messages import CapsuleState, CapsuleStatus, Command, Reply, SaveCapsule
from gripwire.service import Runtime

log = logging.getLogger(__name__)

AUTO_EVERY_S = 600.0
AUTO_KEPT = 3
"""Capsules that nobody asked for: older ones are removed. What a person saved never is."""
_AUTO = "auto-"
_AFTERMATH_S = 5.0
"""An automatic capsule waits so long: what followed a death tells as much as what went before."""


class CapsuleService:
    """See :mod:`gripwire.capsule`. The ring is kept by a thread, a capsule is made by another."""

    rate_hz: float | None = 4.0

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, settings = runtime, runtime.settings
        self._settings = settings.section("capsule", Capsule)
        self._floor_mb = settings.section("recorder", Floor).min_free_mb
        self._folder = settings.data / "capsules"
        self._keeper: Keeper | None = None
        self._saver: threading.Thread | None = None
        self._saved = self._failed = ""
        self._incident: tuple[str, float] = ("", 0.0)
        self._last_auto = -AUTO_EVERY_S

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {SaveCapsule: self._take, CapsuleStatus: lambda _: self._state()}

    def setup(self) -> None:
        os.nice(5)  # the arm and the reward come first, then what happened to them
        for torn in self._folder.glob(".*.mcap.*.tmp"):  # its service was killed over it
            torn.unlink(missing_ok=True)
        s, topics = self._settings, self._runtime.topics
        ring = Ring(self._folder / "ring", topics, s.minutes, s.megabytes, self._floor_mb)
        kept = [t for t in topics if not any(fnmatchcase(t.name, pattern) for pattern in s.leave_out)]
        self._keeper = Keeper(ring, self._runtime.survey(kept))

    def update(self) -> None:
        keeper = self._keeper
        assert keeper
        if keeper.failure:
            raise keeper.failure
        counts = self._runtime.counts
        counts["messages"], counts["messages_lost"] = keeper.received, keeper.lost
        self._runtime.problem("ring", keeper.ring.paused)
        self._follow_incidents(keeper)

    # --- commands -----------------------------------------------------------------------------------------

    def _take(self, command: SaveCapsule) -> Reply:
        if self._saving:
            raise UserError("a capsule is being saved; `gripwire capsule status` tells when it is there")
        name = time.strftime("capsule-%Y%m%d-%H%M%S.mcap")
        if (self._folder / name).exists():
            raise UserError(f"{name} was saved within this second; ask again")
        self._begin(name, "asked for", command.note)
        return self._state()

    def _state(self) -> CapsuleState:
        assert self._keeper
        seconds, size = self._keeper.ring.extent()
        return CapsuleState(
            saving=self._saving, saved=self._saved, failed=self._failed, ring_s=round(seconds, 1),
            ring_mb=round(size / 1e6, 1), paused=self._keeper.ring.paused,
        )  # fmt: skip

    # --- saving -------------------------------------------------------------------------------------------

    @property
    def _saving(self) -> str:
        return self._saver.name if self._saver and self._saver.is_alive() else ""

    def _begin(self, name: str, why: str, note: str = "") -> None:
        self._failed = ""
        self._saver = threading.Thread(target=self._save, args=(name, why, note), name=name, daemon=True)
        self._saver.start()

    def _save(self, name: str, why: str, note: str) -> None:
        """The saver's thread. It has time, also against the thread that keeps the ring."""
        assert self._keeper
        with suppress(OSError):  # Linux has a priority for each thread, others only for the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        try:
            try:
                # Inside: a ring that answers too late is held all the same, and let go after that.
                segments = self._keeper.hold()
                out, settings = self._folder / name, self._runtime.settings
                # What nobody asked for leaves the recorder its room.
                spare_mb = self._floor_mb if name.startswith(_AUTO) else 0
                capsule = join.save(segments, out, settings, why, note, spare_mb)
            finally:
                self._keeper.release()
            log.info("saved %s: %.0f s, %s", name, capsule.seconds, why)
            self._saved = name
            self._runtime.count("capsules")
        except UserError as e:
            self._failed = str(e)
            log.error("%s", e)
        except Exception as e:
            self._failed = f"{type(e).__name__}: {e}"
            log.exception("while saving %s", name)

    # --- incidents ----------------------------------------------------------------------------------------

    def _follow_incidents(self, keeper: Keeper) -> None:
        """A service has died: save what went before and some seconds after."""
        now = time.monotonic()
        while not keeper.deaths.empty():
            death = keeper.deaths.get()
            log.warning("%s", death)
            if self._settings.auto and not self._incident[0] and now - self._last_auto >= AUTO_EVERY_S:
                self._incident = (death, now)
        death, at = self._incident
        if death and now - at >= _AFTERMATH_S and not self._saving:
            self._incident, self._last_auto = ("", 0.0), now
            for old in sorted(self._folder.glob(f"{_AUTO}*.mcap"))[: 1 - AUTO_KEPT]:
                old.unlink(missing_ok=True)
            self._begin(time.strftime(f"{_AUTO}%Y%m%d-%H%M%S.mcap"), death)

    def close(self, failed: bool) -> None:
        if self._saver:
            self._saver.join(timeout=8)
        if self._keeper:
            self._keeper.close()
