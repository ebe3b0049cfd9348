"""A Docker engine to test with: the one that runs here, or one started by hand and taken down again."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOM_GB = 25
"""What images, layers and build caches take, PyTorch with CUDA among them."""


def _answers(environment: dict[str, str]) -> bool:
    if not shutil.which("docker"):
        return False
    asked = subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=60)
    return asked.returncode == 0


@contextmanager
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `docker` finds an engine. Skips, and says why, where none can run."""
    here = dict(os.environ)
    if _answers(here):
        yield here
        return
    if shutil.which("dockerd") is None:
        pytest.skip(
            "no Docker engine answers, and there is no dockerd to start (Debian: apt install docker.io)"
        )
    if os.getuid() != 0:
        pytest.skip("no Docker engine answers, and only root can start one")
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < ROOM_GB:
        pytest.skip(f"{free_gb:.0f} GB are free in {folder}; images and their layers take {ROOM_GB}")
    with _by_hand(folder) as socket:
        yield here | {"DOCKER_HOST": f"unix://{socket}"}


@contextmanager
def _by_hand(folder: Path) -> Iterator[Path]:
    """dockerd as a child, everything of it below ``folder``; firewall and bridge are put back at the end."""
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    rules = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [
                "dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
                "--pidfile", str(folder / "pid"), "--host", f"unix://{socket}", "--log-level", "warn",
            ],
            stderr=stderr, stdout=stderr, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not _answers(dict(os.environ) | {"DOCKER_HOST": f"unix://{socket}"}):
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no engine can run here: {_last_words(log)}")
            time.sleep(0.2)
        yield socket
    finally:
        daemon.terminate()  # its containers and its containerd end with it
        daemon.wait(timeout=120)
        # It sets the FORWARD chain to DROP, and leaves its bridge.
        subprocess.run(["iptables-restore"], input=rules, check=True)
        subprocess.run(["ip", "link", "delete", "docker0"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "dockerd says nothing"
