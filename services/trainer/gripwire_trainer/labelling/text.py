"""The older text form of labels: a line per episode, frames counted from 1, several datasets in one file.

    # dataset path: ../grasp        whose episodes follow; relative to this file, or absolute
    00: 34-                         success from the 34th frame to the end
    14: 40-48, 60-                  ranges, ends included
    01: all fail

Other lines that begin with `#` and empty lines say nothing.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from gripwire.errors import UserError

_HEADER = re.compile(r"#+\s*dataset[ _]path\s*:(.*)", re.IGNORECASE)
_LIKE_HEADER = re.compile(
    r"#+\s*data[ _-]?sets?([ _-]\w+)?\s*[:=]|#+\s*data[ _-]?set[ _-]?path\b", re.IGNORECASE
)
_LINE = re.compile(r"(\w+)\s*:(.*)")
_RANGE = re.compile(r"(\d+)\s*[-–—]\s*(\d*)", re.ASCII)
_FAIL = re.compile(r"all\s+fail(ure|ed)?", re.IGNORECASE)
_EPISODE = re.compile(r"\d{1,9}", re.ASCII)
_MOST = 10**6
"""No episode has more frames; a longer number is a slip of the finger."""


@dataclass
class Section:
    """What the text says of one dataset: 0-based ranges per episode, empty where all fail."""

    path: str
    line: int
    episodes: dict[int, list[tuple[int, int | None]]] = field(default_factory=dict)


def parse(file: Path, every: int = 1) -> list[Section]:
    """Read the text form; a number ``n`` is the n-th of every ``every``-th frame: frame (n - 1) * every.

    Raises:
        UserError: naming file and line.
    """
    sections: list[Section] = []
    for number, line in enumerate(_lines(file), 1):
        try:
            _read_line(line.strip(), number, sections, every)
        except ValueError as e:
            raise UserError(f"{file}:{number}: {e}") from e
    if not sections:
        raise UserError(
            f"{file}: no labels in it; a line `# dataset path: PATH`, then lines such as `00: 34-`"
        )
    for section in sections:
        if not section.episodes:
            raise UserError(
                f"{file}:{section.line}: no episode follows for {section.path}; label some or remove the line"
            )
    return sections


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as e:
        raise UserError(f"{file}: no such file; check the path") from e
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror}); name a text file of labels") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {e.start}); name one of labels") from e


def _read_line(line: str, number: int, sections: list[Section], every: int) -> None:
    if header := _HEADER.fullmatch(line):
        sections.append(Section(_dataset(header[1].strip(), sections), number))
    elif _LIKE_HEADER.match(line):
        # Read as a comment, it would give one dataset the labels of another.
        raise ValueError(f"`{_show(line)}` looks like a header; write `# dataset path: PATH`")
    elif line and not line.startswith("#"):
        text = line.split("#")[0].strip()
        match = _LINE.fullmatch(text)
        if not match or not _EPISODE.fullmatch(match[1]):
            raise ValueError(
                f"`{_show(text)}` is no label; write `00: 34-`, `00: 40-48, 60-` or `00: all fail`"
            )
        if not sections:
            raise ValueError(
                f"episode {match[1]} before any `# dataset path: PATH`; say which dataset it is of"
            )
        if int(match[1]) in sections[-1].episodes:
            raise ValueError(f"episode {match[1]} of {sections[-1].path} stands here twice; keep one")
        sections[-1].episodes[int(match[1])] = _ranges(match[1], match[2].strip(), every)


def _dataset(path: str, sections: list[Section]) -> str:
    if not path or re.search(r"[\x00-\x1f]", path):
        raise ValueError("the dataset's path is missing or garbled; write `# dataset path: PATH`")
    for section in sections:
        if section.path == path:
            raise ValueError(f"{path} has a header at line {section.line} already; put its episodes together")
    return path


def _ranges(episode: str, text: str, every: int) -> list[tuple[int, int | None]]:
    if _FAIL.fullmatch(text):
        return []
    spans = [_span(episode, part.strip()) for part in text.split(",")]
    spans.sort(key=lambda span: span[0])
    for before, after in pairwise(spans):
        if before[1] is None or after[0] <= before[1]:
            raise ValueError(f"episode {episode}: {_range(before)} and {_range(after)} overlap")
    return [((a - 1) * every, None if b is None else (b - 1) * every) for a, b in spans]


def _span(episode: str, text: str) -> tuple[int, int | None]:
    match = _RANGE.fullmatch(text)
    if not match:
        hint = (
            f"write {text}- (to the end) or {text}-{text} (that frame)"
            if text.isdecimal()
            else "write 34- or 40-48"
        )
        raise ValueError(f"episode {episode}: `{_show(text)}` is no range; {hint}")
    numbers = [int(n) if len(n) < 9 else _MOST for n in match.groups() if n]
    if max(numbers) >= _MOST:
        raise ValueError(f"episode {episode}: `{_show(text)}`: no episode has so many frames")
    if min(numbers) == 0:
        raise ValueError(f"episode {episode}: `{text}`: frames are counted from 1 in this form, 0 is none")
    first, last = numbers[0], numbers[1] if len(numbers) > 1 else None
    if last is not None and last < first:
        raise ValueError(f"episode {episode}: `{text}` ends before it starts")
    return first, last


def _range(span: tuple[int, int | None]) -> str:
    return f"{span[0]}-{'' if span[1] is None else span[1]}"


def _show(text: str) -> str:
    return ascii(text)[1:-1][:60]
