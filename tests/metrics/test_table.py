"""The table of metrics keeps Prometheus' rules, and docs/metrics.md is that table."""

import re
from pathlib import Path

from gripwire.metrics.table import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
UNITS = ("seconds", "bytes", "ratio", "hz", "celsius", "amperes")


def test_names_are_prometheus_own_and_every_one_is_explained() -> None:
    for name, spec in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z_]+[a-z]", name) and not name.endswith("_total")
        assert spec.help.endswith(".") and "\n" not in spec.help
        assert not re.search(r"_(ms|mb|percent|minutes)$", name)
        assert spec.kind != "histogram" or name.endswith(UNITS)


def test_the_page_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `gripwire_(\w+)`(?: \(histogram\))? \| (.*?) \| (.+) \|$", PAGE, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels, _ in rows}
    names = {name + "_total" * (spec.kind == "counter"): spec.labels for name, spec in METRICS.items()}
    assert told == names


def test_the_page_names_no_metric_that_does_not_exist() -> None:
    names = {name + "_total" * (spec.kind == "counter") for name, spec in METRICS.items()}
    assert set(re.findall(r"gripwire_(\w+)", PAGE)) <= names
