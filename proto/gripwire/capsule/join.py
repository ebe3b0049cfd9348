"""Makes one file of a ring's segments: a capsule, whole or absent."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.records import Channel, Schema
from mcap.records import Message as Record

from gripwire.capsule import about
from gripwire.errors import UserError, no_space
from gripwire.files import fsync_dir, make_folder
from gripwire.recording.file import Recording, RecordingFile
from gripwire.settings import Settings
from gripwire.topics import Topics

_FACTS = ("model", "episode")
"""Topics whose last word is a fact about the capsule, besides the heartbeats."""


@dataclass
class Capsule:
    """What was saved. ``last``: the last message, as JSON, of the topics that tell what ran."""

    path: Path
    seconds: float = 0.0
    messages: int = 0
    began_wall: float = 0.0
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def save(
    segments: Sequence[Path], out: Path, settings: Settings, why: str, note: str = "", spare_mb: float = 0.0
) -> Capsule:
    """Join ``segments``, oldest first, into ``out``, with what was known when they were written.

    ``why``: who or what asked for it; ``note``: a person's words; ``spare_mb``: what the disk must have left.

    Raises:
        UserError: there is nothing to save, ``out`` exists, or the disk has no room for it.
    """
    make_folder(out.parent)
    if out.exists():
        raise UserError(f"{out} exists already and is never overwritten; choose another name")
    _check_room(segments, out, spare_mb)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    capsule = Capsule(out)
    try:
        _write(_Parts(segments), aside, capsule, settings, why, note)
        os.rename(aside, out)
        fsync_dir(out.parent)
    except UserError as e:
        aside.unlink(missing_ok=True)
        if isinstance(e.__cause__, OSError) and e.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(out) from e
        raise
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return capsule


def _check_room(segments: Sequence[Path], out: Path, spare_mb: float) -> None:
    needed = sum(path.stat().st_size for path in segments if path.exists())
    free = shutil.disk_usage(out.parent).free
    if needed * 1.1 + spare_mb * 2**20 > free:
        raise UserError(
            f"a capsule of {needed / 1e6:.0f} MB does not fit on the disk that holds {out.parent}, which has "
            f"{free / 1e6:.0f} MB left: free some space and ask again soon, before the ring moves on"
        )


class _Parts:
    """The segments as one recording, on one clock."""

    def __init__(self, segments: Sequence[Path]) -> None:
        self.problems: list[str] = []
        self.epoch_ns, self.host = 0, ""
        self._there: list[tuple[Recording, int]] = []
        for path in segments:
            try:
                recording = Recording(path)
            except UserError:  # empty: it was begun at the moment its process was killed
                continue
            with closing(recording.records()) as records:  # one file open at a time: there may be hundreds
                first = next(records, None)
            written = recording.notes.get("gripwire", {})
            if first is None or not written.get("epoch_ns", "").isdecimal():
                continue
            self.epoch_ns, self.host = int(written["epoch_ns"]), written.get("host", "")
            self._there.append((recording, self.epoch_ns))
        if not self._there:
            raise UserError(
                "nothing to save: the ring holds no message; is the stack running, on these ports? "
                "`gripwire capsule status` tells"
            )

    def records(self) -> Iterator[tuple[Channel, Schema, Record, int]]:
        """All records, each with its time on the wall clock as the last segment knew it."""
        for recording, epoch_ns in self._there:
            shift = self.epoch_ns - epoch_ns  # the wall clock was set in between: intervals must stay
            for channel, schema, record in recording.records():
                yield channel, schema, record, record.log_time + shift
            if recording.problem:
                self.problems.append(recording.problem)


def _write(parts: _Parts, aside: Path, capsule: Capsule, settings: Settings, why: str, note: str) -> None:
    clocks = {"host": parts.host, "epoch_ns": str(parts.epoch_ns)}
    file = RecordingFile(aside, clocks)
    try:
        _copy(parts, file, capsule, settings.topics)
        capsule.problems = parts.problems
        facts = about.facts(capsule.last)
        described = about.describe(facts, why, note) | {
            "seconds": f"{capsule.seconds:.1f}", "problems": "; ".join(capsule.problems),
        }  # fmt: skip
        file.note("capsule", described)
        file.note("versions", facts.versions)
        for name, media_type, data in about.attachments(settings, facts, capsule.began_wall):
            file.attach(name, media_type, data)
    except BaseException:
        file.give_up()
        raise
    file.close()


def _copy(parts: _Parts, file: RecordingFile, capsule: Capsule, topics: Topics) -> None:
    seen: set[tuple[str, int, int]] = set()
    last: dict[str, Record] = {}
    first_ns = last_ns = 0
    for channel, schema, record, log_time in parts.records():
        topic = channel.topic
        if topic in topics and topics[topic].latched:  # every segment begins with their last word
            key = (topic, record.publish_time, record.sequence)
            if key in seen:
                continue
            seen.add(key)
        if topic in _FACTS or topic.startswith("health/"):
            last[topic] = record
        file.copy(channel, schema, record, log_time)
        first_ns, last_ns = first_ns or log_time, max(last_ns, log_time)
        capsule.messages += 1
    capsule.seconds, capsule.began_wall = (last_ns - first_ns) / 1e9, first_ns / 1e9
    for topic, record in last.items():
        value = json.loads(record.data)
        if isinstance(value, dict):
            capsule.last[topic] = value
