"""The recorder alone against a recorded run: what was asked of it then is asked again, at the same frame.

Commands are not on the bus; that an episode began, was marked and ended is, on `episode`.
"""

import logging
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gripwire import control
from gripwire.bus import Latest, Queued
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    DiscardEpisode,
    EpisodeState,
    MarkEpisode,
    StartEpisode,
    StopEpisode,
)
from gripwire.recording.file import Recording
from gripwire.settings import Settings

log = logging.getLogger(__name__)

_BEGIN_S = 5.0
"""For camera and robot to be heard, where an episode begins with the recording."""
_SAVE_S = 300.0


def scratch() -> Path:
    """A new folder for what is recorded: nobody's datasets are added to. It is left to be looked at."""
    return Path(tempfile.mkdtemp(prefix="gripwire-recorder-"))


@dataclass(frozen=True)
class Asked:
    """A command, and when it was given: ns of the recording's clock."""

    at: int
    command: Command


def commands(recording: Recording) -> list[Asked]:
    """What the recorder was asked, by what it said on `episode`; one episode of all where it said nothing."""
    out: list[Asked] = []
    state, saved, verdict, last = "idle", 0, "none", None
    for recorded in recording.messages({"episode"}):
        said = recorded.message
        if not isinstance(said, EpisodeState):
            continue
        if said.state == "recording" and (state != "recording" or (last and said.rows < last.rows)):
            if state == "recording":  # thrown away, and begun anew
                out.append(Asked(recorded.log_time, DiscardEpisode()))
            out.append(Asked(recorded.log_time, StartEpisode(task=said.task, dataset=said.dataset)))
            verdict = "none"
        if said.state == "recording" and said.verdict not in ("none", verdict):
            verdict = said.verdict
            out.append(Asked(recorded.log_time, MarkEpisode(success=verdict == "success")))
        if said.state != "recording" and state == "recording":
            kept = said.state == "saving" or said.saved > saved
            out.append(Asked(recorded.log_time, StopEpisode() if kept else DiscardEpisode()))
        state, saved, last = said.state, said.saved, said
    if not any(isinstance(asked.command, StartEpisode) for asked in out):
        return [Asked(0, StartEpisode(task="replayed", dataset="replayed"))]
    return out


class Again:
    """Gives the commands while the recording is played, by the frames that pass."""

    def __init__(self, path: Path) -> None:
        recording = Recording(path)
        self.asked = commands(recording)
        counts = recording.contents().counts
        cameras = [name for name in counts if name.startswith("camera/")]
        self._clock = max(cameras or counts, key=lambda name: counts[name])
        self._times = _times(recording, self._clock)
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def begin(self, settings: Settings, ended: threading.Event) -> None:
        """Start to follow what will be played."""
        topic = settings.topics[self._clock]
        reader = Queued(topic, topic.message)
        self._thread = threading.Thread(target=self._follow, args=(reader, settings, ended), daemon=True)
        self._thread.start()

    def _follow(self, reader: "Queued[Any]", settings: Settings, ended: threading.Event) -> None:
        waiting, boots = list(self.asked), dict[str, int]()
        with reader:
            while waiting and not ended.is_set() and not self._over.is_set():
                received = reader.receive(0.2)
                if received is None:
                    continue
                which = boots.setdefault(received.message.boot, len(boots))
                now = self._times.get((which, received.message.seq))
                while now is not None and waiting and waiting[0].at <= now:
                    _give(settings, waiting.pop(0).command)

    def end(self, settings: Settings, ended: threading.Event) -> None:
        """Stop what is still being recorded and wait until it is on the disk."""
        self._over.set()
        if self._thread:
            self._thread.join(10)
        with Latest(settings.topics["episode"], EpisodeState) as states:
            seen = states.wait(5.0)
            if seen and seen.message.state == "recording":
                _give(settings, StopEpisode())
            deadline = time.monotonic() + _SAVE_S
            while seen and not ended.is_set() and time.monotonic() < deadline:
                seen = states.wait(1.0, after=seen) or seen
                if seen.message.state == "idle":
                    break
        for name in sorted({a.command.dataset for a in self.asked if isinstance(a.command, StartEpisode)}):
            log.info("what was recorded is in %s", settings.data / "datasets" / name)


def _give(settings: Settings, command: Command) -> None:
    """Ask as a person would; what begins with the recording is asked until camera and robot are heard."""
    deadline = time.monotonic() + (_BEGIN_S if isinstance(command, StartEpisode) else 0.0)
    while True:
        try:
            done = control.request(settings.topics.control("recorder"), "recorder", command)
            log.info("%s: %s", type(command).__name__, done.text)
            return
        except UserError as e:
            if time.monotonic() >= deadline:
                log.warning("%s was refused: %s", type(command).__name__, e)
                return
            time.sleep(0.1)


def _times(recording: Recording, topic: str) -> dict[tuple[int, int], int]:
    """When each message of a topic was recorded, by its publisher (the n-th that is met) and ``seq``."""
    boots: dict[str, int] = {}
    return {
        (boots.setdefault(r.message.boot, len(boots)), r.message.seq): r.log_time
        for r in recording.messages({topic})
    }
