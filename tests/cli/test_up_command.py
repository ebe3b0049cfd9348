"""`gripwire up` refuses what cannot work, in one sentence, before it starts anything."""

import subprocess
from pathlib import Path

import pytest

from gripwire import __version__
from gripwire.bus import Publisher
from gripwire.topics import Topics

WAIT_S = 30.0


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def test_up_refuses_a_taken_port_and_starts_nothing(gripwire, topics: Topics, tmp_path: Path) -> None:
    with Publisher(topics["robot/state"]):
        code, out, err = _end(gripwire("up"))
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(
        f"error: topic `robot/state` cannot use {topics['robot/state'].endpoint}: another process"
    )
    assert "--port-base" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "car"], "error: --profile car: there are `robot` and `sim`"),
        (
            [
                "--no-camera",
                "--no-robot",
                "--no-reward",
                "--no-recorder",
                "--no-trainer",
                "--no-capsule",
            ],
            "error: nothing to run: every service is switched off or not installed",
        ),
    ],
)
def test_up_says_in_one_sentence_what_it_cannot_do(gripwire, arguments: list[str], sentence: str) -> None:
    assert _end(gripwire("up", *arguments)) == (1, "", sentence + "\n")


def test_the_command_lists_its_verbs_and_knows_its_version(gripwire) -> None:
    code, out, _ = _end(gripwire("--help"))
    assert code == 0 and all(f" {verb} " in out for verb in ("up", "topics", "echo", "hz", "delay"))
    assert _end(gripwire("--version")) == (0, f"gripwire {__version__}\n", "")


def test_an_unknown_command_is_a_usage_error(gripwire) -> None:
    code, out, err = _end(gripwire("fly"))
    assert (code, out) == (2, "") and "No such command 'fly'" in err and "Traceback" not in err
