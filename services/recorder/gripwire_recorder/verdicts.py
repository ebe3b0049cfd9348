"""What people said about episodes, and the label file that is made of it."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from gripwire.errors import UserError
from gripwire.files import make_folder, write_whole
from gripwire.messages import Label, MarkEpisode


def verdict(command: MarkEpisode) -> dict[str, Any]:
    """As it is kept."""
    return {"success": command.success, "reject": command.reject, "by": command.by, "t": time.time()}


def of_label(label: Label) -> dict[str, Any]:
    """What a message on `label` says, as it is kept; without ``start`` it is about a moment."""
    said = {"success": label.success, "by": label.by, "t": time.time()}
    return said if label.now else said | {"start": label.start, "end": label.end}


def last(given: Sequence[dict[str, Any]]) -> Literal["none", "success", "failure"]:
    """The last word about an episode, leaving aside whether it is to be used."""
    words = [each["success"] for each in given if not each.get("reject")]
    return "none" if not words else "success" if words[-1] else "failure"


def file_of(labels: Path, dataset: str) -> Path:
    """Where verdicts are kept that came when their episode was over."""
    return labels / f"{dataset}.verdicts.jsonl"


def keep(labels: Path, dataset: str, episode: int, given: dict[str, Any]) -> None:
    """Append a verdict about a saved episode, durably."""
    make_folder(labels)
    _append(file_of(labels, dataset), {"episode": episode, **given})


def note(journal: Path, given: dict[str, Any]) -> None:
    """Append a verdict about an episode that is not saved yet beside its journal, durably."""
    _append(_beside(journal), given)


def noted(journal: Path) -> list[dict[str, Any]]:
    """The verdicts beside a journal; a line that was cut off by the recorder's death is none."""
    said = []
    try:
        for line in _beside(journal).read_text().splitlines():
            said.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return said


def forget(journal: Path) -> None:
    """The verdicts beside a journal are kept elsewhere, or of no use any more."""
    _beside(journal).unlink(missing_ok=True)


def _append(file: Path, said: dict[str, Any]) -> None:
    with open(file, "a") as lines:
        lines.write(json.dumps(said) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def _beside(journal: Path) -> Path:
    return journal.with_suffix(".verdicts.jsonl")


def label_file(dataset: Path, labels: Path, out: Path) -> tuple[int, list[int]]:
    """Write ``out``, a label file of a recorded dataset, from the verdicts given while it was recorded.

    Returns how many episodes it labels, and those that still need a person: without a verdict, or a success
    of which nobody said from when on.

    Raises:
        UserError: it is no recorded dataset, no verdict was given, or ``out`` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists already and is never overwritten; choose another name")
    said = _said(dataset, file_of(labels, dataset.name))
    ranges = _ranges(dataset)
    entries: dict[str, Any] = {}
    exclude, open_ = [], []
    for episode, words in sorted(said.items()):
        marked = ranges.get(episode, [])
        if words.rejected:
            exclude.append(episode)
        elif words.ranges:
            entries[str(episode)] = {"ranges": words.ranges}
        elif words.afterwards == "failure" or (words.meanwhile == "failure" and not marked):
            entries[str(episode)] = None
        elif marked:
            entries[str(episode)] = {"ranges": marked}
        else:
            open_.append(episode)
    if not entries:
        raise UserError(
            f"{dataset}: nobody has said of an episode from when on it succeeded, or that it failed; "
            "`gripwire recorder mark` does, while it is recorded"
        )
    content: dict[str, Any] = {"dataset_path": os.path.relpath(dataset, out.parent), "episodes": entries}
    if exclude:
        content["exclude"] = exclude
    write_whole(out, json.dumps(content, indent=2) + "\n")
    return len(entries), open_


@dataclass(frozen=True)
class _Words:
    """What was said of an episode: while it was recorded (about a moment), afterwards (as a whole), and
    about ranges of its rows that are success."""

    meanwhile: str
    afterwards: str
    ranges: list[list[int | None]]
    rejected: bool


def _said(dataset: Path, late: Path) -> dict[int, _Words]:
    notes = dataset / "meta" / "gripwire.jsonl"
    try:
        lines = [json.loads(line) for line in notes.read_text().splitlines()]
    except (OSError, ValueError) as e:
        raise UserError(f"{dataset} was not recorded by gripwire: {notes} cannot be read") from e
    after: dict[int, list[dict[str, Any]]] = {}
    for text in late.read_text().splitlines() if late.exists() else ():
        line = json.loads(text)
        after.setdefault(int(line["episode"]), []).append(line)
    said = {}
    for line in lines:
        episode = int(line["episode"])
        meanwhile, afterwards = line.get("verdicts", []), after.get(episode, [])
        said[episode] = _Words(
            last([word for word in meanwhile if "start" not in word]),
            last([word for word in afterwards if "start" not in word]),
            _merged([word for word in (*meanwhile, *afterwards) if "start" in word]),
            any(word.get("reject") for word in afterwards),
        )
    return said


def _merged(words: list[dict[str, Any]]) -> list[list[int | None]]:
    """The ranges that were called a success, without overlap. Later words about a row win."""
    edges = sorted({0, *(w["start"] for w in words), *(w["end"] + 1 for w in words if w["end"] is not None)})
    found: list[list[int | None]] = []
    for begin, after in zip(edges, [*edges[1:], None], strict=True):
        about = [w for w in words if w["start"] <= begin and (w["end"] is None or w["end"] >= begin)]
        if not about or not about[-1]["success"]:
            continue
        end = None if after is None else after - 1
        if found and found[-1][1] == begin - 1:
            found[-1][1] = end
        else:
            found.append([begin, end])
    return found


def _ranges(dataset: Path) -> dict[int, list[list[int | None]]]:
    """By episode the rows that a person called a success while they were recorded, ends inclusive."""
    found: dict[int, list[list[int | None]]] = {}
    for path in sorted((dataset / "data").rglob("*.parquet")):
        columns = ["episode_index", "frame_index", "gripwire.verdict"]
        if not set(columns) <= set(pq.read_schema(path).names):
            continue
        table = pq.read_table(path, columns=columns).to_pydict()
        for episode, frame, value in zip(*(table[name] for name in columns), strict=True):
            mine = found.setdefault(int(episode), [])
            if value != 1:
                continue
            if mine and mine[-1][1] == frame - 1:
                mine[-1][1] = frame
            else:
                mine.append([frame, frame])
    return found
