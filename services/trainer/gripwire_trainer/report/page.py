"""The report's page: one file that fetches nothing and runs nothing."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from gripwire_reward.bundle import Manifest
from gripwire_trainer.disagreement import doubtful
from gripwire_trainer.figures import Judged, always_fail, by_episode, by_frame
from gripwire_trainer.onsets import earliest_onset
from gripwire_trainer.report import album, charts, episode_table, figure_table, origin, timeline
from gripwire_trainer.report.curves import PrecisionRecall, precision_recall, raw, reliability_curves
from gripwire_trainer.report.summary import summary
from gripwire_trainer.runs import runs

_STYLE = Path(__file__).with_name("page.css")


def render(manifest: Manifest, judged: Sequence[Judged], pictures: album.Pictures) -> bytes:
    """The page. ``pictures`` gives an episode's frames by its name."""
    marks = {e.name: f"episode-{i}" for i, e in enumerate(judged)}
    doubts = doubtful(judged)
    shown = album.fill(judged, doubts, marks, pictures)
    name = html.escape(manifest.name or "reward model")
    sections = {
        "figures": ("Figures", _figures(manifest, judged)),
        "charts": ("Confusion, calibration, precision and recall", _charts(manifest, judged)),
        "doubtful": ("Look at these frames first", _DOUBTFUL + album.doubts(shown)),
        "worst": ("Worst mistakes", _WORST + album.worst(shown)),
        "episodes": ("Episodes", _EPISODES + episode_table.table(judged, _heads(manifest), marks)),
        "timelines": ("Timelines", _timelines(manifest, judged, marks)),
        "origin": ("What it was trained on", origin.origin(manifest)),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items())
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}: report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE.read_text()}</style></head><body>{timeline.DEFS}",
        f"<header><h1>{name}</h1>{summary(manifest, judged, len(doubts))}</header><nav>{links}</nav><main>",
        *(f'<section id="{k}"><h2>{title}</h2>{body}</section>' for k, (title, body) in sections.items()),
        "</main></body></html>",
    ]
    return "\n".join(parts).encode()


_DOUBTFUL = (
    "<p>Runs of frames that a head judged against their label without having learnt from their episode, the "
    "strongest evidence first (log-odds against the label, summed). Either the label is wrong or the model "
    "is: the pictures tell. Those of the run are outlined; a green line under a picture says that it is "
    "labelled success. A run at a labelled edge suggests to move the edge.</p>"
)
_WORST = (
    "<p>Of each run of wrong frames the most wrong one, as the model saw it, the most confident mistakes "
    "first.</p>"
)
_EPISODES = (
    "<p>Those with a wrong decision first, then those with most wrong frames. An onset is off by so many "
    "frames, late (+) or early (-); behind a decision stands how much later than the first labelled onset it "
    "came.</p>"
)


def _figures(manifest: Manifest, judged: Sequence[Judged]) -> str:
    return (
        figure_table.table(manifest.metrics, always_fail(judged, raw))
        + f'<p class="soft">{_caveats(judged)}</p>'
    )


def _caveats(judged: Sequence[Judged]) -> str:
    text = (
        "Intervals come from drawing whole episodes again and again, those of false and missed success are "
        "exact and one-sided (Clopper-Pearson). One of no width says only that these episodes do not differ. "
    )
    if open_by := _leeway(judged):
        text += (
            "Figures by frame leave out the frames whose label is uncertain. An onset up to "
            f"{open_by} frame{'s' if open_by > 1 else ''} before the labelled one counts as on time, since "
            "these labels cannot tell: against exact ones it may be off by as much. "
        )
    return text + "An onset that is never seen counts as off by the length of its episode."


def _leeway(judged: Sequence[Judged]) -> int:
    """How many frames before a labelled onset are uncertain, at most."""
    return max(
        (first - earliest_onset(first, e.success, e.counted) for e in judged for first, _ in runs(e.success)),
        default=0,
    )


def _charts(manifest: Manifest, judged: Sequence[Judged]) -> str:
    before, after = reliability_curves(judged)
    curve = precision_recall(judged, manifest.decision.threshold)
    return (
        f'<div class="charts"><div>{episode_table.matrix(by_frame(judged), "Frames", "said")}'
        f"{episode_table.matrix(by_episode(judged), 'Episodes', 'decided')}</div>"
        f"<figure>{charts.reliability_diagram(before, after)}<figcaption>Reliability, 15 bins. Dots: after "
        f"calibration (ECE {after.error:.4f}), larger with more frames; rings: before (ECE {before.error:.4f}"
        "). Bars: 95 % intervals if frames were independent, which they are not. Below: frames in each bin, "
        "by their logarithm.</figcaption></figure>"
        f"<figure>{charts.precision_recall_chart(curve)}<figcaption>{_curve_text(curve, manifest)}"
        "</figcaption></figure></div>"
    )


def _curve_text(curve: PrecisionRecall, manifest: Manifest) -> str:
    text = f"Precision and recall of frames at every threshold{_zoom(curve)}."
    if curve.served:
        text += f" Dot: the bundle's threshold, {manifest.decision.threshold:.2f}."
    if curve.judged:
        text += " Ring: the verdicts reported here, each head at its own threshold."
    return text + f" Always saying success has a precision of {curve.base:.3f}."


def _zoom(curve: PrecisionRecall) -> str:
    return f"; both axes begin at {curve.begin:g}" if curve.begin else ""


def _heads(manifest: Manifest) -> dict[str, str]:
    """Which head judged an episode, numbered from 1 as the split lists them."""
    parts = manifest.trained_on.split.values()
    return {name: str(number) for number, names in enumerate(parts, 1) for name in names}


def _timelines(manifest: Manifest, judged: Sequence[Judged], marks: Mapping[str, str]) -> str:
    drawn = (
        timeline.timeline(e, manifest.decision.threshold, marks[e.name], episode_table.about(e))
        for e in judged
    )
    return f'{timeline.key()}<div class="timelines">{"".join(drawn)}</div>'
