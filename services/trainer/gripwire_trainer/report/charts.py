"""Charts of the report's page, as SVG that takes its colours from the page's style."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.reliability import BINS
from gripwire_trainer.report.curves import PrecisionRecall, Reliability

_WIDTH, _LEFT, _TOP, _SIDE = 404, 50, 10, 340
"""Of a chart; `_SIDE` is that of its square plot."""

_BARS = 46
"""Height of the bars under the reliability diagram."""


def reliability_diagram(before: Reliability, after: Reliability) -> str:
    """Share of success against probability, and how many frames stand behind each bin."""
    corner = f"M{_LEFT} {_TOP + _SIDE}L{_LEFT + _SIDE} {_TOP}"
    marks = [f'<path class="guide" d="{corner}"/>']
    for x, y in zip(before.predicted, before.seen, strict=True):
        marks.append(f'<circle class="before" cx="{_x(x)}" cy="{_y(y)}" r="3.6"/>')
    sizes = 2.4 + 1.2 * np.log10(after.frames)
    points = zip(after.predicted, after.seen, after.low, after.high, sizes, strict=True)
    for x, y, low, high, size in points:
        marks.append(f'<path class="whisker" d="M{_x(x)} {_y(low)}V{_y(high)}"/>')
        marks.append(f'<circle class="dot" cx="{_x(x)}" cy="{_y(y)}" r="{size:.1f}"/>')
    base = _TOP + _SIDE + 92
    height = base + 8
    axes = _axes(0, "mean probability predicted", "share of success seen")
    return _chart(height, "reliability diagram", [*axes, *marks, *_bars(after, base)])


def _bars(after: Reliability, base: int) -> list[str]:
    """Frames in each bin, by their logarithm: nearly all lie in the first and the last."""
    wide = _SIDE / BINS
    out = [f'<text x="{_LEFT - 6}" y="{base - 2}" text-anchor="end">frames</text>']
    full = max(1.0, float(np.log10(after.frames.max(initial=1) + 1)))
    which = np.minimum((after.predicted * BINS).astype(int), BINS - 1)
    for i, frames in zip(which.tolist(), after.frames.tolist(), strict=True):
        tall = (_BARS - 12) * np.log10(frames + 1) / full
        x = _LEFT + i * wide
        out.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{base - tall:.1f}" width="{wide - 2:.1f}" '
            f'height="{tall:.1f}"/>'
            f'<text x="{x + wide / 2:.1f}" y="{base - tall - 3:.1f}" text-anchor="middle" '
            f'font-size="9">{short(frames)}</text>'
        )
    return out


def short(count: float) -> str:
    """12345 as 12k: no more than four characters."""
    return f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"


def precision_recall_chart(curve: PrecisionRecall) -> str:
    """The curve with the served threshold and the verdicts themselves marked."""
    begin = curve.begin
    recall, precision = _thinned(curve.recall, curve.precision, begin)
    path = " ".join(f"{_x(r, begin)},{_y(p, begin)}" for r, p in zip(recall, precision, strict=True))
    marks = [f'<polyline class="chance" points="{path}"/>']
    if curve.base > begin:
        marks.insert(0, f'<path class="guide" d="M{_LEFT} {_y(curve.base, begin)}h{_SIDE}"/>')
    for point, shape in ((curve.judged, 'class="ring" r="7"'), (curve.served, 'class="mark" r="4"')):
        if point:
            marks.append(f'<circle {shape} cx="{_x(point[0], begin)}" cy="{_y(point[1], begin)}"/>')
    axes = _axes(begin, "recall", "precision")
    return _chart(_TOP + _SIDE + 40, "precision-recall curve", [*axes, *marks])


def _thinned(
    recall: NDArray[np.float64], precision: NDArray[np.float64], begin: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Without the points outside the axes, nor those that no eye could tell from the one before."""
    inside = np.flatnonzero((recall >= begin) & (precision >= begin))
    if not len(inside):
        return recall[:0], precision[:0]
    # One point further on either side, pressed to the border, so that the curve does not end in mid-air.
    inside = np.arange(max(0, inside[0] - 1), min(len(recall), inside[-1] + 2))
    r, p = recall[inside].clip(begin), precision[inside].clip(begin)
    pixels = np.stack([r, p]) * _SIDE / (1 - begin)
    moved = np.abs(np.diff(np.round(pixels), axis=1)).sum(0) > 0
    kept = np.concatenate([[True], moved])
    kept[-1] = True
    return r[kept], p[kept]


def _x(value: float, begin: float = 0) -> str:
    return f"{_LEFT + _SIDE * (value - begin) / (1 - begin):.1f}"


def _y(value: float, begin: float = 0) -> str:
    return f"{_TOP + _SIDE * (1 - (value - begin) / (1 - begin)):.1f}"


def _axes(begin: float, across: str, up: str) -> list[str]:
    """Frame, grid, ticks and names; both axes run from ``begin`` to 1."""
    out = []
    for tick in np.linspace(begin, 1, 6).tolist():
        x, y = _x(tick, begin), _y(tick, begin)
        out += [
            f'<path class="grid" d="M{x} {_TOP}v{_SIDE}M{_LEFT} {y}h{_SIDE}"/>',
            f'<text x="{x}" y="{_TOP + _SIDE + 13}" text-anchor="middle">{tick:.3g}</text>',
            f'<text x="{_LEFT - 6}" y="{float(y) + 3.5:.1f}" text-anchor="end">{tick:.3g}</text>',
        ]
    middle, low = _LEFT + _SIDE / 2, _TOP + _SIDE / 2
    return [
        *out,
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>',
        f'<text x="{middle}" y="{_TOP + _SIDE + 29}" text-anchor="middle">{across}</text>',
        f'<text transform="translate(11 {low}) rotate(-90)" text-anchor="middle">{up}</text>',
    ]


def _chart(height: int, name: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg>"
    )
