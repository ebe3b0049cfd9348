"""Label files: the JSON that says which frames are success. Everything odd is an error with its place.

A source file labels one dataset, a merge file names several sources. Frames are 0-based, range ends
inclusive, an open end (null) runs to the episode's end. Never is an oddity read as "all failure".
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from gripwire.errors import UserError

Frame = Annotated[int, Field(strict=True, ge=0, lt=10**9)]
Place = Annotated[str, Field(strict=True, pattern=r"^[^\x00-\x1f]+$")]

EXCLUDED = " under `exclude`"
_EPISODE = re.compile(r"0|[1-9][0-9]{0,8}")
_STEP_EDGES, _STEP_DIFFERENT, _STEP_MAX = 8, 4, 10
"""Fewer edges than this, or fewer different ones, are multiples of something by chance."""

_DUE = {
    **dict.fromkeys(("int_type", "greater_than_equal", "less_than"), "a whole number from 0 to 999999999"),
    **dict.fromkeys(("tuple_type", "too_long"), "[first, last] or [first, null]"),
    **dict.fromkeys(("string_type", "string_unicode", "string_pattern_mismatch"), "a path"),
    "list_type": "a list",
    "dict_type": "an object {...}",
    "too_short": "at least one entry",
}
"""What should stand there, by pydantic's name for the error."""


class SuccessFrom(BaseModel):
    """Success from this frame to the end of the episode."""

    model_config = ConfigDict(extra="forbid")

    success_start: Frame

    def ranges(self) -> list[tuple[int, int | None]]:
        return [(self.success_start, None)]


class SuccessRanges(BaseModel):
    """Success within these ranges."""

    model_config = ConfigDict(extra="forbid")

    raw: list[tuple[Frame, Frame | None]] = Field(alias="ranges", min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        before: tuple[int, int | None] | None = None
        for start, end in sorted(self.raw, key=lambda r: r[0]):
            if end is not None and end < start:
                raise ValueError(f"the range [{start}, {end}] ends before it starts")
            if before is not None and (before[1] is None or start <= before[1]):
                raise ValueError(f"the ranges {_show(before)} and {_show((start, end))} overlap")
            before = (start, end)
        return self

    def ranges(self) -> list[tuple[int, int | None]]:
        return sorted(self.raw, key=lambda r: r[0])


def _kind(label: Any) -> str | None:
    if label is None:
        return "null"
    given = [key for key in ("success_start", "ranges") if isinstance(label, dict) and key in label]
    return given[0] if len(given) == 1 else None


Label = Annotated[
    Annotated[SuccessFrom, Tag("success_start")]
    | Annotated[SuccessRanges, Tag("ranges")]
    | Annotated[None, Tag("null")],
    Discriminator(_kind),
]


class SourceFile(BaseModel):
    """Labels of one dataset. An episode that is not mentioned is skipped; null: no success at all.

    An episode under ``exclude`` is left out, also when it is labelled: so it can be taken out for a while
    and its label kept. One that the dataset lacks is an error like a label that points nowhere.
    """

    model_config = ConfigDict(extra="forbid")

    dataset_path: Place
    episodes: dict[str, Label]
    exclude: list[Frame] = Field(default_factory=list, description="episodes to leave out although labelled")


class MergeFile(BaseModel):
    """Several sources that make one reward dataset."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Place] = Field(min_length=1)
    output_repo_id: str = Field(strict=True, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


@dataclass(frozen=True)
class Source:
    """A source file as read: ranges per episode that counts, not yet held against the dataset."""

    file: Path
    dataset: Path
    episodes: dict[int, list[tuple[int, int | None]]]
    excluded: tuple[int, ...] = ()


@dataclass(frozen=True)
class Labels:
    """What one label or merge file says."""

    file: Path
    name: str
    sources: list[Source]


def read(file: Path) -> Labels:
    """Read a merge file or a single source file.

    Raises:
        UserError: naming file, episode and place.
    """
    value = _json(file)
    if "sources" not in value and "output_repo_id" not in value:
        return Labels(file, file.stem, [_source(file, value)])
    merge = _validate(MergeFile, value, file)
    paths = [_source_path(file, name) for name in merge.sources]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{file}: the source {path.name} is named twice; remove one")
    sources = [_source(path, _json(path)) for path in paths]
    seen: dict[Path, Path] = {}
    for source in sources:
        if source.dataset in seen:
            raise UserError(
                f"{file}: {seen[source.dataset].name} and {source.file.name} label the same dataset "
                f"{source.dataset}; put its labels into one file"
            )
        seen[source.dataset] = source.file
    return Labels(file, merge.output_repo_id, sources)


def source_files(file: Path) -> list[Path]:
    """The files that a merge names, there or not, whatever stands in them; the file itself if it is a source.

    Raises:
        UserError: the file itself is in error.
    """
    value = _json(file)
    if "sources" not in value and "output_repo_id" not in value:
        return [file]
    out = []
    for name in _validate(MergeFile, value, file).sources:
        try:
            out.append(_source_path(file, name))
        except UserError:
            out.append(_resolve(file, f"{name.removesuffix('.json')}.json"))
    return out


def truth(source: Source, lengths: Mapping[int, int]) -> dict[int, NDArray[np.bool_]]:
    """Per labelled episode, which frames are success; checked against the dataset's ``lengths``.

    Raises:
        UserError: a labelled episode or frame does not exist, or an excluded episode.
    """
    for episode in source.excluded:
        check_known(source, episode, lengths, EXCLUDED)
    return {episode: episode_truth(source, episode, lengths) for episode in source.episodes}


def episode_truth(source: Source, episode: int, lengths: Mapping[int, int]) -> NDArray[np.bool_]:
    """Which frames of one labelled episode are success, (length,).

    Raises:
        UserError: the dataset has no such episode, or the label goes beyond its end.
    """
    check_known(source, episode, lengths)
    length = lengths[episode]
    success = np.zeros(length, bool)
    for start, end in source.episodes[episode]:
        last = length - 1 if end is None else end
        if start >= length or last >= length:
            raise UserError(
                f"{source.file}: episode {episode}: {_show((start, end))} goes beyond the episode, whose "
                f"frames are 0 to {length - 1}; correct the label"
            )
        success[start : last + 1] = True
    return success


def check_known(source: Source, episode: int, lengths: Mapping[int, int], where: str = "") -> None:
    """Refuse an episode that the dataset lacks; ``where`` it stands in the file, as the message says it.

    Raises:
        UserError: with the episodes there are.
    """
    if episode not in lengths:
        have = f"0 to {max(lengths)}" if lengths else "none"
        raise UserError(
            f"{source.file}: episode {episode}{where}: the dataset {source.dataset} has no such episode "
            f"(it has {have}); correct the number or remove the entry"
        )


def uncertain(success: NDArray[np.bool_], every: int) -> NDArray[np.bool_]:
    """Frames whose label is a guess because a person looked at every ``every``-th frame only.

    The true edge lies after the last frame seen with the old verdict: the ``every - 1`` frames before each
    edge into success, and the ones after each last frame of success.
    """
    out = np.zeros(len(success), bool)
    for i in np.flatnonzero(success[1:] != success[:-1]):
        if success[i + 1]:
            out[max(0, i + 2 - every) : i + 1] = True
        else:
            out[i + 1 : i + every] = True
    return out


def reading_step(sources: Iterable[Source]) -> int:
    """Every how many frames a person looked, judged by the labels alone; see :func:`common_step`."""
    spans = [span for source in sources for ranges in source.episodes.values() for span in ranges]
    return common_step([edge for span in spans for edge in span if edge])


def common_step(edges: Sequence[int]) -> int:
    """The largest step up to ten that divides every edge of success; 1 when nothing speaks for more.

    Edges are the first frames of all ranges and the last ones of those that end before their episode. Frame
    0 says nothing. A few edges, or the same ones again and again (a script's), are multiples of something by
    chance and count as no sign.
    """
    edges = [edge for edge in edges if edge]
    if len(edges) < _STEP_EDGES or len(set(edges)) < _STEP_DIFFERENT:
        return 1
    common = gcd(*edges)
    return max(step for step in range(1, _STEP_MAX + 1) if common % step == 0)


def _source(file: Path, value: dict[str, Any]) -> Source:
    if "sources" in value:
        raise UserError(
            f"{file}: a merge file stands where a source file is due, which labels one dataset; "
            "name its sources one by one"
        )
    parsed = _validate(SourceFile, value, file)
    for key in parsed.episodes:
        if not _EPISODE.fullmatch(key):
            raise UserError(
                f"{file}: {_quote(key)} under `episodes` is not an episode number; write 0, 1, 2 ..."
            )
    for number in parsed.exclude:
        if parsed.exclude.count(number) > 1:
            raise UserError(f"{file}: episode {number} stands twice under `exclude`; remove one")
    episodes = {
        int(key): label.ranges() if label else []
        for key, label in parsed.episodes.items()
        if int(key) not in parsed.exclude
    }
    return Source(file, _resolve(file, parsed.dataset_path), episodes, tuple(parsed.exclude))


def _source_path(merge: Path, name: str) -> Path:
    """A source is named by file name, with or without .json, relative to the merge file, or absolutely."""
    for path in (_resolve(merge, name), _resolve(merge, f"{name}.json")):
        with contextlib.suppress(OSError):  # a name longer than any file's
            if path.is_file():
                return path
    raise UserError(
        f"{merge}: its source `{name[:80]}` is missing ({str(path)[:300]} is no file); correct the name"
    )


def _resolve(file: Path, name: str) -> Path:
    """A path as written in ``file``: absolute, below a home folder (~), or relative to the file."""
    try:
        return (file.resolve().parent / Path(name).expanduser()).resolve()
    except (OSError, RuntimeError) as e:  # RuntimeError: a circle of links, or nobody's home
        raise UserError(f"{file}: the path `{name[:80]}` leads nowhere ({e}); correct it") from e


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice, until its place in the file is known."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.twice = next((key for key, count in counts.items() if count > 1), None)


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_Object)
    except FileNotFoundError as e:
        raise UserError(f"{file}: no such label file; check the path") from e
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror}); name a label file") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {e.start}); name a label file") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{file}:{e.lineno}:{e.colno}: not JSON: {e.msg}; correct it there") from e
    except (RecursionError, ValueError) as e:
        raise UserError(f"{file}: not a label file ({str(e)[:80]}); correct it") from e
    if not isinstance(value, _Object):
        raise UserError(
            f"{file}: a label file is one JSON object, this is a {type(value).__name__}; correct it"
        )
    _refuse_twice(file, value)
    return value


def _refuse_twice(file: Path, value: _Object) -> None:
    episodes = value.get("episodes")
    labels = episodes.items() if isinstance(episodes, _Object) else ()
    places = [("", value), (" under `episodes`", episodes)]
    for where, part in [*places, *((f" in {_name(key)}", label) for key, label in labels)]:
        if isinstance(part, _Object) and part.twice is not None:
            raise UserError(f"{file}: {_quote(part.twice)} is given twice{where}; keep one of the two")


def _validate[M: BaseModel](model: type[M], value: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise UserError(f"{file}: {_say(e, model)}; correct the file") from e


def _say(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong, in the file's terms: the episode, the key and what is the matter."""
    errors = error.errors(include_url=False)
    # A misspelt key is also one that is missing: the misspelling is what helps.
    unknown = [e for e in errors if e["type"] == "extra_forbidden" and len(e["loc"]) == 1]
    first = (unknown or errors)[0]
    where, loc = "", first["loc"]
    if loc[0] == "episodes" and len(loc) > 1:
        where, loc = f"{_name(str(loc[1]))}: ", loc[3:]  # what stands between is the kind of label
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{_plain(str(p))}" for p in loc).lstrip(".")
    if first["type"] == "union_tag_not_found":
        return f"{where}`success_start`, `ranges` or null is due, this {_has(first['input'])}"
    if first["type"] == "extra_forbidden":
        return f"{where}unknown key `{path}`" + ("" if where else f"; known: {', '.join(model.model_fields)}")
    if first["type"] == "missing":
        return f"{where}`{path}` is missing"
    if not path:
        return where + first["msg"].removeprefix("Value error, ")
    given = f" is {_quote(first['input'])}" if isinstance(first["input"], str | int | float | None) else ""
    due = "a name such as me/grasp" if path == "output_repo_id" else _DUE.get(first["type"], first["msg"])
    return f"{where}`{path}`{given}: {due} is due"


def _has(label: Any) -> str:
    if not isinstance(label, dict):
        return f"is a {type(label).__name__}"
    return f"has {', '.join(sorted(map(_plain, label)))[:80] or 'nothing'}"


def _name(episode: str) -> str:
    return f"episode {_plain(episode)}"


def _plain(text: str) -> str:
    """A key as it is shown: short, and without what would garble a line."""
    return ascii(text)[1:-1][:40]


def _quote(value: Any) -> str:
    return json.dumps(value)[:60]


def _show(span: tuple[int, int | None]) -> str:
    return f"[{span[0]}, {'null' if span[1] is None else span[1]}]"
