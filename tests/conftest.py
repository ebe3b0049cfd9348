"""Shared fixtures: a stack of its own for each test, on ports nobody else uses."""

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire import settings
from gripwire.settings import Settings
from gripwire.topics import PORT_SPAN, Topics


def free_port_base() -> int:
    """The first of PORT_SPAN consecutive ports that nothing listens on now."""
    # Below the kernel's ephemeral range; every parallel worker of the test run has a share of its own.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    while True:
        base = 15000 + 4000 * worker + random.SystemRandom().randrange(4000 - PORT_SPAN)
        if all(_is_free(base + offset) for offset in range(PORT_SPAN)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.fixture
def port_base() -> int:
    return free_port_base()


@pytest.fixture
def topics(port_base: int) -> Topics:
    return Topics(port_base)


@pytest.fixture
def stack(tmp_path: Path, port_base: int) -> Iterator[Settings]:
    """Settings of a stack with its own data folder and ports, untouched by the caller's environment."""
    yield settings.load(flags={"data": tmp_path / "data", "port_base": port_base}, env={})
