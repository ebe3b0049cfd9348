"""The demo's HTML report: one file, no scripts, pictures inside."""

import base64
import html
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from gripwire_sim.demo.judge import Episode, Point

WIDTH, HEIGHT, PAD = 860, 120, 8
MAX_WRONG_PICTURES = 36
_STYLE = """
:root{--ink:#1d2530;--dim:#6b7686;--line:#dfe4ea;--blue:#1f6feb;--good:#1a7f4b;--bad:#c4342d;--band:#cfeedd}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:920px;margin:2rem auto;padding:0 1rem}
h1{margin:0 0 .2rem;font-size:1.6rem} h2{margin:2rem 0 .6rem;font-size:1.15rem}
h3{margin:1.2rem 0 .2rem;font-size:1rem} .dim{color:var(--dim)}
.figures{display:flex;flex-wrap:wrap;gap:.6rem;margin:1.2rem 0}
.figure{border:1px solid var(--line);border-radius:8px;padding:.5rem .9rem;min-width:8.2rem}
.figure b{display:block;font-size:1.35rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right} .good{color:var(--good)} .bad{color:var(--bad)}
.wrong{display:flex;flex-wrap:wrap;gap:.6rem}
figure{margin:0;width:200px} figure img{width:200px;border-radius:6px}
figcaption{font-size:.8rem;color:var(--dim)} svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
.strip{display:flex;gap:3px;margin:.2rem 0} .strip img{width:calc(100%/8 - 3px);border-radius:4px}
"""


def render(summary: dict[str, Any], episodes: list[Episode], pictures: dict[int, bytes]) -> str:
    """The report of one run. ``pictures``: JPEG by exposure number."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>gripwire demo</title>",
        f"<style>{_STYLE}</style><h1>gripwire demo</h1>",
        f"<p class='dim'>Live reward of bundle <code>{summary['bundle']}</code>, epoch {summary['epoch']}, "
        f"against the bench's truth, on {len(episodes)} episodes that nothing was trained on.</p>",
        _figures(summary),
        _table(episodes),
        "<h2>Probability against truth</h2><p class='dim'>Green band: the cube was truly held. Blue line: "
        "calibrated probability. Dotted: threshold. Black bar at the foot: the decision. Red ticks: frames "
        "judged wrong.</p>",
        *(_timeline(i, e, pictures) for i, e in enumerate(episodes)),
        _wrong(episodes, pictures),
        _walls(summary),
    ]
    return "\n".join(parts) + "</html>\n"


def _figures(s: dict[str, Any]) -> str:
    values = [
        (f"{s['accuracy']:.2%}", f"of {s['frames']} fresh frames right"),
        (f"{s['always_fail_accuracy']:.1%}", "for always saying “fail”"),
        (f"{s['false_successes']} of {s['failed_episodes']}", "failed episodes called a success"),
        (f"{s['latency_ms']['p50']:.1f} / {s['latency_ms']['p99']:.1f} ms", "capture to publish, p50 / p99"),
        (f"{s['swap_gap_s'] * 1000:.0f} ms", "largest gap around the swap"),
        (str(s["missed_ticks"]), "missed ticks"),
    ]
    boxes = "".join(f"<div class='figure'><b>{v}</b>{html.escape(t)}</div>" for v, t in values)
    return f"<div class='figures'>{boxes}</div>"


def _table(episodes: list[Episode]) -> str:
    rows = "".join(
        f"<tr><td>{i}</td><td>{e.planned.kind.replace('_', ' ')}</td>"
        f"<td>{'held' if e.succeeded else 'failed'}</td>"
        f"<td class='{'bad' if e.decided != e.succeeded else 'good'}'>{'success' if e.decided else 'no'}</td>"
        f"<td class='n'>{'' if e.onset_error_s is None else f'{e.onset_error_s * 1000:+.0f} ms'}</td>"
        f"<td class='n'>{len(e.points) - len(e.wrong)} of {len(e.points)}</td></tr>"
        for i, e in enumerate(episodes)
    )
    return (
        "<h2>Episodes</h2><table><tr><th></th><th>script</th><th>truth</th><th>decision</th>"
        f"<th class='n'>onset error</th><th class='n'>frames right</th></tr>{rows}</table>"
    )


def _timeline(i: int, e: Episode, pictures: dict[int, bytes]) -> str:
    end = max((p.t for p in e.points), default=1.0) or 1.0

    def x(t: float) -> float:
        return PAD + t / end * (WIDTH - 2 * PAD)

    def y(probability: float) -> float:
        return PAD + (1 - probability) * (HEIGHT - 4 * PAD)

    def bars(marked: Callable[[Point], bool], top: int, height: int, colour: str) -> str:
        """A bar over each run of marked frames, up to the frame after it."""
        runs: list[list[float]] = []
        for p, until in zip(e.points, [*(p.t for p in e.points[1:]), end], strict=True):
            if marked(p) and runs and runs[-1][1] == p.t:
                runs[-1][1] = until
            elif marked(p):
                runs.append([p.t, until])
        return "".join(
            f"<rect x='{x(a):.1f}' y='{top}' width='{x(b) - x(a):.1f}' height='{height}' fill='{colour}'/>"
            for a, b in runs
        )

    held = bars(lambda p: p.truth, 0, HEIGHT - 16, "#cfeedd")
    decided = bars(lambda p: bool(p.reward and p.reward.decision), HEIGHT - 15, 4, "#1d2530")
    wrong = bars(lambda p: not p.right, HEIGHT - 24, 8, "#c4342d")
    line = " ".join(
        f"{x(p.t):.1f},{y(p.reward.probability):.1f}"
        for p in e.points
        if p.reward and p.reward.probability is not None
    )
    threshold = next((p.reward.threshold for p in e.points if p.reward and p.reward.valid), 0.5)
    seconds = "".join(f"<text x='{x(s):.0f}' y='{HEIGHT - 1}'>{s} s</text>" for s in range(int(end) + 1))
    return (
        f"<h3>{i}: {e.planned.kind.replace('_', ' ')}</h3>{_strip(e, pictures)}"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='probability over time'>{held}"
        f"<line x1='{PAD}' x2='{WIDTH - PAD}' y1='{y(threshold):.1f}' y2='{y(threshold):.1f}' "
        "stroke='#6b7686' stroke-dasharray='3 4'/>"
        f"<polyline points='{line}' fill='none' stroke='#1f6feb' stroke-width='1.8'/>"
        f"{wrong}{decided}{seconds}</svg>"
    )


def _strip(e: Episode, pictures: dict[int, bytes]) -> str:
    shown = [p for p in e.points if p.exposure in pictures]
    picks = [shown[int(k)] for k in np.linspace(0, len(shown) - 1, 8)] if shown else []
    return "<div class='strip'>" + "".join(_img(pictures[p.exposure], 160) for p in picks) + "</div>"


def _wrong(episodes: list[Episode], pictures: dict[int, bytes]) -> str:
    wrong = [(i, p) for i, e in enumerate(episodes) for p in e.wrong]
    head = f"<h2>Frames judged wrong: {len(wrong)}</h2>"
    if not wrong:
        return head + "<p class='dim'>None.</p>"
    wrong.sort(key=lambda item: -_how_wrong(item[1]))
    figures = "".join(
        f"<figure>{_img(pictures[p.exposure], 200)}<figcaption>episode {i}, {p.t:.2f} s: {_says(p)}, "
        f"truth {'held' if p.truth else 'not held'}</figcaption></figure>"
        for i, p in wrong[:MAX_WRONG_PICTURES]
        if p.exposure in pictures
    )
    more = f", the worst {MAX_WRONG_PICTURES}" if len(wrong) > MAX_WRONG_PICTURES else ""
    return f"{head}<p class='dim'>Worst first{more}.</p><div class='wrong'>{figures}</div>"


def _how_wrong(p: Point) -> float:
    if not p.reward or p.reward.probability is None:
        return 2.0
    return abs(p.reward.probability - p.truth)


def _says(p: Point) -> str:
    if p.reward is None:
        return "no reward"
    if not p.reward.valid or p.reward.probability is None:
        return f"not valid ({html.escape(p.reward.reason)})"
    return f"p {p.reward.probability:.2f}"


def _img(jpeg: bytes, width: int) -> str:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        return ""
    height = round(picture.shape[0] * width / picture.shape[1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'>"


def _walls(s: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(k)}</td><td class='n'>{v:.1f} s</td></tr>" for k, v in s["wall_s"].items()
    )
    return f"<h2>Where the time went</h2><table>{rows}</table>"
