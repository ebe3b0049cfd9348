"""Labels to doubt: runs of frames where a head that never saw the episode says otherwise, and surely so.

That a model contradicts a label out of fold is evidence against either; which of them is wrong, only a look
at the pictures tells (confident learning, arXiv 1911.00068, counts on the same evidence).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.figures import Judged
from gripwire_trainer.runs import runs

_SUREST = 1e-6
"""A probability nearer than this to 0 or 1 is no stronger evidence."""


class Place(StrEnum):
    """Where in the labels a doubtful run lies, and so what would have to change."""

    START = "start"
    """It touches the beginning of a range of success, which may begin elsewhere."""
    END = "end"
    """It touches the end of a range of success."""
    RANGE = "range"
    """It is a whole range of success: there may be none."""
    GAP = "gap"
    """It is all that lies between two ranges of success: they may be one."""
    INSIDE = "inside"
    """It touches no edge."""


@dataclass(frozen=True)
class Doubtful:
    """A run of frames, ``first`` to ``last`` inclusive, all labelled ``success`` or all not.

    ``probability``: the mean of what was said. ``evidence``: the log-odds against the label, summed over the
    frames that count. ``move``: for `START` the frame where success begins by the label, and where by the
    head; for `END` its last frame.
    """

    episode: str
    first: int
    last: int
    success: bool
    probability: float
    evidence: float
    place: Place
    move: tuple[int, int] | None = None


def doubtful(judged: Sequence[Judged]) -> list[Doubtful]:
    """All runs of frames that were judged against their label, the strongest evidence first.

    Frames that are not valid, or whose label is known to be uncertain, are no evidence; a run that reaches
    from uncertain frames into certain ones is told whole.
    """
    found = [_doubtful(e, *run) for e in judged for run in _contradicted(e)]
    return sorted((d for d in found if d.evidence > 0), key=lambda d: -d.evidence)


def _contradicted(e: Judged) -> list[tuple[int, int]]:
    against = (e.above != e.success) & e.valid
    return runs(against & e.success) + runs(against & ~e.success)


def _doubtful(e: Judged, first: int, last: int) -> Doubtful:
    part = slice(first, last + 1)
    success = bool(e.success[first])
    place, move = _place(e.success, first, last)
    return Doubtful(
        e.name, first, last, success, float(e.probability[part].mean()),
        float(_against(e, success)[part].sum()), place, move,
    )  # fmt: skip


def _against(e: Judged, success: bool) -> NDArray[np.float64]:
    """Log-odds (n,) that the label is wrong, by the head; 0 where that is no evidence."""
    p = np.clip(e.probability, _SUREST, 1 - _SUREST)
    odds = np.log(p / (1 - p)) * (-1 if success else 1)
    return np.where(e.counted, np.maximum(odds, 0), 0)


def _place(success: NDArray[np.bool_], first: int, last: int) -> tuple[Place, tuple[int, int] | None]:
    """Of a run of one label: what it touches, and from where to where an edge would move."""
    inside = bool(success[first])
    # Outside the episode there is no success: a range may begin on its first frame and last to its end.
    before, after = (0 <= i < len(success) and bool(success[i]) for i in (first - 1, last + 1))
    touches = (before != inside, after != inside)
    if inside:
        places = {(True, True): Place.RANGE, (True, False): Place.START, (False, True): Place.END}
        moves = {Place.START: (first, last + 1), Place.END: (last, first - 1)}
    else:
        places = {(True, True): Place.GAP, (True, False): Place.END, (False, True): Place.START}
        moves = {Place.START: (last + 1, first), Place.END: (first - 1, last)}
    place = places.get(touches, Place.INSIDE)
    return place, moves.get(place)
