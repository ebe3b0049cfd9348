"""Real processes for the tests of the loop and the supervisor."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gripwire.bus import Queued
from gripwire.messages import Health
from gripwire.settings import Settings
from tests.helpers import ending
from tests.proto.rewards import Rewards

WAIT_S = 20.0


class Beats:
    """Follows one service's heartbeat."""

    def __init__(self, reader: Queued[Health]) -> None:
        self._reader = reader

    def until(self, what: str, condition: Callable[[Health], bool]) -> Health:
        """The first beat from now on that meets ``condition``."""
        deadline = time.monotonic() + WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            received = self._reader.receive(left)
            if received and condition(received.message):
                return received.message
        raise AssertionError(f"no heartbeat: {what}")

    def state(self, state: str) -> Health:
        return self.until(state, lambda beat: beat.state == state)


@pytest.fixture
def beats(topics) -> Iterator[Beats]:
    """The heartbeat of the service `robot`, whose name the tests' own services borrow."""
    with Queued(topics["health/robot"], Health) as reader:
        yield Beats(reader)


@pytest.fixture
def rewards(stack: Settings) -> Iterator[Rewards]:
    """What a reward service would publish."""
    made = Rewards(stack)
    yield made
    made.publisher.close()


@pytest.fixture
def environment(tmp_path: Path, port_base: int) -> dict[str, str]:
    """The caller's environment with a stack of its own and nothing of the caller's stack."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    return env | {"GRIPWIRE_DATA": str(tmp_path / "data"), "GRIPWIRE_PORT_BASE": str(port_base)}


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(tmp_path: Path, environment: dict[str, str]) -> Iterator[Launch]:
    """Start a Python script; whatever still runs at the end is killed."""
    with ending() as started:

        def start(script: Path, *arguments: object, **how: object) -> subprocess.Popen[str]:
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            process = subprocess.Popen(
                [sys.executable, script, *map(str, arguments)],
                **({"env": environment, "cwd": tmp_path, "text": True} | pipes | how),
            )
            started.append(process)
            return process

        yield start
