"""report.html: what a person looks at before trusting a model. One file, nothing fetched."""

import base64
import html
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire_reward.bundle import Manifest, Metric
from gripwire_trainer.figures import Judged

WORST = 24
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
svg{width:100%;height:70px;background:#fafafa}figure{display:inline-block;margin:.3rem;font-size:12px}
.worst img{width:128px}h3{margin:.8rem 0 .2rem;font-size:1rem}"""

Pictures = Callable[[str], NDArray[np.uint8]]


def render(manifest: Manifest, judged: Sequence[Judged], pictures: Pictures) -> bytes:
    """The page. ``pictures`` gives an episode's frames by its name."""
    threshold = manifest.decision.threshold
    parts = [
        f"<!doctype html><meta "
        f"charset=utf-8><title>{html.escape(manifest.name)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(manifest.name)}</h1><p>{_summary(manifest, judged)}</p>",
        "<h2>Figures</h2>",
        _table(manifest.metrics),
        "<h2>Episodes</h2><p>Green: success by the labels. Line: probability. Blue: the decision. "
        "Dashed: the threshold. Each episode was judged by the one head that never saw it.</p>",
        *(f"<h3>{html.escape(e.name)}</h3>{_timeline(e, threshold)}" for e in judged),
        "<h2>Look at these first</h2><p>The frames judged most wrongly: an error of the model, or of the "
        "label.</p>",
        f"<div class=worst>{''.join(_worst(judged, pictures))}</div>",
    ]
    return "\n".join(parts).encode()


def _summary(manifest: Manifest, judged: Sequence[Judged]) -> str:
    failed = sum(e.failed for e in judged)
    return (
        f"{len(judged)} episodes ({failed} failed), {sum(len(e.success) for e in judged)} frames, "
        f"{manifest.created}. Episodes were held out in rotation: the weights and the stopping of the head "
        f"that judged an episode came from the others.</p><p>{html.escape(manifest.note)}"
    )


def _table(metrics: dict[str, Metric]) -> str:
    rows = []
    for name, metric in metrics.items():
        span = (
            f"{metric.low:.4g} to {metric.high:.4g}"
            if metric.low is not None and metric.high is not None
            else ""
        )
        rows.append(
            f"<tr><td>{name.replace('_', ' ')}<td>{metric.value:.4g}<td>{span}"
            f"<td>{metric.episodes or ''}</tr>"
        )
    return f"<table><tr><th>figure<th>value<th>95 % interval<th>episodes</tr>{''.join(rows)}</table>"


def _timeline(episode: Judged, threshold: float) -> str:
    count = len(episode.success)
    truth = "".join(_band(episode.success, "#bfe5bf", 0, 60))
    decided = "".join(_band(episode.decision, "#3b6fd4", 62, 8))
    line = " ".join(f"{i + 0.5:.1f},{60 - 58 * p:.1f}" for i, p in enumerate(episode.probability))
    y = 60 - 58 * threshold
    return (
        f'<svg viewBox="0 0 {count} 70" preserveAspectRatio="none">{truth}{decided}'
        f'<line x1="0" x2="{count}" y1="{y:.1f}" y2="{y:.1f}" stroke="#999" stroke-dasharray="4" '
        'vector-effect="non-scaling-stroke"/>'
        f'<polyline points="{line}" fill="none" stroke="#c33" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def _band(mask: NDArray[np.bool_], colour: str, y: int, height: int) -> list[str]:
    edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0)).tolist()
    return [
        f'<rect x="{a}" y="{y}" width="{b - a}" height="{height}" fill="{colour}"/>'
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def worst_frames(judged: Sequence[Judged], limit: int = WORST) -> list[tuple[Judged, int]]:
    """Frames on the wrong side of the threshold, the most confident first."""
    wrong = [
        (abs(float(e.probability[i]) - float(e.success[i])), e, int(i))
        for e in judged
        for i in np.flatnonzero((e.above != e.success) & e.counted)
    ]
    return [(e, i) for _, e, i in sorted(wrong, key=lambda w: -w[0])[:limit]]


def _worst(judged: Sequence[Judged], pictures: Pictures) -> list[str]:
    out = []
    for episode, frame in worst_frames(judged):
        _, jpeg = cv2.imencode(".jpg", pictures(episode.name)[frame][..., ::-1])
        said, truth = episode.probability[frame], "success" if episode.success[frame] else "failure"
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"
        caption = f"{html.escape(episode.name)} frame {frame}<br>said {said:.2f}, label {truth}"
        out.append(f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>')
    return out or ["<p>None: every frame that counts is on the right side of the threshold.</p>"]
