"""The report's account of each episode, and the confusion matrices."""

import html
from collections.abc import Mapping, Sequence

from gripwire_trainer.figures import Confusion, Judged, decided_early
from gripwire_trainer.onsets import onset_offsets
from gripwire_trainer.report.figure_table import percent


def mistakes(e: Judged) -> int:
    """Frames that count and are wrong."""
    return int((~e.right & e.counted).sum())


def decided(e: Judged) -> tuple[str, bool]:
    """What was decided, in words, and whether that is right: `success at 24 (+3)` is 3 frames late."""
    first = int(e.decision.argmax()) if e.decision.any() else None
    if e.failed:
        return ("no success", True) if first is None else (f"false success at {first}", False)
    if first is None or not (e.decision & e.success).any():
        return "success missed", False
    onset = int(e.success.argmax())
    if decided_early(e):
        return f"success at {first}, {onset - first} too early", False
    return f"success at {first} ({first - onset:+d})", True


def onsets(e: Judged) -> str:
    """How each onset is off: `0, +2, missed`."""
    offsets = onset_offsets(e.above, e.success, e.counted)
    return ", ".join("missed" if n is None else f"{n:+d}" if n else "0" for n in offsets)


def about(e: Judged) -> str:
    """An episode in a few words."""
    words, right = decided(e)
    wrong = mistakes(e)
    count = f"{wrong} of {int(e.counted.sum())} frames wrong" if wrong else "all frames right"
    return f"{count}; {words if right else f'<b class=bad>{words}</b>'}"


def most_to_see_first(judged: Sequence[Judged]) -> list[Judged]:
    """Episodes with a wrong decision, then those with most wrong frames, then with most not valid."""
    return sorted(judged, key=lambda e: (decided(e)[1], -mistakes(e), -int((~e.valid).sum())))


def table(judged: Sequence[Judged], heads: Mapping[str, str], marks: Mapping[str, str]) -> str:
    """A row per episode, those with most to look at first. ``heads``: which head judged it, by the
    episode's name; ``marks``: the id of its timeline."""
    rows = []
    for e in most_to_see_first(judged):
        words, right = decided(e)
        counted, wrong, invalid = int(e.counted.sum()), mistakes(e), int((~e.valid).sum())
        name = html.escape(e.name)
        rows.append(
            f'<tr><td><a href="#{marks[e.name]}">{name}</a><td class="num">{heads.get(e.name, "")}'
            f'<td class="num">{len(e.success)}<td class="num">{len(e.success) - counted or ""}'
            f'<td class="num">{wrong or ""}'
            f'<td class="num">{percent((counted - wrong) / counted) if counted else ""}'
            f'<td class="num">{invalid or ""}<td class="short">{onsets(e)}'
            f'<td class="short{"" if right else " bad"}">{words}'
        )
    return (
        '<div class="scroll"><table class="episodes"><thead><tr><th>Episode<th class="num">Head'
        '<th class="num">Frames<th class="num">Uncertain<th class="num">Wrong<th class="num">Right'
        '<th class="num">Not valid<th>Onsets off by<th>Decision</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def matrix(cell: Confusion, what: str, said: str) -> str:
    """Counts, and their share of what is true."""
    rows = []
    for truth, yes, no in (
        ("success", cell.hits, cell.misses),
        ("failure", cell.false_alarms, cell.rejections),
    ):
        both = max(1, yes + no)
        cells = [(yes, truth == "success"), (no, truth == "failure")]
        shown = "".join(
            f'<td{"" if right or not n else " class=bad"}><b>{n}</b><br><span class="soft">'
            f"{percent(n / both)}</span>"
            for n, right in cells
        )
        rows.append(f"<tr><th>{truth}{shown}")
    return (
        f'<table class="matrix"><caption>{what}</caption><thead><tr><th>label'
        f'<th class="num">{said} success<th class="num">{said} failure</thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
