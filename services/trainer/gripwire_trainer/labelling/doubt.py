"""Doubtful places in labels: nothing wrong, but worth a look before a classifier learns it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gripwire_trainer.labels import Source


@dataclass(frozen=True)
class Doubt:
    """A place to look at: a file, an episode of it, or frames of that (first and last, inclusive)."""

    file: Path
    why: str
    episode: int | None = None
    frames: tuple[int, int] | None = None


def doubts(source: Source, lengths: Mapping[int, int], step: int) -> list[Doubt]:
    """What looks odd in one source whose labels fit ``lengths`` (rows per episode of the dataset).

    ``step``: a person read every so many frames, see :func:`labels.reading_step`.
    """
    out = [Doubt(source.file, why) for why in _whole(source, lengths)]
    for episode, ranges in sorted(source.episodes.items()):
        last = lengths[episode] - 1
        spans = [(a, last if b is None else b) for a, b in ranges]
        found = [*_edges(spans, last), *_short(spans, last, step), *_gaps(spans, step)]
        out += [Doubt(source.file, why, episode, frames) for frames, why in sorted(found)]
    return out


def coarse(file: Path, step: int) -> list[Doubt]:
    """Says so when the labels of ``file`` look as if they were read off every ``step``-th frame."""
    if step == 1:
        return []
    most = f"{step - 1} frame{'' if step == 2 else 's'}"
    why = f"all edges are multiples of {step}, as if every {nth(step)} frame was read: uncertain by {most}"
    return [Doubt(file, why)]


def _whole(source: Source, lengths: Mapping[int, int]) -> Iterator[str]:
    count = len(source.episodes)
    if not count:
        yield "no episode counts: every one is skipped or excluded"
    elif not any(source.episodes.values()):
        yield f"no success in any of {count} episodes: meant so?"
    elif all(_everything(ranges, lengths[n]) for n, ranges in source.episodes.items()):
        yield f"no failure in any frame of {count} episodes: meant so?"


def _everything(ranges: list[tuple[int, int | None]], length: int) -> bool:
    return sum((length - 1 if b is None else b) - a + 1 for a, b in ranges) == length


Span = tuple[int, int]
Found = Iterator[tuple[Span, str]]


def _edges(spans: list[Span], last: int) -> Found:
    if spans == [(0, last)]:
        yield spans[0], "every frame is success"
        return
    for start, end in spans:
        if start == 0:
            yield (start, end), "success from the first frame on"
        if start == last:
            yield (start, end), "success begins on the last frame"


def _short(spans: list[Span], last: int, step: int) -> Found:
    """A range within which a person who reads every ``step``-th frame saw success once only."""
    for start, end in spans:
        if end - start < step and start != last and (start, end) != (0, last):
            yield (start, end), _once("success", step)


def _gaps(spans: list[Span], step: int) -> Found:
    """Two ranges with no frame that was read, or a single one, between them."""
    for (_, end), (start, _) in pairwise(spans):
        if start == end + 1:
            yield (end, start), "one range of success ends where the next begins: are they one?"
        elif start - end <= step:
            yield (end + 1, start - 1), f"no {nth(step)} frame between two ranges of success: are they one?"
        elif start - end <= 2 * step:
            yield (end + 1, start - 1), f"{_once('failure', step)}, between two ranges of success"


def _once(verdict: str, step: int) -> str:
    return (
        f"{verdict} in one frame alone"
        if step == 1
        else f"{verdict} seen once, reading every {nth(step)} frame"
    )


def nth(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 22nd ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
