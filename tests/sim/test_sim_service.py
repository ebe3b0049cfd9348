"""`gripwire sim run` as a process: its devices, its commands, its death."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire import control
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import Bench, Fault, Health, MoveLeader, ResetBench
from gripwire.settings import Settings
from gripwire_sim import truth


def start(stack: Settings, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gripwire", "sim", "run"],
        env={**os.environ, **stack.environment(), **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ready(stack: Settings, process: subprocess.Popen[str]) -> None:
    with Latest(stack.topics["health/sim"], Health) as health:
        deadline = time.monotonic() + 30
        received = None
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            received = health.wait(0.5, after=received) or received
            # A killed bench's last heartbeat may still be on its way.
            if received and received.message.pid == process.pid and received.message.state != "starting":
                return
    raise AssertionError("the bench did not get ready")


@pytest.fixture
def bench(stack: Settings) -> Iterator[subprocess.Popen[str]]:
    process = start(stack)
    until_ready(stack, process)
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.communicate()


def ask(stack: Settings, command: ResetBench | MoveLeader | Fault) -> object:
    return control.request(stack.topics.control("sim"), "sim", command)


def devices_answer(stack: Settings) -> None:
    from gripwire_sim.feetech import PING, packet

    port = os.open(stack.data / "sim" / "follower", os.O_RDWR | os.O_NOCTTY)
    os.write(port, packet(1, PING))
    assert os.read(port, 100) == packet(1, 0)
    os.close(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.topics.sim_camera_port()}", timeout=5) as stream:
        assert stream.readline().startswith(b"--")
    assert (stack.data / "sim" / "calibration" / "bench.json").exists()


def test_it_offers_its_devices_and_ends_cleanly(stack: Settings, bench: subprocess.Popen[str]) -> None:
    devices_answer(stack)
    bench.terminate()
    assert bench.wait(10) == 0
    assert not (stack.data / "sim" / "follower").is_symlink()


def test_killed_and_started_again_the_same_names_come_back(
    stack: Settings, bench: subprocess.Popen[str]
) -> None:
    before = truth.fetch("127.0.0.1", stack.topics.sim_truth_port())[-1].seq
    bench.send_signal(signal.SIGKILL)
    bench.wait(10)
    assert (stack.data / "sim" / "follower").is_symlink(), "left behind"
    again = start(stack)
    try:
        until_ready(stack, again)
        devices_answer(stack)
        assert truth.fetch("127.0.0.1", stack.topics.sim_truth_port())[0].seq > before, (
            "numbers are not reused"
        )
    finally:
        again.terminate()
        assert again.wait(10) == 0


def test_a_reset_lays_out_the_scene_of_its_seed(stack: Settings, bench: subprocess.Popen[str]) -> None:
    first = ask(stack, ResetBench(seed=11))
    assert isinstance(first, Bench)
    assert ask(stack, ResetBench(seed=12)) != first
    assert ask(stack, ResetBench(seed=11)) == first
    deadline = time.monotonic() + 5
    while (newest := truth.fetch("127.0.0.1", stack.topics.sim_truth_port())[-1]).seed != 11:
        assert time.monotonic() < deadline
    assert newest.cube == pytest.approx(first.cube, abs=0.002)


def test_faults_are_made_mended_and_wrong_ones_refused(stack: Settings, bench: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match="no fault `earthquake`; there are: camera-drop"):
        ask(stack, Fault(what="earthquake"))
    with pytest.raises(UserError, match=r"which servo.*not `elbow`"):
        ask(stack, Fault(what="servo-silent", joint="elbow"))
    with pytest.raises(UserError, match="between 0 and 1, not 30"):
        ask(stack, Fault(what="lamp", value=30))
    with pytest.raises(UserError, match="no joint `elbow`"):
        ask(stack, MoveLeader(position={"elbow": 3.0}))
    ask(stack, MoveLeader(position={"elbow_flex": 3.0}))
    ask(stack, Fault(what="camera-drop"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{stack.topics.sim_camera_port()}", timeout=5)
    for fault in (
        Fault(what="servo-silent", joint="3"), Fault(what="servo-hot", joint="wrist_roll"),
        Fault(what="servo-jam", joint="5"), Fault(what="port-gone"), Fault(what="leader-gone", value=0.1),
        Fault(what="corrupt", value=1.0), Fault(what="lamp", value=0.3), Fault(what="camera-freeze"),
    ):  # fmt: skip
        ask(stack, fault)
    ask(stack, Fault(what="clear"))
    devices_answer(stack)


def test_a_second_bench_on_the_same_ports_is_refused_in_one_sentence(
    stack: Settings, bench: subprocess.Popen[str]
) -> None:
    second = start(stack)
    _, said = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "--port-base" in said
    assert "Traceback" not in said
    devices_answer(stack)


def test_without_opengl_it_paints_and_says_what_to_install(stack: Settings) -> None:
    process = start(stack, MUJOCO_GL="disable")
    try:
        until_ready(stack, process)
        devices_answer(stack)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "apt install libegl1" in said
    assert "Traceback" not in said


def test_an_opengl_that_does_not_exist_is_an_error_with_its_remedy(stack: Settings) -> None:
    process = start(stack, MUJOCO_GL="bogus")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "MUJOCO_GL=bogus" in said
    assert "unset it" in said
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_written_is_named(stack: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sim").write_text("in the way")
    process = start(stack)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert str(tmp_path / "data" / "sim") in said
    assert "Traceback" not in said
