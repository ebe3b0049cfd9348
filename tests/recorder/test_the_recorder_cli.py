"""`gripwire recorder` as a person types it, with the real process behind it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gripwire import control
from gripwire.bus import Latest, Publisher, Queued
from gripwire.errors import UserError
from gripwire.messages import DiscardEpisode, EpisodeState, Health, StartEpisode
from gripwire_recorder import cli
from tests.helpers import run_here


class Shell:
    """Runs `gripwire recorder ...` against one stack."""

    def __init__(self, settings, capsys):
        self.settings, self._capsys = settings, capsys
        self.environment = os.environ | settings.environment()

    def background(self, *args):
        command = [sys.executable, "-m", "gripwire", "recorder", *args]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def process(self, *args):
        """Exit code, stdout and stderr."""
        process = self.background(*args)
        out, err = process.communicate(timeout=250)
        assert "Traceback" not in err
        return process.returncode, out.strip(), err.strip()

    def __call__(self, *args):
        """The same without a process of its own, for the commands that only ask."""
        done = run_here(["recorder", *args], self.settings.environment(), self._capsys)
        return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def shell_of(capsys):
    return lambda settings: Shell(settings, capsys)


@pytest.fixture
def shell(shell_of, make_settings, tmp_path):
    return shell_of(make_settings(tmp_path))


def test_an_episode_from_the_command_line(rigs, shell_of):
    rig, _ = rigs()
    shell = shell_of(rig.settings)
    assert shell("start", "--task", "grasp")[:2] == (0, "recording episode 0 of dataset `recording`")
    status = json.loads(shell("status", "--json")[1].splitlines()[-1])
    assert status["episode"]["state"] == "recording" and status["health"] == "ready"
    rig.until(lambda e: e.rows >= 5)
    code, out, err = shell.process("stop")
    assert code == 0 and out.startswith("episode 0 of dataset `recording` is saved: "), err
    info = rig.datasets / "recording" / "meta" / "info.json"
    assert json.loads(info.read_text())["total_episodes"] == 1
    assert "idle: episode 0 of `recording`" in shell("status")[1]
    assert shell("stop") == (1, "", "error: no episode is being recorded")

    # An episode that cannot be saved: the file that it would begin is already there.
    (rig.datasets / "recording" / "data" / "chunk-000" / "file-001.parquet").write_bytes(b"")
    assert shell("start", "--task", "grasp")[0] == 0
    rig.until(lambda e: e.state != "recording" or e.rows >= 5)
    code, out, err = shell("stop")
    assert (code, out) == (1, "") and "its last episode is not in its last file" in err


SAVED_BEFORE = {"saved": 1, "dataset": "grasps"}


@pytest.mark.parametrize(
    ("after_the_stop", "outcome"),
    [
        # An earlier episode becomes durable, then this one too.
        ([{"state": "saving"}, {"state": "saving", "saved": 2}, {"state": "idle", "saved": 3, "rows": 9}], 9),
        # An earlier one becomes durable, and this one cannot be saved.
        (
            [
                {"state": "saving"}, {"state": "saving", "saved": 2},
                {"state": "idle", "saved": 2, "problem": "it is too short"},
            ],
            "it is too short",
        ),
        # An earlier one cannot be saved, and this one is.
        ([{"state": "saving"}, {"state": "saving"}, {"state": "idle", "saved": 2, "rows": 9}], 9),
        # Given up by someone else: idle shows the episode before.
        ([{"state": "saving"}, {"state": "idle", "rows": 30, "problem": "old"}], "was not saved"),
        ([{"state": "saving"}, {"state": "saving", "problem": "the disk is full"}], "the disk is full"),
        ([{"state": "saving"}, {"state": "recording", "saved": 2}], "next episode was begun"),
    ],
)  # fmt: skip
def test_stop_reports_what_became_of_its_own_episode(make_settings, tmp_path, after_the_stop, outcome):
    topic = make_settings(tmp_path).topics["episode"]
    publisher = Publisher[EpisodeState](topic)
    with Queued(topic, EpisodeState) as reader:
        assert publisher.wait_for_subscriber(10)
        recording = EpisodeState(state="recording", valid=True, rows=20, **SAVED_BEFORE)
        publisher.publish(recording)
        for fields in after_the_stop:
            publisher.publish(EpisodeState(**({"valid": True} | SAVED_BEFORE | fields)))
        if isinstance(outcome, int):
            assert cli._until_saved(reader, recording).rows == outcome
        else:
            with pytest.raises(UserError, match=outcome):
                cli._until_saved(reader, recording)
    publisher.close()


def test_a_second_recorder_on_the_same_data_is_refused(rigs, shell_of):
    rig, _ = rigs()
    code, _, err = shell_of(rig.settings).process("run", "--port-base", str(rig.settings.bus.port_base + 100))
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
    code, _, err = shell.process("run", "--fps", "0")
    assert code == 1 and "`recorder.fps`" in err


def test_a_data_folder_that_is_a_file_is_named(shell):
    (shell.settings.data / "datasets").write_text("not a folder")
    code, _, err = shell.process("run")
    assert code == 1 and "cannot be written" in err
