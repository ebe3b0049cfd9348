"""The exporter: listens to the whole bus, and answers scrapes from another thread."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.metrics_core import Metric

from gripwire import clock
from gripwire.bus import Received
from gripwire.messages import Command, Message, Reply, Reward
from gripwire.metrics import facts
from gripwire.metrics.facts import Moment
from gripwire.metrics.settings import Metrics
from gripwire.metrics.sheet import PREFIX, Sheet
from gripwire.metrics.table import METRICS
from gripwire.metrics.web import Web
from gripwire.service import Runtime
from gripwire.survey import Survey

_BATCH_S = 0.05
"""Messages wait in their queues for so long: waking up for each of some 200 a second is most of the cost."""
LATENCY_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
STAGES = ("receive", "decode", "preprocess", "score", "decide")


class Exporter:
    """Serves `/metrics`, and `/metrics/<service>` for what one service answers for."""

    rate_hz: float | None = None

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.section("metrics", Metrics)
        self._survey: Survey | None = None
        self._web: Web | None = None
        self._asked: SimpleQueue[Future[Moment]] = SimpleQueue()
        self._rewards: Counter[bool] = Counter()
        self._latency = _histogram("reward_latency_seconds")
        self._stages = _histogram("reward_stage_seconds")

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {}

    def setup(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._survey = self._runtime.survey(list(self._runtime.topics))
        services = list(self._runtime.topics.services)
        registries = {service: self._registry([service]) for service in services}
        self._web = Web(self._settings.bind, self._settings.port, self._registry(services), registries)

    def _registry(self, services: Sequence[str]) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(_Collector(self, services))
        return registry

    def update(self) -> None:
        """Take in what arrives, and tell those who scrape what is known now."""
        assert self._survey
        time.sleep(_BATCH_S)  # not on `stopping`, which a signal sets in this very thread
        for topic, received in self._survey.listen(0.002):
            if topic == "reward":
                self._note(received)
        while not self._asked.empty():
            self._asked.get().set_result(self._moment())

    def _note(self, received: Received[Message]) -> None:
        reward = received.message
        if not isinstance(reward, Reward):
            return
        self._rewards[reward.valid] += 1
        if reward.frame_seq < 0 or reward.host != clock.host_id():
            return  # about no picture, or timed by another clock
        self._latency.observe((reward.t_publish - reward.t_capture) / 1e9)
        for stage in STAGES:
            if stage in reward.stages_ms:
                self._stages.labels(stage).observe(reward.stages_ms[stage] / 1e3)

    def _moment(self) -> Moment:
        assert self._survey
        readers = self._survey.readers
        return Moment(
            self._runtime.topics, self._survey.judge(), dict(self._survey.latest),
            {name: reader.received for name, reader in readers.items()},
            {name: reader.refused for name, reader in readers.items()},
            dict(self._rewards),
        )  # fmt: skip

    def collect(self, services: Sequence[str]) -> Iterator[Metric]:
        """What a scrape gets; called from the web's threads, answered by the loop."""
        future: Future[Moment] = Future()
        self._asked.put(future)
        moment, sheet = future.result(timeout=5), Sheet()
        for service in services:
            facts.fill(sheet, moment, service)
        if "reward" in services:
            for histogram in (self._latency, self._stages):
                for family in histogram.collect():
                    sheet.add(family)
        return sheet.families()

    def close(self, failed: bool) -> None:
        if self._web:
            self._web.close()


class _Collector:
    """What prometheus_client asks at every scrape."""

    def __init__(self, exporter: Exporter, services: Sequence[str]) -> None:
        self._exporter, self._services = exporter, services

    def collect(self) -> Iterator[Metric]:
        return self._exporter.collect(self._services)


def _histogram(name: str) -> Histogram:
    spec = METRICS[name]
    return Histogram(PREFIX + name, spec.help, spec.labels, buckets=LATENCY_S, registry=None)
