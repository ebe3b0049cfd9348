"""`gripwire metrics run`, scraped as Prometheus would; the dashboard asks for nothing that is not there."""

import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gripwire.messages import Health, Reward
from gripwire.topics import Topics
from tests.cli.publishing import publishing
from tests.metrics.test_facts import SAID

WAIT_S = 60.0
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-gripwire.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Exporter:
    def __init__(self, port: int, process: "subprocess.Popen[str]") -> None:
        self.process, self._url = process, f"http://127.0.0.1:{port}"

    def get(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(self._url + path, timeout=WAIT_S) as answer:
            return str(answer.read().decode())

    def samples(self, path: str = "/metrics") -> dict[str, float]:
        families = text_string_to_metric_families(self.get(path))
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }

    def until(self, what: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                if what(samples := self.samples()):
                    return samples
            except urllib.error.URLError:
                assert self.process.poll() is None, self.process.communicate()
        raise AssertionError(f"never; last: {self.get()}")


@pytest.fixture
def exporter(gripwire) -> Iterator[Exporter]:
    port = _free_port()
    yield Exporter(port, gripwire("metrics", "run", "--port", str(port)))


@pytest.fixture
def everything(topics: Topics) -> Iterator[None]:
    """Every topic that a whole stack has, at a gentle rate."""
    rates = {"camera/gripper_cam": 30.0, "reward": 30.0, "robot/state": 30.0}
    with ExitStack() as stack:
        for name, message in SAID.items():
            made = message.model_copy(update={"valid": True, "frame_seq": 0, "stages_ms": {"score": 4.0}})
            stack.enter_context(
                publishing(topics[name], lambda made=made: made.model_copy(), rates.get(name, 4.0), b"rgb")
                if name.startswith("camera/")
                else publishing(topics[name], lambda made=made: made.model_copy(), rates.get(name, 4.0))
            )
        yield


def _asked_for(dashboard: dict) -> set[str]:
    """Every name of ours in the dashboard's PromQL."""
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [note["expr"] for note in dashboard["annotations"]["list"]]
    queries += [v["definition"] for v in dashboard["templating"]["list"] if "definition" in v]
    return set(re.findall(r"gripwire_\w+", " ".join(queries)))


def test_the_dashboard_asks_only_for_metrics_that_a_live_stack_exports(
    exporter: Exporter, everything: None
) -> None:
    asked = _asked_for(json.loads(DASHBOARD.read_text()))
    assert len(asked) > 30
    exporter.until(lambda samples: asked <= {name.split(" ")[0] for name in samples})


def test_the_latency_of_every_reward_is_counted_and_lost_messages_show(exporter, topics: Topics) -> None:
    with publishing(topics["reward"], lambda: Reward(valid=True, frame_seq=0), 50.0) as rewards:
        samples = exporter.until(lambda s: s["gripwire_rewards_total true"] > 10)
        assert samples["gripwire_reward_valid"] == samples["gripwire_topic_alive reward"] == 1
        assert samples["gripwire_reward_latency_seconds_bucket 1.0"] >= 10
        assert samples["gripwire_topic_lost_total reward"] == 0
        rewards.sent += 5
        exporter.until(lambda s: s["gripwire_topic_lost_total reward"] == 5)
    samples = exporter.until(lambda s: s["gripwire_topic_alive reward"] == 0)
    assert samples["gripwire_reward_valid"] == 0 and "gripwire_reward_probability" not in samples


def test_a_service_is_up_while_its_heart_beats_and_has_a_page_of_its_own(exporter, topics: Topics) -> None:
    exporter.until(lambda s: s["gripwire_service_up robot"] == 0)
    beat = Health(valid=True, service="robot", state="ready", counts={"commands": 3})
    with publishing(topics["health/robot"], beat.model_copy, 5.0):
        exporter.until(lambda s: s["gripwire_service_up robot"] == 1)
        own = exporter.samples("/metrics/robot")
        assert own["gripwire_service_events_total commands robot"] == 3
        assert not any("reward" in name for name in own)
    with pytest.raises(urllib.error.HTTPError, match="404") as unknown:
        exporter.get("/metrics/robbot")
    assert "/metrics/robot\n" in unknown.value.read().decode()


def test_a_port_in_use_is_one_sentence_with_the_remedy(gripwire) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = gripwire("metrics", "run", "--port", str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=WAIT_S)
    assert (
        process.returncode == 1
        and "choose another with --port" in json.loads(err.splitlines()[-1])["message"]
    )


def test_it_ends_in_order(exporter: Exporter) -> None:
    exporter.until(lambda s: s["gripwire_service_up metrics"] == 1)
    exporter.process.send_signal(signal.SIGTERM)
    _, err = exporter.process.communicate(timeout=WAIT_S)
    assert exporter.process.returncode == 0 and "Traceback" not in err
