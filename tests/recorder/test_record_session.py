"""`gripwire record-session` at a real terminal, and the labels that come of it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import run_here


class Terminal:
    """`gripwire record-session ...` with a person in front of it."""

    def __init__(self, settings, *args):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "record-session", *args],
            env=os.environ | settings.environment(), stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def until(self, text, timeout_s=60):
        """Read until ``text`` stands on the screen, behind what was read before."""
        before, deadline = len(self.shown), time.monotonic() + timeout_s
        while text not in self.shown[before:]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            if select.select([self._master], [], [], 1.0)[0]:
                try:
                    self.shown += os.read(self._master, 4096).decode()
                except OSError:  # the other side is closed
                    assert text in self.shown[before:], f"no {text!r} in {self.shown!r}"

    def press(self, key):
        os.write(self._master, key.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal():
    opened = []

    def make(settings, *args):
        opened.append(Terminal(settings, *args))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_session_is_steered_by_keys_and_its_verdicts_become_labels(rigs, terminal, capsys):
    rig, _ = rigs()
    plan = ("--task", "grasp", "--dataset", "held", "--episodes", "2", "--seconds", "100", "--reset-seconds")
    screen = terminal(rig.settings, *plan, "100")
    screen.until("space next")
    screen.press(" ")
    screen.until("episode 1 of 2: go")
    rig.until(lambda e: e.state == "recording" and e.rows >= 5)
    screen.press("s")
    screen.until("success from now on")
    rows = rig.until(lambda e: e.verdict == "success").rows
    rig.until(lambda e: e.rows > rows + 3)
    screen.press(" ")
    screen.until("reset, then episode 2 of 2")
    screen.press(" ")
    screen.until("episode 2 of 2: go")
    rig.until(lambda e: e.session_done == 1 and e.rows >= 5)
    screen.press("r")  # that was nothing: once more
    screen.until("reset, then episode 2 of 2")
    screen.press(" ")
    screen.until("episode 2 of 2: go")
    screen.press("f")
    screen.until("failure from now on")
    rig.until(lambda e: e.session_done == 1 and e.rows >= 5)
    screen.press(" ")
    screen.until("2 episodes are saved in `held`")
    assert screen.process.wait(30) == 0

    out = rig.settings.data / "labels" / "held.json"
    environment = rig.settings.environment()
    done = run_here(["recorder", "labels", "held", "--out", str(out)], environment, capsys)
    assert done.returncode == 0 and "2 episodes are labelled" in done.stdout
    content = json.loads(out.read_text())
    (first, last) = content["episodes"]["0"]["ranges"][0]
    assert first >= 4 and last == rig.notes("held")[0]["rows"] - 1
    assert content["episodes"]["1"] is None
    assert run_here(["labels", "check", str(out)], environment, capsys).returncode == 0


def test_ctrl_c_ends_the_session_and_keeps_what_was_recorded(rigs, terminal):
    rig, _ = rigs()
    screen = terminal(rig.settings, "--task", "grasp", "--dataset", "held", "--reset-seconds", "0")
    screen.until("episode 1 of 10: go")
    rig.until(lambda e: e.state == "recording" and e.rows >= 5)
    screen.process.send_signal(signal.SIGINT)  # Ctrl+C
    screen.until("1 episodes are saved in `held`")
    assert screen.process.wait(30) == 0
    state = rig.until(lambda e: e.state == "idle")
    assert state.session_episodes == 0 and state.rows >= 5


def test_without_a_recorder_it_says_what_to_do(make_settings, tmp_path, terminal):
    screen = terminal(make_settings(tmp_path), "--task", "grasp")
    screen.until("error: no recorder is running here")
    assert screen.process.wait(30) == 1
