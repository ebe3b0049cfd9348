"""The timelines of the report's picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from numpy.typing import NDArray

from gripwire_trainer.figures import Judged
from gripwire_trainer.report import episode_table
from gripwire_trainer.report.colours import CHANCE, DECIDED, INK, RULE, SOFT, TRUTH, VOID, WRONG
from gripwire_trainer.runs import runs

COLUMNS = 6
_STEP, _PLOT, _LANE = 1.06, 0.56, 0.06
"""From cell to cell; and of a cell, 1 wide and 1 high, the heights of the plot and of each line below it."""

_KEY = (
    "Green: success by the label; violet: success decided; line: probability; dashed: threshold; grey: label "
    "uncertain, or frame not valid; red: wrong frames, and the episodes that have any"
)
_FILLS = {"success": (TRUTH, 0.22), "uncertain": (SOFT, 0.3), "invalid": (VOID, 0.4)}
_LANES = {"label": (TRUTH, 1.0), "decided": (DECIDED, 1.0)}
_LINES = {"frame": (RULE, 0.8, "-"), "threshold": (SOFT, 0.6, "--"), "probability": (CHANCE, 0.9, "-")}


def timelines(axes: Axes, judged: Sequence[Judged], threshold: float, remark: str) -> None:
    """All in one plot, since as many plots as episodes would take seconds.

    ``threshold`` is drawn where an episode's own is not known; ``remark`` stands before the key.
    """
    shapes: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*_FILLS, *_LANES, *_LINES, "wrong")}
    for i, e in enumerate(judged):
        x, y = (i % COLUMNS) * _STEP, -(i // COLUMNS) - _PLOT - 0.24
        for name, shape in _cell(e, x, y, threshold).items():
            shapes[name] += shape
        bad = bool(episode_table.mistakes(e)) or not episode_table.decided(e)[1]
        colour = WRONG if bad else INK
        axes.text(x, y + _PLOT + 0.03, plain(e.name, 40), fontsize=7.5, color=colour, parse_math=False)
    for name, (fill, alpha) in (_FILLS | _LANES).items():
        axes.add_collection(PolyCollection(shapes[name], facecolors=fill, alpha=alpha, lw=0), autolim=False)
    for name, (stroke, width, dash) in _LINES.items():
        drawn = LineCollection(shapes[name], colors=stroke, linewidths=width, linestyles=dash)
        axes.add_collection(drawn, autolim=False)
    wrong = np.concatenate(shapes["wrong"])
    axes.scatter(wrong[:, 0], wrong[:, 1], s=5, color=WRONG, zorder=3)
    axes.text(0, 0.05, remark + _KEY, fontsize=8.5, color=SOFT)
    axes.set_axis_off()
    axes.set(xlim=(-0.01, COLUMNS * _STEP), ylim=(-rows(judged) - 0.02, 0.3))


def rows(judged: Sequence[Judged]) -> int:
    """How many rows of timelines there are."""
    return -(-len(judged) // COLUMNS)


def plain(text: str, most: int) -> str:
    """What the font can draw of ``text``: the end of it, if it is longer than ``most`` characters."""
    drawn = "".join(c if c.isprintable() and c < "\u0250" else "?" for c in text)
    return drawn if len(drawn) <= most else f"\N{HORIZONTAL ELLIPSIS}{drawn[1 - most :]}"


def _cell(e: Judged, x: float, y: float, threshold: float) -> dict[str, list[NDArray[np.float64]]]:
    """The shapes of one episode whose plot has its lower left corner at (x, y)."""
    at = x + (np.arange(len(e.success)) + 0.5) / len(e.success)
    line = np.column_stack([at, y + _PLOT * e.probability])
    limit = y + _PLOT * (threshold if e.threshold is None else e.threshold)
    return {
        "success": _boxes(e.success, x, y, _PLOT),
        "uncertain": _boxes(~e.counted, x, y, _PLOT),
        "invalid": _boxes(~e.valid, x, y, _PLOT),
        "label": _boxes(e.success, x, y - 0.09, _LANE),
        "decided": _boxes(e.decision, x, y - 0.17, _LANE),
        "frame": [_box(x, x + 1, y, _PLOT)[[0, 1, 2, 3, 0]]],
        "threshold": [np.array([(x, limit), (x + 1, limit)])],
        "probability": [line],
        "wrong": [line[~e.right & e.counted]],
    }


def _boxes(mask: NDArray[np.bool_], x: float, y: float, height: float) -> list[NDArray[np.float64]]:
    """One for each run of ``mask``."""
    return [_box(x + first / len(mask), x + (last + 1) / len(mask), y, height) for first, last in runs(mask)]


def _box(left: float, right: float, y: float, height: float) -> NDArray[np.float64]:
    return np.array([(left, y), (right, y), (right, y + height), (left, y + height)])
