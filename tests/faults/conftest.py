"""A whole stack on the virtual bench, as `gripwire up` runs it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gripwire import settings
from gripwire.messages import Health
from gripwire.settings import Settings
from gripwire.survey import Survey
from tests.conftest import free_port_base

SERVICES = ("sim", "camera/gripper_cam", "robot", "reward", "recorder", "trainer")


@dataclass
class Stack:
    """A running `gripwire up` and eyes on all of its topics."""

    settings: Settings
    process: subprocess.Popen[bytes]
    survey: Survey
    log: Path

    def health(self, service: str) -> Health | None:
        message = self.survey.latest.get(f"health/{service}")
        return message if isinstance(message, Health) else None

    def is_well(self, service: str) -> bool:
        """Ready; the reward service is degraded until it has a bundle, and works all the same."""
        health = self.health(service)
        return bool(health) and health.state in ("ready", *(["degraded"] * (service == "reward")))

    def until(self, condition, timeout_s: float, what: str) -> float:
        """Listen until ``condition()``; the seconds it took."""
        began = time.monotonic()
        while not condition():
            took = time.monotonic() - began
            assert took < timeout_s, f"{what}: not within {timeout_s} s\n{self.log.read_text()[-4000:]}"
            assert self.process.poll() is None, f"`gripwire up` ended\n{self.log.read_text()[-4000:]}"
            self.survey.listen(0.05)
        return time.monotonic() - began

    def fresh(self, topic: str, condition=lambda message: True):
        """A condition: a message on ``topic`` newer than now that satisfies ``condition``."""
        before = self.survey.latest.get(topic)
        seen = (before.boot, before.seq) if before else ("", -1)

        def arrived() -> bool:
            now = self.survey.latest.get(topic)
            return now is not None and (now.boot, now.seq) != seen and condition(now)

        return arrived


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    loaded = settings.load(flags={"data": folder / "data", "port_base": free_port_base()}, env={})
    log = folder / "up.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "up", "--profile", "sim"],
            env=os.environ | loaded.environment(), stderr=out, stdout=out,
        )  # fmt: skip
    survey = Survey(list(loaded.topics))
    stack = Stack(loaded, process, survey, log)
    try:
        stack.until(lambda: all(stack.is_well(s) for s in SERVICES), 120, "every service is ready")
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            survey.close()
