"""The loop that every service runs in, driven by a real small service in a process of its own."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gripwire import control
from gripwire.bus import Publisher
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import Command, Done, Hold, Release, Reset
from gripwire.topics import Topics

WAIT_S = 20.0

TINY = '''
"""A service that fails on command: Hold is a problem, Release mends it, Reset does what the mode says."""
import sys
from gripwire import service, settings
from gripwire.errors import UserError
from gripwire.messages import Done, Hold, Release, Reset

MODE = sys.argv[1]

class Tiny:
    rate_hz = 50.0

    def __init__(self, runtime):
        self.runtime, self.asked = runtime, False
        if MODE == "cannot build":
            raise UserError("no arm at /dev/null; plug it in")

    @property
    def commands(self):
        return {Hold: self.hold, Release: self.release, Reset: self.reset}

    def hold(self, _):
        self.runtime.problem("heat", "the elbow is hot; let it rest")
        return Done(text="held")

    def release(self, _):
        self.runtime.problem("heat")
        return Done()

    def reset(self, _):
        self.asked = True
        return Done()

    def setup(self):
        if MODE == "slow":
            sys.stdin.readline()
        if MODE == "cannot set up":
            raise UserError("no arm at /dev/null; plug it in")
        if MODE == "buggy setup":
            raise KeyError("elbow")

    def update(self):
        self.runtime.count("turns")
        if self.asked:
            self.asked = False
            if MODE == "hangs":
                sys.stdin.readline()
            if MODE == "fails":
                raise UserError("the bus is gone; reconnect it")
            if MODE == "buggy":
                raise ZeroDivisionError("a defect")

    def close(self, failed):
        print("closed", "after a failure" if failed else "in order", flush=True)
        if MODE == "cannot close":
            raise OSError("the port is gone")

service.BEAT_S, service.HUNG_AFTER_S = 0.1, 0.3  # so that the tests need not wait
sys.exit(service.run("robot", settings.load(), Tiny))
'''

Tiny = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def tiny(tmp_path: Path, launch) -> Tiny:
    script = tmp_path / "tiny.py"
    script.write_text(TINY)
    return lambda mode="", **how: launch(script, mode, **how)


def _ask(topics: Topics, command: Command) -> Any:
    return control.request(topics.control("robot"), "robot", command, WAIT_S)


def _end(process: subprocess.Popen[str], number: int | None = signal.SIGTERM) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; ``number``: the signal that asks for the end."""
    if number is not None:
        process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def test_the_heart_beats_starting_while_setup_runs_and_ready_after_it(tiny: Tiny, beats) -> None:
    process = tiny("slow")
    assert beats.state("starting").pid == process.pid
    beats.state("starting")  # and again a second later: setup does not stop it
    process.stdin.write("go on\n")
    process.stdin.flush()
    ready = beats.state("ready")
    assert ready.valid and ready.versions["gripwire"] and not ready.problem
    assert _end(process)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_service_in_order_with_exit_code_0(tiny: Tiny, beats, number: int) -> None:
    process = tiny()
    beats.state("ready")
    code, out, err = _end(process, number)
    assert (code, out) == (0, "closed in order\n"), err
    assert "Traceback" not in err
    assert beats.state("stopping").pid == process.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_setup_is_not_made_to_wait_for_its_end(tiny: Tiny, beats, number: int) -> None:
    process = tiny("slow")  # its setup would wait for ever
    beats.state("starting")
    code, out, err = _end(process, number)
    assert (code, out) == (0, "closed in order\n"), err
    assert "Traceback" not in err and '"ready"' not in err


@pytest.mark.parametrize("mode", ["cannot build", "cannot set up"])
def test_what_the_user_can_mend_is_one_sentence_and_exit_code_1(tiny: Tiny, mode: str) -> None:
    code, out, err = _end(tiny(mode), None)
    assert code == 1
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["no arm at /dev/null; plug it in"]
    assert out == ("closed after a failure\n" if mode == "cannot set up" else "")


def test_a_failure_while_running_goes_out_with_the_last_heartbeat(tiny: Tiny, beats, topics: Topics) -> None:
    process = tiny("fails")
    beats.state("ready")
    _ask(topics, Reset())
    code, out, err = _end(process, None)
    assert (code, out) == (1, "closed after a failure\n")
    assert "Traceback" not in err and "the bus is gone; reconnect it" in err
    assert beats.state("stopping").last_error == "the bus is gone; reconnect it"


@pytest.mark.parametrize("mode", ["buggy", "buggy setup"])
def test_a_bug_is_exit_code_70_with_its_traceback_and_close_is_told(
    tiny: Tiny, beats, topics: Topics, mode: str
) -> None:
    process = tiny(mode)
    if mode == "buggy":
        beats.state("ready")
        _ask(topics, Reset())
    code, out, err = _end(process, None)
    assert (code, out) == (70, "closed after a failure\n")
    last = json.loads(err.splitlines()[-1])
    assert last["level"] == "error" and last["traceback"].startswith("Traceback")


def test_a_bug_in_close_is_logged_and_does_not_change_the_exit_code(tiny: Tiny, beats) -> None:
    process = tiny("cannot close")
    beats.state("ready")
    code, _, err = _end(process)
    assert code == 0 and json.loads(err.splitlines()[-1])["message"] == "while closing"


def test_a_problem_makes_the_service_degraded_and_its_end_makes_it_ready(
    tiny: Tiny, beats, topics: Topics
) -> None:
    process = tiny()
    beats.state("ready")
    assert _ask(topics, Hold()) == Done(text="held")
    beat = beats.state("degraded")
    assert beat.problem == beat.last_error == "the elbow is hot; let it rest"
    _ask(topics, Release())
    beat = beats.state("ready")
    assert beat.problem == "" and beat.last_error == "the elbow is hot; let it rest"
    code, _, err = _end(process)
    entries = [json.loads(line) for line in err.splitlines()]  # no terminal: one JSON object a line
    assert [entry["level"] for entry in entries] == ["info", "warning", "info"]
    assert all(entry["service"] == "robot" and entry["t"] > 1.6e9 for entry in entries)
    messages = [entry["message"] for entry in entries]
    expected = ["ready", "the elbow is hot; let it rest", "recovered: the elbow is hot; let it rest"]
    assert (code, messages) == (0, expected)


def test_the_heartbeat_counts_what_the_service_counts(tiny: Tiny, beats) -> None:
    process = tiny()
    first = beats.until("turns", lambda beat: beat.counts.get("turns", 0) > 0)
    second = beats.until("more turns", lambda beat: beat.counts["turns"] > first.counts["turns"])
    assert second.rates["turns"] > 0 and second.uptime_s > first.uptime_s
    assert _end(process)[0] == 0


def test_a_loop_that_hangs_is_reported_by_the_heartbeat_and_does_not_answer(
    tiny: Tiny, beats, topics: Topics
) -> None:
    process = tiny("hangs")
    beats.state("ready")
    _ask(topics, Reset())
    assert "the loop has not turned for" in beats.state("degraded").problem
    with pytest.raises(UserError, match=r"the robot service did not answer `Release` within 0\.1 s"):
        control.request(topics.control("robot"), "robot", Release(), 0.1)
    process.stdin.write("go on\n")
    process.stdin.flush()
    beats.state("ready")
    assert _end(process)[0] == 0


@pytest.mark.parametrize("taken", ["health", "control"])
def test_a_port_in_use_is_one_sentence_and_exit_code_1(tiny: Tiny, topics: Topics, taken: str) -> None:
    topic = topics["health/robot"]
    holder = Publisher(topic) if taken == "health" else Server(topics.control("robot"), {})
    code, _, err = _end(tiny(), None)
    holder.close()
    (line,) = err.splitlines()
    assert code == 1 and "another process holds that port" in json.loads(line)["message"]


@pytest.mark.parametrize("style", ["auto", "json"])
def test_logs_are_readable_lines_on_a_terminal_and_json_where_that_is_asked_for(
    tiny: Tiny, beats, environment: dict[str, str], style: str
) -> None:
    ours, theirs = pty.openpty()
    process = tiny(stderr=theirs, env=environment | {"GRIPWIRE_LOG": style})
    os.close(theirs)
    beats.state("ready")
    assert _end(process)[0] == 0
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    if style == "auto":
        assert text.split()[1:] == ["robot", "ready"], text
    else:
        assert json.loads(text)["message"] == "ready"
