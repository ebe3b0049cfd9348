"""The journal of an episode: every message, on the disk while it happens.

One MCAP file under ``journals/``. What the worker makes an episode of is this file and nothing else, so an
episode that was cut short by a crash is made of it just the same when the recorder is back.

Two notes stand in the file: ``episode`` at its beginning (:class:`Opening`) and ``end`` behind the last
message (:class:`Ending`). A journal without an ``end`` was cut short.
"""

import json
import logging
import os
import queue
import re
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.files import fsync_dir, make_folder
from gripwire.recording.file import RecordingFile

log = logging.getLogger(__name__)

FLUSH_S, SYNC_S = 0.25, 1.0
"""What was handed to the system outlives this process, what was synced outlives the machine."""
OPENING, ENDING = "episode", "end"
SUFFIX = ".mcap"


class Opening(BaseModel):
    """What is known of an episode when it begins."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    task: str
    fps: int
    sizes: dict[str, tuple[int, int]] = Field(description="height and width of each camera's pictures")
    session: str = Field(description="one id per run of the recorder")
    host: str = Field(description="kernel boot id: capture times count only from here")
    started: float = Field(description="wall clock, s")
    t_start: int = Field(description="CLOCK_MONOTONIC ns")
    hole_s: float = Field(0.5, description="a longer silence of camera or robot marks the episode")


class Ending(BaseModel):
    """What is known of an episode when it ends."""

    model_config = ConfigDict(extra="ignore")

    t_stop: int = Field(description="CLOCK_MONOTONIC ns: no row is later")
    drops: dict[str, int] = Field(default_factory=dict, description="messages lost on the way, by topic")
    notes: list[str] = Field(default_factory=list, description="what is to be said about it, in words")
    verdicts: list[dict[str, Any]] = Field(default_factory=list)


class Journal:
    """Writes one journal from a thread of its own: a slow disk does not hold up who records.

    Raises:
        UserError: the file cannot be made.
    """

    def __init__(self, folder: Path, opening: Opening) -> None:
        self.opening = opening
        self.failed = ""
        """Why nothing more can be written, in words."""
        make_folder(folder)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.path = folder / f"{opening.dataset}.{stamp}.{uuid.uuid4().hex[:6]}{SUFFIX}"
        self._file = RecordingFile(self.path, {})
        self._file.note(OPENING, {"json": opening.model_dump_json()})
        fsync_dir(folder)
        self._waiting: queue.SimpleQueue[tuple[str, Received[Any]] | Ending | None] = queue.SimpleQueue()
        self._held = 0
        self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def write(self, topic: str, received: Received[Any]) -> None:
        """Append a message soon."""
        size = len(received.payload or b"")
        with self._lock:
            self._held += size
        self._waiting.put((topic, received))

    @property
    def held(self) -> int:
        """Bytes of pictures that wait for the disk."""
        with self._lock:
            return self._held

    def end(self, ending: Ending) -> None:
        """Close the file behind what was appended so far; :meth:`join` waits until that is done."""
        self._waiting.put(ending)

    def abandon(self) -> None:
        """Close the file as it is and remove it."""
        self._waiting.put(None)
        self.path.unlink(missing_ok=True)

    def join(self, timeout_s: float) -> bool:
        """Whether the file is closed within ``timeout_s``."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            ending = self._take_in()
            if ending is not None:
                self._file.note(ENDING, {"json": ending.model_dump_json()})
                self._file.close()
        except UserError as e:
            self.failed = str(e)
            log.error("%s", e)
        finally:
            self._file.give_up()
            self._drop_waiting()

    def _take_in(self) -> Ending | None:
        """Write what comes until the end; None when the journal is not wanted any more."""
        synced = flushed = time.monotonic()
        while True:
            with suppress(queue.Empty):
                item = self._waiting.get(timeout=FLUSH_S)
                if not isinstance(item, tuple):
                    self._over = True
                    return item
                self._append(*item)
            now = time.monotonic()
            if now - synced >= SYNC_S:
                self._file.sync()
                synced = flushed = now
            elif now - flushed >= FLUSH_S:
                self._file.flush()
                flushed = now

    def _append(self, topic: str, received: Received[Any]) -> None:
        self._file.write(topic, received)
        with self._lock:
            self._held -= len(received.payload or b"")

    def _drop_waiting(self) -> None:
        """What came after a full disk cannot be kept; it must not fill the memory either."""
        while not self._over:
            item = self._waiting.get()
            if not isinstance(item, tuple):
                return
            with self._lock:
                self._held -= len(item[1].payload or b"")


def read_opening(notes: dict[str, dict[str, str]]) -> Opening | None:
    """The journal's opening among a file's notes; None where there is none that can be read."""
    return _read(notes.get(OPENING), Opening)


def read_ending(notes: dict[str, dict[str, str]]) -> Ending | None:
    """The journal's ending; None for one that was cut short."""
    return _read(notes.get(ENDING), Ending)


def _read[M: BaseModel](note: dict[str, str] | None, model: type[M]) -> M | None:
    try:
        return model.model_validate(json.loads(note["json"])) if note else None
    except (KeyError, ValueError):
        return None


def unfinished(folder: Path) -> list[Path]:
    """The journals that wait to become episodes, the oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file()]
    return sorted(found, key=lambda path: (_stamp(path), path.name))


def _stamp(path: Path) -> str:
    match = re.search(r"\.(\d{8}-\d{6})\.[0-9a-f]{6}\.mcap$", path.name)
    return match.group(1) if match else ""


def remove(path: Path) -> None:
    """The episode is durable, or was thrown away."""
    path.unlink(missing_ok=True)
    fsync_dir(path.parent)


def set_aside(path: Path, reason: str) -> Path:
    """Keep a journal of which no episode can be made, with the reason beside it; where it is now."""
    folder = path.parent / "aside"
    make_folder(folder)
    target = folder / path.name
    os.replace(path, target)
    target.with_suffix(".txt").write_text(reason + "\n")
    fsync_dir(folder)
    fsync_dir(path.parent)
    return target
