"""`[trainer] run_in = "container"`: the trainer service here, each training in a container of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire import containers, settings
from gripwire.messages import Train
from gripwire.settings import Settings
from gripwire_reward import bundle
from gripwire_trainer.contained import JOB
from tests.stack.project import Project, until
from tests.trainer import synthetic
from tests.trainer.synthetic import QUICK
from tests.trainer.test_trainer_service import Running

pytestmark = pytest.mark.timeout(2400)  # the images are built by the first test


@pytest.fixture
def here(project: Project, tmp_path: Path, port_base: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a trainer on this machine, with twelve labelled episodes in its data folder."""
    if "DOCKER_HOST" in project.environment:
        monkeypatch.setenv("DOCKER_HOST", project.environment["DOCKER_HOST"])
    containers.engine.cache_clear()
    made = synthetic.episodes(12)
    data = tmp_path / "data"
    folder = synthetic.write_v21(data / "datasets/set", [shown for shown, _ in made])
    synthetic.write_labels(data / "labels", folder, [start for _, start in made])
    flags = {"data": data, "port_base": port_base, "trainer.run_in": "container"}
    return settings.load(flags=flags | {"trainer.image": "gripwire/trainer:test"}, env={})


@pytest.fixture
def running(here: Settings) -> Iterator[Running]:
    made = Running(here)
    yield made
    made.close()


def train(running: Running, **options: Any) -> None:
    running.service.commands[Train](Train(labels="labels", options=QUICK.model_dump() | options))


def jobs(project: Project, here: Settings) -> list[Any]:
    return list(project.engine.containers.list(all=True, filters={"label": f"{JOB}={here.data}"}))


def test_it_trains_in_a_container_offers_from_here_and_leaves_nothing(
    project: Project, here: Settings, running: Running
) -> None:
    train(running, epochs=5)
    end = running.until_done()
    assert end.error == "" and running.offered == [end.bundle]
    assert bundle.load(here.data / "bundles" / end.bundle).id == end.bundle
    assert end.metrics["frame_accuracy"] > 0.5 and "train" in end.seconds
    assert len({state.stage for state in running.said}) > 2
    assert jobs(project, here) == []
    owner = (here.data / "bundles" / end.bundle / "model.onnx").stat().st_uid
    assert owner == os.getuid()


def test_the_container_has_no_network_and_no_rights(
    project: Project, here: Settings, running: Running
) -> None:
    train(running, epochs=400)
    until(lambda: jobs(project, here), 60, "a container")
    config = jobs(project, here)[0].attrs["HostConfig"]
    assert config["NetworkMode"] == "none"
    assert config["ReadonlyRootfs"] and config["CapDrop"] == ["ALL"]
    assert [mount["Destination"] for mount in jobs(project, here)[0].attrs["Mounts"]] == [str(here.data)]


def test_a_container_that_is_killed_is_a_failed_training_and_the_next_one_works(
    project: Project, here: Settings, running: Running
) -> None:
    train(running, epochs=400)
    until(lambda: jobs(project, here), 60, "a container")
    jobs(project, here)[0].kill()
    end = running.until_done()
    assert "the training's container died (exit code 137)" in end.error
    running.said.clear()
    train(running, epochs=2)
    assert running.until_done().error == ""


def test_a_service_that_ends_takes_its_training_with_it(
    project: Project, here: Settings, running: Running
) -> None:
    train(running, epochs=400)
    until(lambda: jobs(project, here), 60, "a container")
    running.service.close(False)
    assert jobs(project, here) == []


def test_what_a_killed_service_left_running_is_removed_at_the_next_start(
    project: Project, here: Settings
) -> None:
    project.engine.containers.run(
        "gripwire/trainer:test", ["-c", "sleep 600"], entrypoint=["sh"], detach=True,
        labels={JOB: str(here.data)}, network_mode="none",
    )  # fmt: skip
    Running(here).close()
    assert jobs(project, here) == []


def test_bad_labels_are_told_in_the_words_of_the_job(here: Settings, running: Running) -> None:
    synthetic.write_labels(here.data / "labels", here.data / "datasets/set", [99] + [None] * 11)
    train(running)
    assert "beyond the episode" in running.until_done().error


def test_an_image_that_there_is_not_is_named(here: Settings, running: Running) -> None:
    running.service._settings = running.service._settings.model_copy(update={"image": "gripwire/none"})
    train(running)
    assert (
        "there is no image gripwire/none here: `docker compose build trainer`" in running.until_done().error
    )
