"""A journal becomes an episode: followed message by message while it is written, then published whole."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gripwire.bus import Received
from gripwire.recording.file import Recorded
from gripwire.recording.follow import Follower
from gripwire_recorder import journal
from gripwire_recorder.journal import Ending, Opening
from gripwire_recorder.sources import offer, refusal
from gripwire_recorder.store import Incomplete, Staging
from gripwire_recorder.take import Row, Take

if TYPE_CHECKING:
    from gripwire_recorder.writer import EpisodeWriter

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EVER = 1 << 62
_TORN_BYTES = 4 << 20
"""More than this behind the last whole record of a journal is no torn tail: the file is damaged."""


class DiskFull(Exception):
    """There is no room for the episode; it can be saved when there is."""


@dataclass
class Outlook:
    """What is known of a journal's future. Others may change it while the journal is followed."""

    growing: bool
    """Its writer lives; False for what was found on the disk."""
    ending: Ending | None = None
    """Where the file itself could not take it, e.g. on a full disk."""


@dataclass
class Saved:
    """An episode that is durable."""

    episode: int
    rows: int
    summary: dict[str, Any] = field(default_factory=dict)
    damaged: bool = False
    """Its journal held more than could be read, and is worth keeping."""


class Source:
    """The messages of one journal, given to the alignment of its episode.

    Raises:
        Incomplete: nothing of an episode is in the file.
    """

    def __init__(self, path: Path) -> None:
        with Follower(path) as first_look:
            next(first_look.more(), None)  # the opening stands before all messages
            opening = journal.read_opening(first_look.notes)
        if opening is None:
            raise Incomplete("nothing of it had reached the disk")
        self.opening: Opening = opening
        self.take = Take(tuple(opening.sizes), opening.fps, opening.t_start)
        self._follower = Follower(path)
        self._now = opening.t_start

    @property
    def ending(self) -> Ending | None:
        """How the episode ended, once all of it was read; None as long as that is not known."""
        return journal.read_ending(self._follower.notes) if self._follower.finished else None

    @property
    def damaged(self) -> bool:
        return self._follower.damaged > 0 or self._follower.behind() > _TORN_BYTES

    def read(self) -> list[Row]:
        """Take in what has been written since; the rows that have become certain."""
        for recorded in self._follower.more():
            self._offer(recorded)
        return self.take.settle(self._now)

    def _offer(self, recorded: Recorded) -> None:
        message, host = recorded.message, self.opening.host
        if message.host == host:
            self._now = max(self._now, message.t_publish)
        received = Received(message, recorded.payload, self._now)
        if not refusal(recorded.topic, received, self.opening.sizes, host):
            offer(self.take, received, host)

    def rest(self, ending: Ending | None) -> list[Row]:
        """The last rows: up to the end that was asked for, or all there are."""
        self.take.stop(ending.t_stop if ending else self._now)
        return self.take.settle(_EVER)

    def summary(self, ending: Ending | None) -> dict[str, Any]:
        """What meta/gripwire.jsonl says of the episode."""
        opening, take = self.opening, self.take
        notes = list(ending.notes) if ending else ["recovered: the recorder was killed during the episode"]
        if self.damaged:
            notes.append("a part of its journal was damaged and could not be read")
        holes = take.holes(opening.hole_s)
        verdicts = ending.verdicts if ending else []
        return {
            "session": opening.session, "task": opening.task, "host": opening.host,
            "started": opening.started, "t_start": opening.t_start, "recovered": ending is None,
            "drops": ending.drops if ending else {}, "worst_skew_ms": round(take.worst_skew_ms, 3),
            "worst_gap_ms": {name: round(gap, 3) for name, gap in take.worst_gap_ms.items()},
            "hole": bool(holes), "problem": "; ".join([*notes, *holes]), "verdicts": verdicts,
            "models": {str(epoch): model for epoch, model in take.models.items()},
        }  # fmt: skip

    def close(self) -> None:
        self._follower.close()


def save(path: Path, dataset: Path, crf: float, outlook: Outlook, tick: Callable[[int], None]) -> Saved:
    """Make an episode of ``dataset`` from the journal ``path``, following it as long as it grows.

    ``tick`` is called with the rows so far, again and again while more is awaited; it waits a moment, and
    raises what shall end the saving.

    Raises:
        Incomplete: no episode can be made of it, and why.
        DiskFull: not now.
    """
    if (saved := _saved_before(path, dataset)) is not None:
        return saved
    try:
        while (saved := _attempt(path, dataset, crf, outlook, tick)) is None:
            pass  # someone else wrote into the dataset meanwhile: once more, into a new copy
        return saved
    except Exception as e:
        if is_full(e):
            raise DiskFull(str(e)) from e
        raise


def _saved_before(path: Path, dataset: Path) -> Saved | None:
    """The episode of this journal, if the recorder was killed after it had made it durable."""
    notes = dataset / "meta" / "gripwire.jsonl"
    for line in notes.read_text().splitlines() if notes.exists() else ():
        note = json.loads(line)
        if note.get("journal") == path.name:
            return Saved(note["episode"], note["rows"], note)
    return None


def _attempt(
    path: Path, dataset: Path, crf: float, outlook: Outlook, tick: Callable[[int], None]
) -> Saved | None:
    from gripwire_recorder.writer import EpisodeWriter

    source, staging = Source(path), Staging(dataset)
    writer: EpisodeWriter | None = None
    try:
        staging.prepare()
        opening = source.opening
        writer = EpisodeWriter(staging.path, dataset.name, opening.task, opening.fps, crf, opening.sizes)
        _follow(source, writer, outlook, tick)
        ending = source.ending or outlook.ending
        summary = source.summary(ending)
        if writer.unreadable:
            note = f"{writer.unreadable} pictures could not be decoded; the ones before stand in for them"
            summary["problem"] = "; ".join(filter(None, [summary["problem"], note]))
        rows = writer.finish(summary | {"unreadable": writer.unreadable, "journal": path.name})
        saved = Saved(writer.episode, rows, summary, source.damaged)
        writer = None  # closed: nothing to abandon
        tick(rows)  # the last moment to throw it away
        return saved if staging.publish() else None
    finally:
        source.close()
        if writer is not None:
            writer.abandon()
        staging.discard()


def _follow(source: Source, writer: "EpisodeWriter", outlook: Outlook, tick: Callable[[int], None]) -> None:
    """Write rows as they settle, until the journal has ended or grows no more."""
    while True:
        growing = outlook.growing  # before looking: nothing is added after it
        for row in source.read():
            writer.add(row)
        if source.ending is not None or not growing:
            break
        tick(source.take.rows)
    for row in source.rest(source.ending or outlook.ending):
        writer.add(row)


def is_full(error: BaseException) -> bool:
    """Whether the disk (or a quota) is full. Libraries wrap the error, and LeRobot's encoder thread reports
    it only as text; `datasets` has a text of its own."""
    known = {f"[Errno {number}]" for number in _FULL} | {os.strerror(number) for number in _FULL}
    known.add("Not enough disk space")
    link: BaseException | None = error
    while link is not None:
        if (isinstance(link, OSError) and link.errno in _FULL) or any(text in str(link) for text in known):
            return True
        link = link.__cause__ or link.__context__
    return False
