"""The trainer as a service: it trains on request, tells how it goes, and offers what came out."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire.bus import Queued
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import Done, Offer, Reply, Train, TrainerState
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_reward import bundle
from gripwire_trainer.service import TrainerService
from tests.trainer import synthetic
from tests.trainer.synthetic import QUICK

WAIT_S = 100.0


class Running:
    """The trainer service driven tick by tick, with a stand-in at the reward service's control endpoint."""

    def __init__(self, settings: Settings) -> None:
        self.offered: list[str] = []
        self.refusal = ""
        self.runtime = Runtime("trainer", settings)
        self.service = TrainerService(self.runtime)
        self.states = Queued(settings.topics["trainer"], TrainerState)
        self.reward = Server(settings.topics.control("reward"), {Offer: self._offer})
        assert self.service._publisher.wait_for_subscriber(WAIT_S)
        self.service.setup()
        self.said: list[TrainerState] = []

    def _offer(self, offer: Offer) -> Reply:
        self.offered.append(offer.bundle)
        if self.refusal:
            raise UserError(self.refusal)
        return Done()

    def until_done(self) -> TrainerState:
        deadline = time.monotonic() + WAIT_S
        while not (self.said and self.said[-1].done):
            assert time.monotonic() < deadline, self.said[-1:]
            self.service.update()
            self.reward.poll(0.02)
            self.said += [r.message for r in self.states.drain()]
        return self.said[-1]

    def close(self) -> None:
        self.service.close(False)
        self.reward.close()
        self.states.close()
        self.runtime.close()


@pytest.fixture
def running(stack: Settings) -> Iterator[Running]:
    made = Running(stack)
    yield made
    made.close()


def _train(service: TrainerService, labels: str, **options: Any) -> Reply:
    return service.commands[Train](Train(labels=labels, options=QUICK.model_dump() | options))


def test_the_service_trains_tells_how_it_goes_and_offers(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    _train(running.service, "labels", epochs=5)
    with pytest.raises(UserError, match="under way"):
        _train(running.service, "labels")
    end = running.until_done()
    assert end.error == "" and running.offered == [end.bundle]
    assert bundle.load(stack.data / "bundles" / end.bundle).id == end.bundle
    assert end.metrics["frame_accuracy"] > 0.5 and "offer" in end.seconds


def test_a_bad_label_file_ends_the_job_and_not_the_service(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", coloured[0], [99] + [None] * 11)
    _train(running.service, "labels")
    end = running.until_done()
    assert "episode 0" in end.error and "beyond the episode" in end.error
    assert "beyond the episode" in running.runtime.problems and running.offered == []


def test_whoever_has_heard_of_the_end_may_order_the_next_at_once(
    coloured: tuple[Path, list[int | None]],
    stack: Settings,
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synthetic.write_labels(stack.data / "labels", coloured[0], [99] + [None] * 11)
    go_on = threading.Event()
    monkeypatch.setattr(running.runtime, "problem", lambda *_: go_on.wait(WAIT_S))  # the job's last act
    _train(running.service, "labels")
    running.until_done()
    threading.Timer(0.1, go_on.set).start()
    _train(running.service, "labels")


def test_a_refused_offer_and_a_dataset_that_fails_leave_the_bundles_name_in_the_state(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    (stack.data / "datasets").write_text("a file where the folder should be")
    running.refusal = "it squints"
    _train(running.service, "labels", epochs=2, views=1, build=True)
    end = running.until_done()
    assert bundle.load(stack.data / "bundles" / end.bundle).id == end.bundle
    assert end.stage == "failed" and end.metrics["frame_accuracy"] >= 0
    assert "it squints" in end.error and f"gripwire reward swap {end.bundle}" in end.error
    assert "the reward dataset was not built" in end.error


@pytest.mark.parametrize("option", [{"run_in": "container"}, {"image": "somebody/else"}])
def test_no_command_chooses_where_a_training_runs(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running, option: dict[str, str]
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    with pytest.raises(UserError, match="by its owner"):
        _train(running.service, "labels", **option)


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "none", "a" * 5000, "a\0b"])
def test_labels_are_named_never_given_as_a_path(running: Running, name: str) -> None:
    with pytest.raises(UserError, match="no such label file"):
        _train(running.service, name)


def test_an_unknown_option_is_named(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    with pytest.raises(UserError, match="epoch"):
        _train(running.service, "labels", epoch=3)
