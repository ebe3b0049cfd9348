"""One episode of the report on a line of time: what is true, what was said, what was decided."""

import html

import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.figures import Judged
from gripwire_trainer.runs import runs

_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT = 560, 46, 8, 6, 62
_SPAN = _WIDTH - _LEFT - _RIGHT
_LABELLED, _DECIDED, _LANE, _HEIGHT = 73, 83, 7, 106

DEFS = (
    '<svg class="defs" aria-hidden="true"><defs><pattern id="hatch" width="5" height="5" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V5"/></pattern>'
    "</defs></svg>"
)
"""What the timelines of a page share."""


def key() -> str:
    """What the colours mean."""
    entries = (
        ('<rect class="truth band" width="22" height="12"/>', "success by the label"),
        ('<rect fill="url(#hatch)" width="22" height="12"/>', "label uncertain: not counted"),
        ('<path class="chance" d="M0 10 8 9 14 3 22 2"/>', "probability"),
        ('<path class="guide" d="M0 6H22"/>', "threshold"),
        ('<circle class="mark" cx="11" cy="6" r="3"/>', "wrong side of it"),
        ('<rect class="decided" y="3" width="22" height="7"/>', "success decided"),
        ('<rect class="void" width="22" height="12"/>', "not valid: unlike what was trained on"),
    )
    return f'<p class="key">{"".join(f"<span><svg>{mark}</svg>{text}</span>" for mark, text in entries)}</p>'


def timeline(e: Judged, threshold: float, mark: str = "", about: str = "") -> str:
    """The chart under the episode's name; ``about`` says in a few words how it was judged.

    ``threshold`` is drawn where the episode's own is not known; ``mark`` is the id to link to.
    """
    count = len(e.success)
    at = e.threshold if e.threshold is not None else threshold
    parts = [
        *_bands(e.success, count, 'class="truth band"', _TOP, _PLOT),
        *_bands(~e.counted, count, 'fill="url(#hatch)"', _TOP, _PLOT),
        *_bands(~e.valid, count, 'class="void"', _TOP, _PLOT),
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SPAN}" height="{_PLOT}"/>',
        f'<path class="guide" d="M{_LEFT} {_y(at):.1f}h{_SPAN}"/>',
        _line(e.probability, count),
        *_wrong(e, count),
        *_bands(e.success, count, 'class="truth"', _LABELLED, _LANE),
        *_bands(e.decision, count, 'class="decided"', _DECIDED, _LANE),
        *_axis(count, at),
    ]
    title = html.escape(e.name)
    return (
        f'<figure class="timeline"{f" id={mark}" if mark else ""}><p><b>{title}</b><span>{about}</span></p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="timeline of {title}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _x(frame: float, count: int) -> float:
    return _LEFT + _SPAN * frame / count


def _y(probability: float) -> float:
    return _TOP + 2 + (_PLOT - 4) * (1 - probability)


def _bands(mask: NDArray[np.bool_], count: int, look: str, top: int, height: int) -> list[str]:
    return [
        f'<rect {look} x="{_x(first, count):.1f}" y="{top}" '
        f'width="{_SPAN * (last - first + 1) / count:.1f}" height="{height}"/>'
        for first, last in runs(mask)
    ]


def _line(probability: NDArray[np.float64], count: int) -> str:
    points = (f"{_x(i + 0.5, count):.1f},{_y(p):.1f}" for i, p in enumerate(probability.tolist()))
    return f'<polyline class="chance" points="{" ".join(points)}"/>'


def _wrong(e: Judged, count: int) -> list[str]:
    out = []
    for i in np.flatnonzero(~e.right & e.counted).tolist():
        what = f"frame {i}: said {e.probability[i]:.2f}, label {'success' if e.success[i] else 'failure'}"
        place = f'cx="{_x(i + 0.5, count):.1f}" cy="{_y(float(e.probability[i])):.1f}"'
        out.append(f'<circle class="mark" {place} r="2.6"><title>{what}</title></circle>')
    return out


def _axis(count: int, threshold: float) -> list[str]:
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, count) if count / s <= 12)
    names = [(_y(1) + 5, "1"), (_y(0) + 1, "0"), (_LABELLED + 7, "label"), (_DECIDED + 7, "decided")]
    if 0.25 < threshold < 0.75:
        names.append((_y(threshold) + 3.5, f"{threshold:.2g}"))
    out = [f'<text x="{_LEFT - 5}" y="{y:.1f}" text-anchor="end">{name}</text>' for y, name in names]
    for frame in range(0, count, step):
        out.append(f'<text x="{_x(frame + 0.5, count):.1f}" y="103" text-anchor="middle">{frame}</text>')
    return out
