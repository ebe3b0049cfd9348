"""`gripwire recorder` as a person types it, with the real process behind it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gripwire import control
from gripwire.bus import Latest
from gripwire.messages import DiscardEpisode, EpisodeState, Health, StartEpisode


class Shell:
    """Runs `gripwire recorder ...` against one stack."""

    def __init__(self, settings):
        self.settings = settings
        self.environment = os.environ | settings.environment()

    def background(self, *args):
        command = [sys.executable, "-m", "gripwire", "recorder", *args]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *args):
        """Exit code, stdout and stderr."""
        process = self.background(*args)
        out, err = process.communicate(timeout=100)
        assert "Traceback" not in err
        return process.returncode, out.strip(), err.strip()


@pytest.fixture
def shell(make_settings, tmp_path):
    return Shell(make_settings(tmp_path))


def test_an_episode_from_the_command_line(rigs):
    rig, _ = rigs()
    shell = Shell(rig.settings)
    assert shell("start", "--task", "grasp")[:2] == (0, "recording episode 0 of dataset `recording`")
    status = json.loads(shell("status", "--json")[1].splitlines()[-1])
    assert status["episode"]["state"] == "recording" and status["health"] == "ready"
    code, out, err = shell("stop")
    assert code == 0 and out.startswith("episode 0 of dataset `recording` is saved: "), err
    info = rig.datasets / "recording" / "meta" / "info.json"
    assert json.loads(info.read_text())["total_episodes"] == 1
    assert "idle: episode 0 of `recording`" in shell("status")[1]
    assert shell("stop") == (1, "", "error: no episode is being recorded")


def test_a_second_recorder_on_the_same_data_is_refused(rigs):
    rig, _ = rigs()
    code, _, err = Shell(rig.settings)("run", "--port-base", str(rig.settings.bus.port_base + 100))
    assert code == 1 and "another recorder writes into" in err


def test_it_records_and_ends_while_lerobot_is_still_being_imported(shell, make_bench):
    make_bench(shell.settings)
    recorder = shell.background("run")
    for line in recorder.stderr:
        if '"ready"' in line:
            break
    topics = shell.settings.topics
    control.request(topics.control("recorder"), "recorder", StartEpisode(task="grasp"), 15)
    with Latest(topics["episode"], EpisodeState) as episodes:
        deadline, seen = time.monotonic() + 30, None
        while (seen := episodes.wait(1, after=seen) or seen) is None or seen.message.rows == 0:
            assert time.monotonic() < deadline, "it does not record"
    with Latest(topics["health/recorder"], Health) as healths:
        assert "lerobot" not in healths.wait(5).message.versions, "this machine is too fast for this test"
    control.request(topics.control("recorder"), "recorder", DiscardEpisode())
    began = time.monotonic()
    recorder.send_signal(signal.SIGTERM)
    recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    assert time.monotonic() - began < 10


def test_without_a_recorder_each_command_says_what_to_do(shell):
    code, _, err = shell("status")
    assert code == 1 and err == "error: no recorder is running here; `gripwire recorder run` starts one"


def test_settings_that_make_no_sense_are_named(shell):
    code, _, err = shell("run", "--fps", "0")
    assert code == 1 and "`recorder.fps`" in err


def test_a_data_folder_that_is_a_file_is_named(shell):
    (shell.settings.data / "datasets").write_text("not a folder")
    code, _, err = shell("run")
    assert code == 1 and "cannot be written" in err
