"""`gripwire health`: what a container's health check runs."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gripwire.bus import Publisher
from gripwire.messages import Health
from gripwire.settings import Settings
from tests.helpers import run_here


@contextmanager
def beating(stack: Settings, state: str, problem: str = "") -> Iterator[None]:
    """A robot service whose heart says this."""
    over = threading.Event()
    beat = Health(valid=True, service="robot", state=state, problem=problem, pid=1)  # type: ignore[arg-type]

    def beat_on() -> None:
        publisher: Publisher[Health] = Publisher(stack.topics["health/robot"])
        while not over.wait(0.1):
            publisher.publish(beat)
        publisher.close()

    heart = threading.Thread(target=beat_on)
    heart.start()
    yield
    over.set()
    heart.join()


def ask(
    stack: Settings, capsys: pytest.CaptureFixture[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return run_here(["health", *arguments], stack.environment(), capsys)


def test_a_service_that_works_is_well(stack: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with beating(stack, "ready"):
        done = ask(stack, capsys, "robot", "--wait", "20")
    assert (done.returncode, done.stdout) == (0, "ready\n")


def test_one_that_works_with_a_problem_is_well_and_says_which(
    stack: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with beating(stack, "degraded", "no bundle yet"):
        done = ask(stack, capsys, "robot", "--wait", "20")
    assert (done.returncode, done.stdout) == (0, "degraded: no bundle yet\n")


def test_one_that_still_starts_is_not_well_yet(stack: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with beating(stack, "starting"):
        done = ask(stack, capsys, "robot", "--wait", "20")
    assert (done.returncode, done.stdout) == (1, "starting\n")


def test_silence_is_not_well_and_says_what_to_look_at(
    stack: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    done = ask(stack, capsys, "robot", "--wait", "0.3")
    assert done.returncode == 1
    assert "robot: no heartbeat within 0.3 s" in done.stderr


def test_a_service_that_there_is_not_is_named(stack: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    done = ask(stack, capsys, "robbot")
    assert done.returncode == 1
    assert "there is no service `robbot`" in done.stderr
