"""A running bench for LeRobot's own tools: simulated devices, and the real services before them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire import control, settings
from gripwire.bus import Latest
from gripwire.messages import JOINTS, Command, Fault, Health, MoveLeader, RobotAction, RobotState
from gripwire.settings import Settings
from tests.conftest import free_port_base
from tests.helpers import wait_for, wait_for_health

UP = ("up", "--profile", "sim", "--no-reward", "--no-recorder", "--no-trainer")


class Running:
    """The bench, and what a person does at it."""

    def __init__(self, stack: Settings, folder: Path) -> None:
        self.stack, self.port_base, self.folder = stack, stack.bus.port_base, folder
        self.states = Latest(stack.topics["robot/state"], RobotState)
        self.actions = Latest(stack.topics["robot/action"], RobotAction)

    def ask(self, service: str, command: Command) -> Any:
        return control.request(self.stack.topics.control(service), service, command)

    def move_leader(self, seconds: float = 0.5, **position: float) -> None:
        self.ask("sim", MoveLeader(position=position, seconds=seconds))

    def fault(self, what: str, joint: str = "") -> None:
        self.ask("sim", Fault(what=what, joint=joint))

    def state(self) -> RobotState:
        return wait_for(self.states, lambda s: s.valid)

    def until_it_raises(self, what: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Call it at every state that comes, as LeRobot's loops call at every turn."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            what()
            self.states.wait(1.0, after=self.states.get())

    def until(self, what: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Ask at every state that comes, until it is so."""
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, "it never came true"
            self.states.wait(1.0, after=self.states.get())

    def here(self) -> dict[str, float]:
        """Where the arm is, as LeRobot names it."""
        return {f"{joint}.pos": at for joint, at in self.state().position.items()}


def _environment(folder: Path) -> dict[str, str]:
    mine = {"GRIPWIRE_CONFIG": "", "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(folder / "lerobot")}
    return {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")} | mine


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bench")
    stack = settings.load(flags={"data": folder / "data", "port_base": free_port_base()}, env={})
    where = ("--port-base", str(stack.bus.port_base), "--data", str(stack.data))
    log = (folder / "up.log").open("wb")
    up = subprocess.Popen(
        [sys.executable, "-m", "gripwire", *UP, *where],
        cwd=folder, env=_environment(folder), stderr=log, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for service in ("robot", "camera/gripper_cam"):
            with Latest(stack.topics[f"health/{service}"], Health) as health:
                wait_for_health(health, lambda h: h.state in ("ready", "degraded"))
        running = Running(stack, folder)
        running.state()
        yield running
        running.states.close()
        running.actions.close()
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(40)
        finally:
            up.kill()
            log.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The plug-ins find the stack by what the test gives them, and nothing is written to anybody's home."""
    for name in [name for name in os.environ if name.startswith("GRIPWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mended(bench: Running) -> Iterator[Running]:
    """The bench; what the test breaks is mended afterwards."""
    yield bench
    bench.fault("clear")
    wait_for(bench.states, lambda s: s.valid and set(s.position) == set(JOINTS))
