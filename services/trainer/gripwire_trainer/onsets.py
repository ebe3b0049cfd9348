"""When success is first seen, against when it began."""

import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.runs import runs


def onset_offsets(
    above: NDArray[np.bool_], success: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> list[int | None]:
    """For every run of success, by how many frames the run of ``above`` that answers it begins late (or, if
    negative, early); None where nothing answers it. All arguments (n,).

    What answers is the first run of ``above`` that shares a frame with the run of success. A stray positive
    before it answers nothing (it counts in the figures by frame), and a success that is never seen is not
    excused by one in another place. One run of ``above`` over two runs of success comes too early for the
    second by all that lies between.

    Frames right before a labelled onset that do not count are those among which the labels leave open where
    it lies: a beginning among them is off by 0, one before them is off by its distance to the first of them.
    """
    said = runs(above)
    out: list[int | None] = []
    for first, last in runs(success):
        earliest = earliest_onset(first, success, counted)
        answer = next((a for a, b in said if b >= earliest and a <= last), None)
        out.append(None if answer is None else max(0, answer - first) + min(0, answer - earliest))
    return out


def earliest_onset(labelled: int, success: NDArray[np.bool_], counted: NDArray[np.bool_]) -> int:
    """The first frame at which a success labelled from ``labelled`` on may have begun."""
    while labelled > 0 and not counted[labelled - 1] and not success[labelled - 1]:
        labelled -= 1
    return labelled


def onset_errors(
    above: NDArray[np.bool_], success: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> list[int]:
    """How many frames each onset is off, early or late; a success never seen counts as the whole episode."""
    return [len(success) if n is None else abs(n) for n in onset_offsets(above, success, counted)]
