"""`docker compose --profile sim up`, as a user has it: the images, the stack, the demo from outside, and each
container killed once. The tests go on from each other, in order."""

import json
import os
import pty
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import zmq

from gripwire import settings
from gripwire.bus import Latest
from gripwire.messages import Health, Reward
from gripwire.topics import Topics
from tests.helpers import wait_for
from tests.stack.project import SIM, UID, Project, until

pytestmark = pytest.mark.timeout(2400)  # the images are built by the first test

SERVICES = {
    "camera-sim": "camera/gripper_cam", "robot-sim": "robot", "reward": "reward", "recorder": "recorder",
    "trainer": "trainer", "capsule": "capsule", "sim": "sim",
}  # fmt: skip
"""Compose's service to the bus's."""


@pytest.fixture(scope="module")
def up(project: Project) -> Project:
    project.compose("up", "--detach", "--no-build")
    return project


@pytest.fixture
def topics(up: Project) -> Topics:
    """As a client on the host sees the stack: its ports on loopback, the data folder's keys."""
    return settings.load(flags={"data": up.data, "port_base": up.port_base}, env={}).topics


def works(topics: Topics, service: str, timeout_s: float = 180) -> Health:
    reader = Latest(topics[f"health/{service}"], Health)
    try:
        return wait_for(reader, lambda beat: beat.state in ("ready", "degraded"), timeout_s)
    finally:
        reader.close()


def imports(project: Project, image: str, module: str) -> bool:
    from docker.errors import ContainerError

    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    client = project.engine
    try:
        client.containers.run(
            f"gripwire/{image}:test", ["-c", code], entrypoint=["python"], remove=True, network_mode="none"
        )
    except ContainerError:
        return False
    return True


def test_the_images_hold_what_their_service_imports_and_no_pytorch_for_camera_robot_and_reward(
    project: Project,
) -> None:
    sizes = {t: project.engine.images.get(f"gripwire/{t}:test").attrs["Size"] / 1e6 for t in SIM}
    print(" ".join(f"{target} {mb:.0f} MB" for target, mb in sizes.items()))
    for image in ("core", "camera", "robot-sim", "reward", "sim"):
        assert not imports(project, image, "torch"), image
    for image in ("recorder", "trainer"):
        assert imports(project, image, "torch"), image
    assert not imports(project, "camera", "lerobot")
    assert imports(project, "robot-sim", "lerobot")


def test_no_image_brings_what_built_it(project: Project) -> None:
    for target in SIM:
        found = project.engine.containers.run(
            f"gripwire/{target}:test",
            ["-c", "command -v uv gcc git; find / -xdev -name '*.whl' -o -name .git"],
            entrypoint=["sh"], remove=True, user="0", network_mode="none",
        )  # fmt: skip
        bundled = [line for line in found.decode().splitlines() if "/ensurepip/" not in line]
        assert bundled == [], target


def test_the_first_up_makes_keys_that_are_yours_alone(up: Project) -> None:
    key = up.data / "keys" / "machine.key"
    until(key.exists, 60, "the keys service makes a key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_uid == UID


def test_every_service_comes_up(up: Project, topics: Topics) -> None:
    for service in SERVICES.values():
        works(topics, service)


def test_every_container_says_that_it_is_healthy(up: Project) -> None:
    def sick() -> dict[str, str]:
        said = {c: up.container(c).attrs["State"]["Health"]["Status"] for c in SERVICES}
        return {c: status for c, status in said.items() if status != "healthy"}

    until(lambda: not sick(), 240, "all healthy")


def test_prometheus_finds_every_service_where_metrics_are_asked_for(up: Project) -> None:
    up.compose("--profile", "metrics", "up", "--detach", "--no-build", "metrics")
    url = f"http://127.0.0.1:{up.environment['METRICS_PORT']}/metrics"

    def silent() -> set[str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                said = answer.read().decode()
        except OSError:
            return set(SERVICES.values())
        return {s for s in SERVICES.values() if f'gripwire_service_up{{service="{s}"}} 1.0' not in said}

    until(lambda: not silent(), 120, "all services are up in the metrics")
    up.compose("--profile", "metrics", "rm", "--stop", "--force", "metrics")


def test_ports_are_published_on_loopback_only(up: Project) -> None:
    for container in SERVICES:
        published = up.container(container).attrs["NetworkSettings"]["Ports"]
        addresses = {where["HostIp"] for places in published.values() for where in places or ()}
        assert addresses == {"127.0.0.1"}, container


def test_a_service_has_no_rights_and_nothing_to_write_to_but_data_and_tmp(
    up: Project, topics: Topics
) -> None:
    for name, service in SERVICES.items():
        works(topics, service)  # one that was just started anew cannot be looked into
        container = up.container(name)
        status = container.exec_run(["cat", "/proc/self/status"]).output.decode()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert facts["Uid"].split()[0] == str(UID), name
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, name
        assert facts["NoNewPrivs"] == "1", name
        assert container.exec_run(["touch", "/usr/here"]).exit_code != 0, name
        assert container.exec_run(["touch", "/tmp/here"]).exit_code == 0, name


def test_the_logs_are_bounded(up: Project) -> None:
    for name in SERVICES:
        config = up.container(name).attrs["HostConfig"]["LogConfig"]["Config"]
        assert config == {"max-size": "10m", "max-file": "3"}, name


def test_whoever_has_no_key_hears_nothing(up: Project, topics: Topics) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.SUBSCRIBE, b"")
        stranger.connect(f"tcp://127.0.0.1:{topics['robot/state'].port}")
        assert not stranger.poll(3000)
    works(topics, "robot")


def test_the_serial_line_is_closed_to_the_other_containers(up: Project) -> None:
    assert up.container("robot-sim").exec_run(["test", "-e", "/cables/follower"]).exit_code == 0
    for other in ("camera-sim", "reward", "recorder", "trainer"):
        assert up.container(other).exec_run(["test", "-e", "/cables"]).exit_code != 0, other


def test_the_demo_s_line_runs_against_it_from_outside(up: Project, tmp_path: Path) -> None:
    done = up.gripwire(
        "demo", "--running", "--out", str(tmp_path / "out"), "--episodes", "6", "--fresh", "2", "--seed", "3",
        timeout_s=600,
    )  # fmt: skip
    logs = up.compose("logs", "--tail", "30", check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}\n{logs[-6000:]}"
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["frames"] > 200
    assert summary["accuracy"] > summary["always_fail_accuracy"]
    assert summary["double_ticks"] == 0


def test_what_it_made_belongs_to_the_user(up: Project) -> None:
    owners = {path.stat().st_uid for path in (up.data / "datasets").rglob("*")}
    owners |= {path.stat().st_uid for path in (up.data / "bundles").rglob("*")}
    assert owners == {UID}


def test_stack_status_shows_every_service(up: Project, topics: Topics) -> None:
    for service in SERVICES.values():
        works(topics, service)
    done = up.gripwire("stack", "status", "--project", up.name, "--json")
    rows = {row["service"]: row for row in json.loads(done.stdout.splitlines()[-1])}
    assert set(SERVICES.values()) <= rows.keys()
    assert all(rows[service]["state"] == "running" for service in SERVICES.values())
    assert rows["keys"]["says"] == "exit code 0"
    table = up.gripwire("stack", "status", "--project", up.name).stdout
    assert "camera/gripper_cam" in table


def test_stack_logs_prints_what_a_service_wrote(up: Project) -> None:
    done = up.gripwire("stack", "logs", "camera", "-n", "500", "--project", up.name)
    assert "ready" in done.stdout
    unknown = up.gripwire("stack", "logs", "camra", "--project", up.name)
    assert unknown.returncode == 1
    assert "no container of the service `camra`; there are: camera/gripper_cam" in unknown.stderr


def test_stack_restart_ends_a_service_cleanly_and_starts_it_again(up: Project, topics: Topics) -> None:
    before = works(topics, "camera/gripper_cam").boot
    done = up.gripwire("stack", "restart", "camera", "--project", up.name)
    assert done.returncode == 0, done.stderr
    reader = Latest(topics["health/camera/gripper_cam"], Health)
    wait_for(reader, lambda beat: beat.boot != before and beat.state == "ready", 120)
    reader.close()


def test_stack_shell_is_a_shell_in_the_container(up: Project) -> None:
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-m", "gripwire", "stack", "shell", "camera", "--project", up.name],
        env=up.environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"echo $((6*7)) $(id -u) answered; exit\n")
    seen = b""
    while f"42 {UID} answered".encode() not in seen:
        chunk = os.read(master, 4096)
        assert chunk, seen
        seen += chunk
    shell.wait(timeout=30)
    os.close(master)


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_container_comes_back_healthy(up: Project, topics: Topics, name: str) -> None:
    container, service = up.container(name), SERVICES[name]
    before = works(topics, service).boot
    # From inside and all of it: after `docker kill` the engine takes it that the container shall stay dead.
    container.exec_run(["bash", "-c", "kill -KILL -1"])
    reader = Latest(topics[f"health/{service}"], Health)
    wait_for(reader, lambda beat: beat.boot != before and beat.state in ("ready", "degraded"), 180)
    reader.close()
    until(lambda: _health(up, name) == "healthy", 180, f"{name} is healthy again")
    assert up.container(name).attrs["RestartCount"] >= 1


def test_a_robot_service_that_is_killed_in_its_container_leaves_no_torque(
    up: Project, topics: Topics
) -> None:
    before, container = works(topics, "robot"), up.container("robot-sim")
    container.exec_run(["bash", "-c", f"kill -KILL {before.pid}"])  # it alone, as for its memory
    reader = Latest(topics["health/robot"], Health)
    wait_for(reader, lambda beat: beat.boot != before.boot and beat.state in ("ready", "degraded"), 180)
    reader.close()
    assert "died without a word: torque is off at all motors" in container.logs(tail=200).decode()


def _health(project: Project, name: str) -> str:
    return str(project.container(name).attrs["State"]["Health"]["Status"])


def test_after_all_that_the_arm_goes_to_its_start_and_the_reward_is_valid_again(
    up: Project, topics: Topics
) -> None:
    # A bench that was started anew has its arm elsewhere, where the demo's small model has seen nothing.
    reset = up.gripwire("robot", "reset", "--seconds", "2")
    assert reset.returncode == 0, reset.stderr
    reader = Latest(topics["reward"], Reward)
    wait_for(reader, lambda reward: reward.valid, 180)
    reader.close()


def test_down_leaves_nothing(up: Project) -> None:
    seconds = up.compose("down", "--volumes")
    label = {"label": f"com.docker.compose.project={up.name}"}
    client: Any = up.engine
    left = [*client.containers.list(all=True, filters=label), *client.networks.list(filters=label)]
    left += client.volumes.list(filters=label)
    assert left == [], seconds
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", up.port_base + 3)) != 0
