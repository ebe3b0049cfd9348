"""`gripwire reward ...` as it is typed, against the real service."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from gripwire.bus import Latest
from gripwire.messages import ModelState
from gripwire.settings import Settings
from tests.helpers import ending, run_here, wait_for
from tests.reward import tiny

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(stack: Settings) -> Iterator[Latest[ModelState]]:
    """The real service, and what it says of its model."""
    stack.data.mkdir(parents=True)
    with ending() as started, Latest(stack.topics["model"], ModelState) as reader:
        command = [sys.executable, "-m", "gripwire", "reward", "run"]
        env = os.environ | stack.environment() | {"GRIPWIRE_REWARD__SHADOW_S": "0"}
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, text=True))
        assert reader.wait(30.0)
        yield reader


@pytest.fixture
def typed(stack: Settings, capsys: pytest.CaptureFixture[str]) -> Typed:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = run_here(["reward", *arguments], stack.environment(), capsys)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_hold_from_the_command_line_makes_swaps_wait_until_it_is_let_go(
    stack: Settings, model: Latest[ModelState], typed: Typed
) -> None:
    first, second = (tiny.make(stack.data / "bundles", gain=gain).id for gain in (8.0, 9.0))
    assert typed("swap", first)[:2] == (0, f"serving {first}, epoch 1 (before: none)\n")
    code, out, _ = typed("freeze", "--by", "run 3", "--lease", "600")
    assert code == 0 and first in out and "held by run 3 for 600 s" in out
    code, out, _ = typed("swap", second)
    assert code == 0 and out.startswith(f"{second} waits: the model is held by run 3")
    code, out, err = typed("rollback")
    assert code == 1 and "--force" in err and err.count("\n") == 1
    code, out, _ = typed("status")
    assert code == 1 and "held      by run 3" in out and f"waiting   {second}" in out
    assert typed("thaw", "--by", "run 4")[0] == 1
    assert typed("thaw", "--by", "run 3")[0] == 0
    wait_for(model, lambda m: m.serving == second)


def test_overrides_are_set_shown_and_cleared(
    stack: Settings, model: Latest[ModelState], typed: Typed
) -> None:
    typed("swap", tiny.make(stack.data / "bundles").id)
    assert typed("override", "--threshold", "0.8", "--gate", "5 < gripper < 60", "--latch")[0] == 0
    said = wait_for(model, lambda m: m.epoch == 2)
    assert said.overrides == {"threshold": 0.8, "gate": "5 < gripper < 60", "latch": True}
    assert "overrides threshold = 0.8" in typed("status")[1]
    code, _, err = typed("override", "--gate", "griper > 3")
    assert code == 1 and "character 1" in err and err.count("\n") == 1
    assert typed("override", "--clear")[0] == 0
    wait_for(model, lambda m: m.epoch == 3 and m.overrides == {})
