"""Endpoints that are not ZeroMQ with keys stay on loopback, whatever else is bound."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_port_base
from tests.helpers import ending, until
from tests.security.conftest import Machine

WAIT_S = 60.0
LOOPBACK, EVERYWHERE = "0100007F", "00000000"

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="listeners are read from /proc")


def _listeners(port: int) -> set[str]:
    """The addresses, as the kernel writes them, at which this port is listened on."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        fields[1].split(":")[0] for fields in lines if fields[3] == "0A" and int(fields[1][-4:], 16) == port
    }


@pytest.mark.parametrize(
    "command",
    [
        ["camera", "run", "--source", "http://127.0.0.1:1/", "--lerobot-port"],
        ["reward", "preview", "--where", "page", "--port"],
    ],
    ids=["lerobots format", "preview"],
)
def test_what_knows_no_keys_listens_on_loopback_alone(machine: Machine, command: list[str]) -> None:
    stack = machine("robot-pc", bind="0.0.0.0")
    port = free_port_base()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")} | stack.environment()
    with ending() as started:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "gripwire", *command, str(port)], env=environment, cwd=stack.data,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        until(lambda: _listeners(port) or started[0].poll() is not None, "it listens, or ends")
        assert _listeners(port) == {LOOPBACK}
        if command[0] == "camera":  # and its topic, which has keys, is there for all
            assert _listeners(stack.topics["camera/gripper_cam"].port) == {EVERYWHERE}


def test_the_search_finds_what_listens_everywhere() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert _listeners(server.getsockname()[1]) == {EVERYWHERE}
