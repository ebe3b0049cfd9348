"""Who talks to whom, by what heartbeats say."""

import time
from collections.abc import Iterator

import pytest

from gripwire.bus import Latest, Queued
from gripwire.cli.graph import look
from gripwire.graph import OTHERS, Edge, draw, to_dot, to_mermaid
from gripwire.messages import Health, ModelState, Reward, RobotAction
from gripwire.service import Heartbeat, Runtime
from gripwire.settings import Settings
from gripwire.topics import Topics
from tests.helpers import wait_for_health

TOPICS = Topics(7600)


def _beat(service: str, seconds: float = 1.0, **changes: object) -> Health:
    return Health(service=service, state="ready", uptime_s=seconds, **changes)  # type: ignore[arg-type]


def _camera(readers: int) -> list[Health]:
    return [_beat("camera/gripper_cam", subscribers={"camera/gripper_cam": readers})]


def test_readers_are_named_with_the_rate_at_which_they_take_and_others_are_counted() -> None:
    reward = [_beat("reward", s, reads={"camera/gripper_cam": n}) for s, n in ((10.0, 300), (12.0, 360))]
    graph = draw(TOPICS, {"camera/gripper_cam": _camera(4), "reward": reward}, {}, {"camera/gripper_cam": 1})
    assert graph.edges == [
        Edge("camera/gripper_cam", "camera/gripper_cam", "reward", rate_hz=30.0),
        Edge("camera/gripper_cam", "camera/gripper_cam", OTHERS, 2),  # four, less the reward and who looks
    ]


def test_who_waits_for_a_topic_that_nobody_publishes_is_told() -> None:
    graph = draw(TOPICS, {"reward": [_beat("reward", reads={"camera/gripper_cam": 0})]}, {}, {})
    (edge,) = graph.edges
    assert edge.silent and edge.publisher == "camera/gripper_cam"
    assert "-.->" in to_mermaid(graph) and "style=dashed" in to_dot(graph)
    assert '"camera/gripper_cam" [label="camera/gripper_cam (silent)"]' in to_dot(graph)


def test_what_every_service_reads_for_its_logs_is_no_outsider() -> None:
    beats = {name: [_beat(name)] for name in ("robot", "recorder")}
    beats["reward"] = [_beat("reward", subscribers={"model": 3, "reward": 0})]
    graph = draw(TOPICS, beats, {}, {})
    assert graph.edges == [Edge("model", "reward", OTHERS, 1)]


def test_who_drives_and_who_holds_the_model_is_said() -> None:
    latest = {
        "robot/action": RobotAction(position={}, driver="train-7"),
        "model": ModelState(frozen_by="run 3"),
    }
    graph = draw(TOPICS, {}, latest, {})
    assert (graph.driver, graph.frozen_by) == ("train-7", "run 3")


@pytest.fixture
def runtimes(stack: Settings) -> Iterator[dict[str, Runtime]]:
    """Two services that beat: one publishes rewards, the other reads them."""
    found = {name: Runtime(name, stack) for name in ("reward", "recorder")}
    beating = [Heartbeat(runtime) for runtime in found.values()]
    yield found
    for runtime in found.values():
        runtime.close()
    for heartbeat in beating:
        heartbeat.close()


def test_a_live_heartbeat_says_what_its_service_reads_who_reads_it_and_what_it_uses(
    runtimes: dict[str, Runtime], stack: Settings
) -> None:
    publisher = runtimes["reward"].publisher("reward")
    reader = runtimes["recorder"].queued("reward", Reward)
    assert publisher.wait_for_subscriber(20)
    publisher.publish(Reward())
    assert reader.receive(20)
    with Latest(stack.topics["health/recorder"], Health) as beats:
        beat = wait_for_health(beats, lambda h: h.reads == {"reward": 1})
    assert beat.rss_mb > 1 and beat.threads >= 1 and beat.cpu_percent >= 0
    with Queued(stack.topics["reward"], Reward), Latest(stack.topics["health/reward"], Health) as beats:
        wait_for_health(beats, lambda h: h.subscribers.get("reward") == 2)
        deadline = time.monotonic() + 20
        while (edges := look(stack).readers("reward")) != [
            Edge("reward", "reward", "recorder", rate_hz=edges[0].rate_hz),
            Edge("reward", "reward", OTHERS, 1),
        ]:
            assert time.monotonic() < deadline, edges
    with Latest(stack.topics["health/reward"], Health) as beats:  # and whoever leaves is no longer counted
        wait_for_health(beats, lambda h: h.subscribers.get("reward") == 1)
