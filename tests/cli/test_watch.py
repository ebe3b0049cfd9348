"""The screen of `gripwire topics --watch`."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from rich.console import Console

from gripwire import sockets, wire
from gripwire.bus import Publisher
from gripwire.cli.watch import Changes, screen
from gripwire.messages import Health, Reward
from gripwire.survey import Survey
from gripwire.topics import Topics


@pytest.fixture
def survey(topics: Topics) -> Iterator[Survey]:
    made = Survey(list(topics))
    yield made
    made.close()


def _drawn(survey: Survey, changes: Changes, topics: Topics, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(survey, survey.judge(), changes, topics, width, height))
    return capture.get().rstrip("\n").splitlines()


def _until(survey: Survey, changes: Changes, noted: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not noted():
        assert time.monotonic() < deadline, [(c.topic, c.text) for c in changes.noted]
        survey.listen(0.05)
        changes.look(survey, survey.judge())


def _texts(changes: Changes, topic: str) -> list[str]:
    return [change.text for change in changes.noted if change.topic == topic]


def test_it_fits_80_by_24_with_every_topic_and_service(survey: Survey, topics: Topics) -> None:
    for name in topics.services:
        survey.latest[f"health/{name}"] = Health(service=name, state="ready", problem="x" * 300)
    lines = _drawn(survey, Changes(0.0), topics)
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert all(
        any(line.startswith(f"{name} ") for line in lines) for name in ("reward", "camera/gripper_cam")
    )


@pytest.mark.parametrize("size", [(40, 10), (80, 12), (110, 50), (300, 100)])
def test_it_fits_whatever_the_terminal_is(survey: Survey, topics: Topics, size: tuple[int, int]) -> None:
    changes = Changes(0.0)
    with Publisher(topics["reward"]) as publisher:
        assert publisher.wait_for_subscriber(20)
        publisher.publish(Reward(reason="a long reason " * 20))
        _until(survey, changes, lambda: _texts(changes, "reward"))
    lines = _drawn(survey, changes, topics, *size)
    assert len(lines) <= size[1] and max(map(len, lines)) <= size[0]


def test_a_reason_is_read_to_its_end_below_the_tables(survey: Survey, topics: Topics) -> None:
    changes = Changes(0.0)
    reason = "camera gripper_cam sends the very same picture: check it, or unplug it and plug it in again"
    with Publisher(topics["reward"]) as publisher:
        assert publisher.wait_for_subscriber(20)
        publisher.publish(Reward(reason=reason))
        _until(survey, changes, lambda: _texts(changes, "reward"))
        text = " ".join(" ".join(_drawn(survey, changes, topics)).split())
    assert reason in text


def test_what_changed_is_noted_once_though_its_reason_counts_seconds(survey: Survey, topics: Topics) -> None:
    changes = Changes(0.0)
    with Publisher(topics["reward"]) as publisher:
        assert publisher.wait_for_subscriber(20)
        for seconds in range(20):
            publisher.publish(Reward(reason=f"no frame for {seconds / 10} s"))
            survey.listen(0.02)
            changes.look(survey, survey.judge())
    said = [text for text in _texts(changes, "reward") if text.startswith("not valid")]
    assert said and len(said) <= 2  # a busy machine may have lost and found it in between


def test_losses_restarts_and_refusals_are_noted(survey: Survey, topics: Topics) -> None:
    changes = Changes(0.0)
    health = topics["health/reward"]
    with Publisher(topics["reward"]) as publisher, sockets.context().socket(zmq.XPUB) as raw:
        raw.bind(health.binds)
        assert publisher.wait_for_subscriber(20) and raw.poll(20_000)

        def beat(boot: str, seq: int, **changes: Any) -> None:
            said = Health(service="reward", state="ready", pid=seq + 1, boot=boot, seq=seq, **changes)
            raw.send_multipart(wire.encode(health.name, said))

        publisher.publish(Reward())
        beat("one", 0)
        _until(survey, changes, lambda: health.name in survey.latest and "reward" in survey.latest)
        publisher.sent += 5
        publisher.publish(Reward())
        beat("two", 7, counts={"refused_commands": 3})
        raw.send_multipart([b"health/reward\0", b"nonsense"])
        _until(survey, changes, lambda: "5 messages lost on the way here" in _texts(changes, "reward"))
        _until(survey, changes, lambda: "started anew, now pid 8" in _texts(changes, health.name))
        _until(survey, changes, lambda: "3 commands that it refused" in _texts(changes, health.name))
        _until(survey, changes, lambda: any("refused here" in t for t in _texts(changes, health.name)))
    assert any("0 + 3 + 0" in line for line in _drawn(survey, changes, topics, width=120))


def test_no_more_than_the_last_changes_are_kept(survey: Survey) -> None:
    changes = Changes(0.0)
    for i in range(1000):
        changes.noted.extend(changes._grown("reward", "lost", i, "messages"))
    assert len(changes.noted) == changes.noted.maxlen
