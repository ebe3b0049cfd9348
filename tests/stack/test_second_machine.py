"""docker-compose.trainer.yml as docs/compose.md has it. Two machines (each a data folder, keys and a compose
project) reach each other at published ports alone; a training that is asked for at the robot runs on the
other one, and its bundle serves at the robot."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gripwire import control, settings
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import Health, ModelState, Train, TrainerState
from gripwire.topics import Topics
from tests.helpers import wait_for
from tests.stack.project import UID, Project, until
from tests.trainer import synthetic

pytestmark = pytest.mark.timeout(2400)  # the images are built by the first test

FILES = ("docker-compose.yml", "docker-compose.trainer.yml")
LABELS = "second"


@pytest.fixture(scope="module")
def addresses(project: Project) -> Iterator[tuple[str, str]]:
    """Two addresses of this host that containers reach, as if each were a machine's in one network."""
    made, found = [], []
    try:
        for name in ("robot", "trainer"):
            made.append(project.engine.networks.create(f"{project.name}-{name}"))
            made[-1].reload()
            found.append(made[-1].attrs["IPAM"]["Config"][0]["Gateway"])
        yield found[0], found[1]
    finally:
        for network in made:
            network.remove()


def _machine(project: Project, folder: Path, name: str, **differs: Any) -> Project:
    data = folder / name / "data"
    data.mkdir(parents=True)
    os.chown(data, UID, UID)
    environment = project.environment | {"DATA": str(data)} | differs.pop("environment")
    return replace(project, data=data, name=f"{project.name}-{name}", environment=environment, **differs)


@pytest.fixture(scope="module")
def machines(
    project: Project, addresses: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Project, Project]]:
    """The robot's machine, of which only the reward service runs, and the trainer's. Both are up."""
    folder = tmp_path_factory.mktemp("two")
    robot_box, trainer_box = addresses
    names = {"ROBOT_BOX": robot_box, "TRAINER_BOX": trainer_box}
    robot = _machine(
        project, folder, "robot", profile="robot", files=FILES, environment=names | {"LAN": robot_box}
    )
    trainer = _machine(
        project, folder, "trainer", profile="trainer", files=(*FILES, "tests/stack/no_gpu.yml"),
        environment=names | {"LAN": trainer_box},
    )  # fmt: skip
    try:
        robot.compose("up", "--detach", "--no-build", "keys", "reward")
        trainer.compose("up", "--detach", "--no-build")
        yield robot, trainer
    finally:
        for machine in (robot, trainer):
            machine.compose("down", "--volumes", "--timeout", "30", check=False)


def _topics(machine: Project, **hosts: str) -> Topics:
    flags = {"data": machine.data, "port_base": machine.port_base}
    return settings.load(flags=flags | {f"hosts.{name}": at for name, at in hosts.items()}, env={}).topics


def _allow(machine: Project, name: str, other: Project, host: str) -> None:
    key = other.gripwire("keys", "show").stdout.strip()
    done = machine.gripwire("keys", "allow", name, key, "--role", "watch,train", "--host", host)
    assert done.returncode == 0, done.stderr


def test_the_trainers_machine_runs_the_trainer_alone(machines: tuple[Project, Project]) -> None:
    running = machines[1].compose("ps", "--services", "--status", "running").split()
    assert running == ["trainer-gpu"]


def test_nobody_gets_in_before_the_keys_are_exchanged(
    machines: tuple[Project, Project], addresses: tuple[str, str]
) -> None:
    robot, trainer = machines
    with Latest(_topics(trainer)["health/trainer"], Health) as beats:
        wait_for(beats, lambda beat: beat.state in ("ready", "degraded"), 120)
    with pytest.raises(UserError, match="key"):
        asked = _topics(robot, trainer=addresses[1]).control("trainer")
        control.request(asked, "trainer", Train(labels=LABELS), timeout_s=5)


def test_a_training_asked_for_at_the_robot_runs_there_and_its_bundle_serves_here(
    machines: tuple[Project, Project], addresses: tuple[str, str]
) -> None:
    robot, trainer = machines
    _allow(robot, "gpu-box", trainer, addresses[1])
    _allow(trainer, "robot-pc", robot, addresses[0])
    made = synthetic.episodes(12)
    synthetic.write_v21(trainer.data / "datasets/set", [shown for shown, _ in made])
    inside = Path("/data/datasets/set")
    synthetic.write_labels(trainer.data / "labels", inside, [start for _, start in made], LABELS)
    for path in (*trainer.data.glob("datasets"), *trainer.data.glob("labels")):
        os.chown(path, UID, UID)  # as what its user brings over

    from_here = _topics(robot, trainer=addresses[1])
    with (
        Latest(_topics(robot)["health/reward"], Health) as beats,
        Latest(from_here["trainer"], TrainerState) as progress,
        Latest(_topics(robot)["model"], ModelState) as model,
    ):
        wait_for(beats, lambda beat: beat.state in ("ready", "degraded"), 120)
        options = {"size": [64, 64], "views": 2, "epochs": 5, "build": False}
        command = Train(labels=LABELS, options=options)
        control.request(from_here.control("trainer"), "trainer", command, timeout_s=30)
        end = wait_for(progress, lambda state: state.done, 240)
        assert end.error == ""
        wait_for(model, lambda state: state.serving == end.bundle, 60)
    assert (robot.data / "bundles" / end.bundle / "model.onnx").stat().st_uid == UID


def test_a_training_in_the_trainers_terminal_offers_across(machines: tuple[Project, Project]) -> None:
    robot, trainer = machines
    command = ("gripwire", "trainer", "train", f"{LABELS}.json", "--offer", "--seed", "8", "--json")
    said = trainer.compose("exec", "-T", "trainer-gpu", *command)
    bundle = json.loads(next(line for line in said.splitlines() if line.startswith("{")))["bundle"]
    with Latest(_topics(robot)["model"], ModelState) as model:
        wait_for(model, lambda state: state.serving == bundle, 60)


def test_a_machine_that_is_revoked_asks_for_nothing_more(
    machines: tuple[Project, Project], addresses: tuple[str, str]
) -> None:
    robot, trainer = machines
    done = trainer.gripwire("keys", "revoke", "robot-pc")
    assert done.returncode == 0, done.stderr
    asked = _topics(robot, trainer=addresses[1]).control("trainer")

    def refused() -> bool:
        try:
            control.request(asked, "trainer", Train(labels="none"), timeout_s=5)
        except UserError as e:
            return "key" in str(e)
        return False

    until(refused, 30, "it is let in no more")
