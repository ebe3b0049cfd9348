"""The head of the report's page: what counts at one look."""

import html
from collections.abc import Sequence

from gripwire_reward.bundle import Manifest
from gripwire_trainer.figures import Judged, by_episode
from gripwire_trainer.report.figure_table import percent, written


def summary(manifest: Manifest, judged: Sequence[Judged], doubts: int) -> str:
    """How many were judged, how well, and what that says; ``doubts``: how many labels are in doubt."""
    failed, frames = sum(e.failed for e in judged), sum(len(e.success) for e in judged)
    counted = sum(int(e.counted.sum()) for e in judged)
    left = f", {frames - counted} of them left out: their labels are uncertain" if counted < frames else ""
    when = f"Made {html.escape(manifest.created.replace('T', ' ').replace('+00:00', ' UTC'))}. "
    return (
        f'<p class="soft">{when if manifest.created else ""}Judged on {len(judged)} episodes held out '
        f"({failed} failed); {frames} frames{left}.</p>{_cards(manifest, judged, doubts)}"
        f"<p>{html.escape(manifest.note)}</p>"
    )


def _cards(manifest: Manifest, judged: Sequence[Judged], doubts: int) -> str:
    metrics, cell = manifest.metrics, by_episode(judged)
    out = []

    def card(title: str, value: str, about: str, bad: bool = False) -> None:
        out.append(
            f'<div class="card{" bad" if bad else ""}"><span>{title}</span><b>{value}</b>'
            f"<span>{about}</span></div>"
        )

    def share(title: str, name: str, hits: int, of: int, what: str) -> None:
        if metric := metrics.get(name):
            card(title, f"{hits} of {of}", f"{what}; {written(name, metric)[1]}", hits > 0)

    false, true = cell.false_alarms, cell.hits
    share("False success", "false_success_rate", false, false + cell.rejections, "failed episodes")
    share("Missed success", "missed_success_rate", cell.misses, cell.misses + true, "episodes with success")
    if metric := metrics.get("frame_accuracy"):
        value, spread = written("frame_accuracy", metric)
        other = metrics.get("always_fail_accuracy")
        card("Frames right", value, spread + (f"; always “fail”: {percent(other.value)}" if other else ""))
    if (median := metrics.get("onset_error_median_frames")) and (
        p90 := metrics.get("onset_error_p90_frames")
    ):
        card("Onset error", f"{median.value:.3g} / {p90.value:.3g}", "frames, median / p90")
    if metric := metrics.get("ece_after"):
        card(
            "Calibration error", f"{metric.value:.4f}", f"95 % interval {metric.low:.4f} to {metric.high:.4f}"
        )
    card("Doubtful labels", str(doubts), '<a href="#doubtful">look at these first</a>')
    return f'<div class="cards">{"".join(out)}</div>'
