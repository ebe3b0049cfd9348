"""The table of figures of a report: what each is called, what it means, how it is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gripwire_reward.bundle import Metric

_SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """With its sign, as :func:`hundredths`."""
    return f"{hundredths(share)}{_SPACE}%"


def hundredths(share: float) -> str:
    """Per cent to two places, since good classifiers differ in the second; but 100 only of all."""
    shown = f"{100 * share:.2f}"
    return "99.99" if shown == "100.00" and share < 1 else shown


def _places(count: int) -> Callable[[float], str]:
    return lambda value: f"{value:.{count}f}"


@dataclass(frozen=True)
class Row:
    """How one figure is shown. ``bound``: its interval is one-sided and exact."""

    name: str
    number: Callable[[float], str]
    unit: str
    why: str
    bound: bool = False

    def write(self, value: float) -> str:
        return f"{self.number(value)}{_SPACE}{self.unit}" if self.unit else self.number(value)


ROWS: Mapping[str, Row] = {
    "false_success_rate": Row(
        "False success", hundredths, "%", "failed episodes in which success was ever decided", True
    ),
    "missed_success_rate": Row(
        "Missed success", hundredths, "%", "episodes with success in which it was never decided", True
    ),
    "early_success_rate": Row(
        "Early success", hundredths, "%", "of these, where it was decided before it had begun", True
    ),
    "frame_accuracy": Row(
        "Frames right", hundredths, "%", "on the label's side of the threshold, and valid"
    ),
    "precision": Row("Precision", hundredths, "%", "frames said to be success that are"),
    "recall": Row("Recall", hundredths, "%", "frames of success said to be"),
    "onset_error_median_frames": Row(
        "Onset error, median", _places(1), "frames", "between the onset said and the one labelled"
    ),
    "onset_error_median_s": Row("", _places(2), "s", ""),
    "onset_error_p90_frames": Row(
        "Onset error, p90", _places(1), "frames", "nine in ten onsets are off by no more"
    ),
    "onset_error_p90_s": Row("", _places(2), "s", ""),
    "flicker_per_minute": Row(
        "Flicker", _places(2), "/ min", "changes of the decision beyond the true ones"
    ),
    "auroc": Row("AUROC", _places(4), "", "chance that a frame of success outscores another"),
    "average_precision": Row("Average precision", _places(4), "", "area under the precision-recall curve"),
    "ece_before": Row(
        "ECE before calibration", _places(4), "", "mean gap between probability and share, 15 bins"
    ),
    "ece_after": Row("ECE after calibration", _places(4), "", "the same for what is published"),
    "brier": Row("Brier score", _places(4), "", "mean squared error of the probability"),
    "invalid_share": Row("Not valid", hundredths, "%", "frames too unlike those trained on"),
}  # fmt: skip
"""In the order of the table. `always_fail_accuracy` is a column."""


def written(name: str, metric: Metric) -> tuple[str, str]:
    """Value and 95 % interval in words."""
    row = ROWS[name]
    if metric.low is None or metric.high is None:
        return row.write(metric.value), ""
    if row.bound:
        return row.write(metric.value), f"at most {row.write(metric.high)}"
    return row.write(metric.value), f"{row.number(metric.low)} to {row.write(metric.high)}"


def always_failing(name: str, values: Mapping[str, float]) -> str:
    """What always answering "fail" would score, in words."""
    if name.startswith("onset_error"):
        return "never seen"
    return ROWS[name].write(values[name]) if name in values else "–"


def table(metrics: Mapping[str, Metric], failing: Mapping[str, float]) -> str:
    """All figures beside what always answering "fail" would score (``failing``), as HTML."""
    rows = []
    for name, row in ROWS.items():
        if metric := metrics.get(name):
            value, spread = written(name, metric)
            rows.append(
                f'<tr><th scope="row">{row.name}<td class="num"><b>{value}</b><td class="num">{spread}'
                f'<td class="num">{metric.episodes if metric.episodes is not None else ""}'
                f'<td class="num">{always_failing(name, failing)}<td class="why">{row.why}'
            )
    return (
        '<div class="scroll"><table class="figures"><thead><tr><th>Figure<th class="num">Value'
        '<th class="num">95 % interval<th class="num">Episodes<th class="num">Always “fail”<th></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
