"""The report as one picture, for a look without a browser."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from gripwire_reward.bundle import Manifest
from gripwire_trainer.figures import Confusion, Judged, always_fail, by_episode, by_frame
from gripwire_trainer.report import curves, episode_table, figure_table
from gripwire_trainer.report.colours import CHANCE, INK, RULE, SOFT, WRONG
from gripwire_trainer.report.poster_timelines import plain, rows, timelines

_WIDTH, _HEAD, _ROW = 15.0, 3.9, 0.95
"""Inches: of the picture, of all above the timelines, and of one row of these."""

_MOST = 120
"""Timelines, at most."""


def draw(manifest: Manifest, judged: Sequence[Judged]) -> bytes:
    """A PNG: figures, confusion, reliability, precision and recall, and a timeline per episode.

    Of more than 120 episodes it shows those with most to look at.
    """
    shown, remark = list(judged), ""
    if len(judged) > _MOST:
        shown = episode_table.most_to_see_first(judged)[:_MOST]
        remark = f"The {_MOST} of {len(judged)} episodes with most to look at. "
    threshold, tall = manifest.decision.threshold, _ROW * rows(shown) + 0.3
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure((_WIDTH, _HEAD + tall), dpi=100, layout=layout, facecolor="white")
    grid = figure.add_gridspec(2, 4, height_ratios=(_HEAD - 0.5, tall), width_ratios=(2.4, 1, 1.4, 1.4))
    figure.suptitle(_title(manifest, judged), x=0.008, ha="left", size=12, color=INK, parse_math=False)
    _figures(figure.add_subplot(grid[0, 0]), manifest, judged)
    _confusion(figure.add_subplot(grid[0, 1]), by_frame(judged), by_episode(judged))
    _reliability(figure.add_subplot(grid[0, 2]), *curves.reliability_curves(judged))
    _curve(figure.add_subplot(grid[0, 3]), curves.precision_recall(judged, threshold))
    timelines(figure.add_subplot(grid[1, :]), shown, threshold, remark)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, metadata={"Software": None})
    return out.getvalue()


def _title(manifest: Manifest, judged: Sequence[Judged]) -> str:
    failed, frames = sum(e.failed for e in judged), sum(len(e.success) for e in judged)
    judged_on = f"{len(judged)} episodes held out ({failed} failed), {frames} frames"
    made = f"; {plain(manifest.created, 40)}" if manifest.created else ""
    return f"{plain(manifest.name, 60)}: {judged_on}{made}"


def _figures(axes: Axes, manifest: Manifest, judged: Sequence[Judged]) -> None:
    failing = always_fail(judged, curves.raw)
    lines = [("", "value", "95 % interval", "always “fail”")]
    for name, row in figure_table.ROWS.items():
        if metric := manifest.metrics.get(name):
            value, spread = figure_table.written(name, metric)
            lines.append((row.name, value, spread, figure_table.always_failing(name, failing)))
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(-len(figure_table.ROWS) - 0.6, 0.4))
    for y, line in enumerate(lines):
        for x, cell in zip((0, 0.5, 0.8, 1), line, strict=True):
            strong = y > 0 and x in (0, 0.5)
            side = "right" if x else "left"
            axes.text(x, -y, cell, ha=side, va="center", fontsize=8.5, color=INK if strong else SOFT)


def _confusion(axes: Axes, frames: Confusion, episodes: Confusion) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 3), ylim=(-9.2, 0.4))
    look: dict[str, Any] = {"va": "center", "fontsize": 8.5, "color": SOFT}
    for top, cell, what in ((0, frames, "Frames, as said"), (-5, episodes, "Episodes, as decided")):
        axes.text(0, top, what, **look | {"color": INK})
        axes.text(0, top - 1, "label", **look)
        for x, verdict in ((1.9, "success"), (3, "failure")):
            axes.text(x, top - 1, verdict, ha="right", **look)
        counts = (("success", cell.hits, cell.misses), ("failure", cell.false_alarms, cell.rejections))
        for i, (truth, *said) in enumerate(counts):
            y = top - 2.1 - 1.1 * i
            axes.text(0, y, truth, **look)
            for j, (x, count) in enumerate(zip((1.9, 3), said, strict=True)):
                colour = WRONG if count and i != j else INK
                axes.text(x, y, str(count), ha="right", **look | {"fontsize": 12, "color": colour})


def _reliability(axes: Axes, before: curves.Reliability, after: curves.Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    rings: dict[str, Any] = {
        "mfc": "white",
        "mec": SOFT,
        "clip_on": False,
        "label": f"before, ECE {before.error:.4f}",
    }
    axes.plot(before.predicted, before.seen, "o", ms=4, **rings)
    axes.vlines(after.predicted, after.low, after.high, color=CHANCE, alpha=0.4, linewidth=1)
    dots: dict[str, Any] = {
        "color": CHANCE,
        "zorder": 3,
        "clip_on": False,
        "label": f"after, ECE {after.error:.4f}",
    }
    axes.scatter(after.predicted, after.seen, s=8 + 10 * np.log10(after.frames), **dots)
    _dress(axes, 0, "mean probability predicted", "share of success seen")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")


def _curve(axes: Axes, curve: curves.PrecisionRecall) -> None:
    axes.plot(curve.recall, curve.precision, color=CHANCE, linewidth=1.3)
    if curve.judged:
        axes.plot(*curve.judged, "o", ms=9, mfc="none", mec=WRONG, clip_on=False, label="as judged")
    if curve.served:
        axes.plot(*curve.served, "o", ms=4.5, color=WRONG, clip_on=False, label="the bundle's threshold")
    _dress(axes, curve.begin, "recall", "precision")
    if curve.judged or curve.served:
        axes.legend(fontsize=7.5, frameon=False, loc="lower left")


def _dress(axes: Axes, begin: float, across: str, up: str) -> None:
    axes.set(xlim=(begin, 1), ylim=(begin, 1), aspect="equal", anchor="N")
    axes.set_xlabel(across, fontsize=8.5, color=SOFT)
    axes.set_ylabel(up, fontsize=8.5, color=SOFT)
    axes.tick_params(labelsize=7.5, colors=SOFT, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(RULE)
