"""`gripwire reward run --replay`: what was judged at the robot is judged again at the desk."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire import settings
from gripwire.bus import Publisher, Queued
from gripwire.messages import Reward
from gripwire.recording.record import Recorder
from tests.conftest import free_port_base
from tests.helpers import ending
from tests.reward import tiny
from tests.reward.bench import Bench

FRAMES = 24
WAIT_S = 60.0


@pytest.fixture
def live(bench: Bench, tmp_path: Path) -> Iterator[list[Reward]]:
    """A run that was recorded in run.mcap while a real bundle judged it; what it said."""
    bench.serve()
    recorder = Recorder(tmp_path / "run.mcap", list(bench.settings.topics))
    assert bench.camera.wait_for_subscriber(20, count=2)
    assert bench.service._reward.wait_for_subscriber(20, count=2)
    said = [bench.verdict(bench.send(number > FRAMES // 2, number)) for number in range(FRAMES)]
    while recorder.file.counts.get("reward", 0) < FRAMES:
        recorder.take(0.05)
    recorder.close()
    yield said


def _again(bench: Bench, folder: Path, *flags: str) -> tuple[list[Reward], int, str]:
    """What the service alone says of the recording, its exit code and its log."""
    stack = settings.load(flags={"port_base": free_port_base()}, env={})
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    command = [sys.executable, "-m", "gripwire", "reward", "run", "--replay", "run.mcap"]
    command += ["--data", str(bench.settings.data), "--port-base", str(stack.topics.port_base), *flags]
    heard: list[Reward] = []
    with ending() as started, Queued(stack.topics["reward"], Reward) as reader:
        process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
        started.append(process)
        log: list[str] = []
        thread = threading.Thread(target=lambda: log.append(process.stderr.read()))
        thread.start()
        while process.poll() is None:
            if (received := reader.receive(0.2)) is not None:
                heard.append(received.message)
        while (received := reader.receive(0.5)) is not None:  # what it said last
            heard.append(received.message)
        thread.join()
    return [reward for reward in heard if reward.frame_seq >= 0], process.returncode, log[0]


def test_a_replayed_run_gets_the_recorded_logits_bit_for_bit_and_ends(
    live: list[Reward], bench: Bench, tmp_path: Path
) -> None:
    before = sorted(p for p in bench.settings.data.rglob("*"))
    said, code, log = _again(bench, tmp_path)
    assert code == 0, log
    assert [(r.frame_seq, r.logit) for r in said] == [(r.frame_seq, r.logit) for r in live]
    assert {(r.model, r.epoch) for r in said} == {(live[0].model, live[0].epoch)}
    assert "gripwire topics --watch --port-base" in log and "the recording is over" in log
    assert sorted(p for p in bench.settings.data.rglob("*")) == before  # the stack's own state is untouched


def test_another_bundle_can_be_put_before_the_same_run(
    live: list[Reward], bench: Bench, tmp_path: Path
) -> None:
    other = tiny.make(bench.settings.data / "bundles", gain=-8.0)
    said, code, log = _again(bench, tmp_path, "--bundle", other.id, "--rate", "2")
    assert code == 0, log
    assert {r.model for r in said} == {other.id}
    assert said[0].logit == -(live[0].logit or 0)


def test_without_the_bundle_it_says_which_one_is_missing(
    live: list[Reward], bench: Bench, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    said, code, log = _again(bench, tmp_path, "--data", str(empty))
    assert (said, code) == ([], 1)
    assert log.count("\n") == 1 and live[0].model in log and "--bundle" in log


def test_ctrl_c_ends_it_and_what_was_played_to_it(live: list[Reward], bench: Bench, tmp_path: Path) -> None:
    stack = settings.load(flags={"port_base": free_port_base()}, env={})
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    command = [sys.executable, "-m", "gripwire", "reward", "run", "--replay", "run.mcap", "--loop"]
    command += ["--data", str(bench.settings.data), "--port-base", str(stack.topics.port_base)]
    with ending() as started, Queued(stack.topics["reward"], Reward) as reader:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        started.append(process)
        deadline = time.monotonic() + WAIT_S
        while not ((received := reader.receive(1.0)) and received.message.frame_seq >= 0):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and "Traceback" not in log and "the recording is over" not in log
    Publisher(stack.topics["camera/gripper_cam"]).close()  # its port is free again
