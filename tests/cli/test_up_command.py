"""`gripwire up` refuses what cannot work, in one sentence, before it starts anything."""

import subprocess
from pathlib import Path

import pytest

from gripwire import __version__
from gripwire.bus import Publisher
from gripwire.control import Server
from gripwire.topics import Topics

WAIT_S = 30.0


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


@pytest.mark.parametrize("taken", ["robot/state", "control of the camera"])
def test_up_refuses_a_taken_port_and_starts_nothing(
    gripwire, topics: Topics, tmp_path: Path, taken: str
) -> None:
    endpoint = topics.control("camera/gripper_cam")
    holder = Publisher(topics[taken]) if taken in topics else Server(endpoint, {})
    code, out, err = _end(gripwire("up"))
    holder.close()
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ") and "another process holds that port" in line and "--port-base" in line
    assert (topics[taken].endpoint if taken in topics else endpoint) in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "car"], "error: --profile car: there are `robot` and `sim`"),
        (
            ["--no-camera", "--no-robot", "--no-reward", "--no-recorder", "--no-trainer"],
            "error: nothing to run: every service is switched off or not installed",
        ),
        (
            ["--port-base", "80"],
            "error: --port-base: `port_base`: input should be greater than or equal to 1024",
        ),
        (
            ["--config", "none.toml"],
            "error: none.toml: no such settings file; leave --config away to use defaults",
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
