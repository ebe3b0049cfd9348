"""Label files: the JSON that says which frames are success. Everything odd is an error with its place.

A source file labels one dataset, a merge file names several sources. Frames are 0-based, range ends
inclusive, an open end (null) runs to the episode's end. Never is an oddity read as "all failure".
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gripwire.errors import UserError

Frame = Annotated[int, Field(strict=True, ge=0)]
Place = Annotated[str, Field(strict=True, pattern=r"^[^\x00]+$")]


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


class SourceFile(BaseModel):
    """Labels of one dataset. An episode that is not mentioned is skipped; null: no success at all.

    An episode under ``exclude`` is left out, also when it is labelled: so it can be taken out for a while
    and its label kept. One that the dataset lacks is an error like a label that points nowhere.
    """

    model_config = ConfigDict(extra="forbid")

    dataset_path: Place
    episodes: dict[str, SuccessFrom | SuccessRanges | None]
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


def truth(source: Source, lengths: Mapping[int, int]) -> dict[int, NDArray[np.bool_]]:
    """Per labelled episode, which frames are success; checked against the dataset's ``lengths``.

    Raises:
        UserError: a labelled episode or frame does not exist, or an excluded episode.
    """
    for episode in source.excluded:
        _known(source, episode, lengths, " under `exclude`")
    out = {}
    for episode, ranges in source.episodes.items():
        _known(source, episode, lengths)
        length = lengths[episode]
        success = np.zeros(length, bool)
        for start, end in ranges:
            last = length - 1 if end is None else end
            if start >= length or last >= length:
                raise UserError(
                    f"{source.file}: episode {episode}: {_show((start, end))} goes beyond the episode, whose "
                    f"frames are 0 to {length - 1}; correct the label"
                )
            success[start : last + 1] = True
        out[episode] = success
    return out


def _known(source: Source, episode: int, lengths: Mapping[int, int], where: str = "") -> None:
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


def _source(file: Path, value: dict[str, Any]) -> Source:
    parsed = _validate(SourceFile, value, file)
    dataset = Path(parsed.dataset_path).expanduser()
    dataset = dataset if dataset.is_absolute() else file.parent / dataset
    episodes = {}
    for key, label in parsed.episodes.items():
        if not key.isascii() or not key.isdigit() or str(int(key)) != key:
            raise UserError(
                f'{file}: "{key[:40]}" under `episodes` is not an episode number; write 0, 1, 2 ...'
            )
        if int(key) not in parsed.exclude:
            episodes[int(key)] = label.ranges() if label else []
    return Source(file, dataset.resolve(), episodes, tuple(parsed.exclude))


def _source_path(merge: Path, name: str) -> Path:
    """A source is named by file name, with or without .json, relative to the merge file, or absolutely."""
    path = merge.parent / Path(name).expanduser()
    with_suffix = path.with_name(path.name + ".json")
    with contextlib.suppress(OSError):  # a name longer than any file's
        for found in (path, with_suffix):
            if found.is_file():
                return found.resolve()
    raise UserError(
        f"{merge}: its source `{name[:80]}` is missing ({str(with_suffix)[:99]} is no file); correct the name"
    )


def _json(file: Path) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f'{file}: "{key[:40]}" is given twice; keep one of the two')
        return dict(pairs)

    try:
        value = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=no_duplicates)
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
    if not isinstance(value, dict):
        raise UserError(
            f"{file}: a label file is one JSON object, this is a {type(value).__name__}; correct it"
        )
    return value


def _validate[M: BaseModel](model: type[M], value: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise UserError(f"{file}: {_place(e, value)}; correct the file") from e


def _place(error: ValidationError, value: dict[str, Any]) -> str:
    """The first thing wrong, in the file's terms: the episode, the key and what is the matter."""
    first = error.errors()[0]
    loc = _without_kind(first["loc"])
    if loc[:1] == ["episodes"] and len(loc) > 1:
        label = value["episodes"][loc[1]]
        where = f"episode {str(loc[1])[:40]}"
        if isinstance(label, dict) and ("success_start" in label) == ("ranges" in label):
            keys = ", ".join(sorted(map(str, label))) or "nothing"
            return f"{where}: `success_start`, `ranges` or null is due, this has {keys[:80]}"
        # A union reports an error for each of its kinds: the one for the kind that was meant counts.
        meant = "SuccessFrom" if isinstance(label, dict) and "success_start" in label else "SuccessRanges"
        first = next((e for e in error.errors() if meant in str(e["loc"]) and e["loc"][1] == loc[1]), first)
        return _say(where, _without_kind(first["loc"])[2:], first)
    return _say("", loc, first)


def _without_kind(loc: tuple[Any, ...]) -> list[Any]:
    """A place without pydantic's names for the members of a union."""
    return [
        part for i, part in enumerate(loc) if not (i == 2 and re.search("Success(From|Ranges)", str(part)))
    ]


def _say(where: str, loc: list[Any], error: Any) -> str:
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{str(p)[:40]}" for p in loc).lstrip(".")
    if error["type"] == "extra_forbidden":
        text = f"unknown key `{path}`"
    elif error["type"] == "missing":
        text = f"`{path}` is missing"
    else:
        message = error["msg"].removeprefix("Value error, ")
        text = f"`{path}`: {message}" if path else message
    return f"{where}: {text}" if where else text


def _show(span: tuple[int, int | None]) -> str:
    return f"[{span[0]}, {'null' if span[1] is None else span[1]}]"
