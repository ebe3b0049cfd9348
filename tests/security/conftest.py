"""Machines with keys of their own, in one process: each is a data folder."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire import keys, settings
from gripwire.control import Server
from gripwire.messages import Command, Reply
from gripwire.settings import Settings

WAIT_S = 15.0

Machine = Callable[..., Settings]


@pytest.fixture
def machine(tmp_path: Path, port_base: int) -> Machine:
    """Settings of a machine by its name: a data folder of its own, with keys, on the same ports."""

    def make(name: str, with_keys: bool = True, **flags: Any) -> Settings:
        data = tmp_path / name
        if with_keys and keys.load(data / settings.KEYS) is None:
            keys.create(data / settings.KEYS)
        dotted = {key.replace("__", "."): value for key, value in flags.items()}
        return settings.load(flags={"data": data, "port_base": port_base, **dotted}, env={})

    return make


@pytest.fixture
def robot_pc(machine: Machine) -> Settings:
    return machine("robot-pc")


def acquaint(here: Settings, there: Settings, *roles: str, name: str = "laptop") -> None:
    """As `gripwire keys allow` on both: ``there`` gets ``roles`` here and expects our key at loopback."""
    assert here.keys and there.keys
    keys.allow(here.keys, name, there.keys.public, tuple(roles))  # type: ignore[arg-type]
    keys.allow(there.keys, "robot-pc", here.keys.public, ("watch",), host="127.0.0.1")


class Serving:
    """A control endpoint polled by a thread, as a service's loop does; it remembers what reached it."""

    def __init__(self, endpoint: str, replies: dict[type[Command], Reply]) -> None:
        self.handled: list[Command] = []
        self._replies = replies
        self.server = Server(endpoint, dict.fromkeys(replies, self._handle))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _handle(self, command: Any) -> Reply:
        self.handled.append(command)
        return self._replies[type(command)]

    def _run(self) -> None:
        while not self._end.is_set():
            self.server.poll(0.02)
        self.server.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


Serve = Callable[..., Serving]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer commands at an endpoint: ``serve(endpoint, {Hold: Done()})``."""
    started: list[Serving] = []

    def start(endpoint: str, replies: dict[type[Command], Reply]) -> Serving:
        started.append(Serving(endpoint, replies))
        return started[-1]

    yield start
    for one in started:
        one.close()
