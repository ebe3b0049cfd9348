"""Every log line says which episode was being recorded and which model served."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gripwire import control
from gripwire.bus import Publisher
from gripwire.logs import Context
from gripwire.messages import EpisodeState, Hold, ModelState, Reward
from gripwire.topics import Topics

WAIT_S = 20.0
BUNDLE = "f25718f0162e0a66c804"
RECORDING = EpisodeState(valid=True, state="recording", dataset="mine", episode=7)

TALKER = '''
"""A service that logs a line for each Hold; as the recorder it also says what it is about to publish."""
import logging, sys
from gripwire import logs, service, settings
from gripwire.messages import Done, EpisodeState, Hold

log = logging.getLogger("gripwire.talker")
NAME = sys.argv[1]

class Talker:
    rate_hz = 50.0

    def __init__(self, runtime):
        self.publisher = runtime.publisher("episode") if NAME == "recorder" else None

    @property
    def commands(self):
        return {Hold: self.hold}

    def hold(self, _):
        if self.publisher:
            state = EpisodeState(valid=True, state="recording", dataset="own", episode=1)
            logs.context.see(state)
            self.publisher.publish(state)
        log.warning("the elbow is hot")
        return Done()

    def setup(self): pass
    def update(self): pass
    def close(self, failed): pass

service.RECORDER_GONE_S = 1.0
sys.exit(service.run(NAME, settings.load(), Talker))
'''


@pytest.fixture
def talker(tmp_path: Path, launch) -> Callable[..., "subprocess.Popen[str]"]:
    script = tmp_path / "talker.py"
    script.write_text(TALKER)
    return lambda name, **how: launch(script, name, **how)


def _until(
    process: "subprocess.Popen[str]", topics: Topics, name: str, what: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The first line about the elbow of which ``what`` holds."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        control.request(topics.control(name), name, Hold(), WAIT_S)
        while (line := json.loads(process.stderr.readline()))["message"] != "the elbow is hot":
            pass
        if what(line):
            return line
    raise AssertionError(f"never; last: {line}")


def test_a_line_carries_the_episode_and_the_model_once_they_are_known(talker, topics: Topics) -> None:
    process = talker("robot")
    with Publisher(topics["model"]) as model, Publisher(topics["episode"]) as episode:
        assert not {"episode", "model", "epoch"} & set(_until(process, topics, "robot", lambda line: True))
        assert model.wait_for_subscriber(WAIT_S) and episode.wait_for_subscriber(WAIT_S)
        model.publish(ModelState(valid=True, serving=BUNDLE, epoch=3))
        line = _until(process, topics, "robot", lambda line: "model" in line)
        assert (line["model"], line["epoch"]) == (BUNDLE, 3) and "episode" not in line
        episode.publish(RECORDING.model_copy())
        assert _until(process, topics, "robot", lambda line: "episode" in line)["episode"] == "mine/7"
        episode.publish(RECORDING.model_copy(update={"state": "saving"}))
        episode.publish(RECORDING.model_copy(update={"state": "idle"}))
        assert _until(process, topics, "robot", lambda line: "episode" not in line)["epoch"] == 3


def test_a_recorder_that_is_gone_leaves_no_episode_behind(talker, topics: Topics) -> None:
    process = talker("robot")
    with Publisher(topics["episode"]) as episode:
        assert episode.wait_for_subscriber(WAIT_S)
        episode.publish(RECORDING.model_copy())
        _until(process, topics, "robot", lambda line: line.get("episode") == "mine/7")
    _until(process, topics, "robot", lambda line: "episode" not in line)


def test_who_publishes_the_episode_knows_it_in_the_very_next_line(talker, topics: Topics) -> None:
    process = talker("recorder")
    assert _until(process, topics, "recorder", lambda line: True)["episode"] == "own/1"


def test_lines_for_a_terminal_end_with_it(talker, topics: Topics, environment: dict[str, str], beats) -> None:
    ours, theirs = pty.openpty()
    with Publisher(topics["model"]) as model, Publisher(topics["episode"]) as episode:
        model.publish(ModelState(valid=True, serving=BUNDLE, epoch=3))
        episode.publish(RECORDING.model_copy())
        talker("robot", stderr=theirs, env=environment)
        os.close(theirs)
        beats.state("ready")
        text, wanted = "", f"the elbow is hot  [episode mine/7, model {BUNDLE[:8]} epoch 3]"
        deadline = time.monotonic() + WAIT_S
        while wanted not in text and time.monotonic() < deadline:
            model.poll()
            episode.poll()
            control.request(topics.control("robot"), "robot", Hold(), WAIT_S)
            text += os.read(ours, 10_000).decode()
    os.close(ours)
    assert wanted in text


def test_what_another_process_said_can_be_taken_over() -> None:
    first, second = Context(), Context()
    assert first.fields() == {} and first.text() == ""
    first.see(RECORDING)
    first.see(ModelState(serving=BUNDLE, epoch=3))
    first.see(Reward())
    second.adopt(first.fields())
    assert second.fields() == first.fields() == {"episode": "mine/7", "model": BUNDLE, "epoch": 3}
    second.adopt({})
    assert second.fields() == {}
