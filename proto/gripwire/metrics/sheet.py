"""Metrics on their way out: the table's names, filled with values."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from gripwire.metrics.table import METRICS

PREFIX = "gripwire_"
_LONGEST = 200


class Sheet:
    """Collects samples; a name that the table does not have is a mistake here, not in the stack."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def put(self, name: str, value: float | bool | None, **labels: str) -> None:
        """A sample of a gauge or counter; None: there is none."""
        if value is None:
            return
        family = self._family(name)
        told = [labels[label][:_LONGEST] for label in METRICS[name].labels]
        family.add_metric(told, float(value))  # type: ignore[attr-defined]

    def add(self, family: Metric) -> None:
        """A whole histogram."""
        self._families[family.name.removeprefix(PREFIX)] = family

    def _family(self, name: str) -> Metric:
        if name not in self._families:
            spec = METRICS[name]
            kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
            self._families[name] = kind(PREFIX + name, spec.help, labels=spec.labels)
        return self._families[name]

    def families(self) -> Iterator[Metric]:
        yield from self._families.values()
