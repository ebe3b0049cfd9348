"""The bench's serial lines as sockets, and the plug that makes serial ports of them again."""

import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire_sim.arms import Leader
from gripwire_sim.feetech import PING, packet
from gripwire_sim.plug import carry
from gripwire_sim.servo_socket import ServoSocket
from tests.helpers import until


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[Path]:
    """A serial port; what it leads to is for the test to make, as ``far`` in the same folder."""
    over, alive = os.pipe()
    thread = threading.Thread(target=carry, args=(tmp_path / "far", tmp_path / "port", over))
    thread.start()
    yield tmp_path / "port"
    os.close(alive)
    thread.join(timeout=10)
    os.close(over)
    assert not thread.is_alive()
    assert not (tmp_path / "port").is_symlink()


def ping(port: Path) -> bytes:
    """What servo 1 answers to a ping through ``port``."""
    fd = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        termios.tcflush(fd, termios.TCIOFLUSH)
        os.write(fd, packet(1, PING))
        return os.read(fd, 64)
    finally:
        os.close(fd)


def test_a_servo_answers_through_the_port_of_another_container(plugged: Path) -> None:
    bench = ServoSocket(Leader().chain, plugged.with_name("far"))
    until(plugged.exists)
    assert ping(plugged).startswith(b"\xff\xff\x01")
    assert ping(plugged).startswith(b"\xff\xff\x01")
    bench.close()


def test_a_bench_that_ends_is_an_unplugged_cable_and_one_that_is_back_a_port_again(plugged: Path) -> None:
    bench = ServoSocket(Leader().chain, plugged.with_name("far"))
    until(plugged.exists)
    held = os.open(plugged, os.O_RDWR | os.O_NOCTTY)
    bench.close()
    until(lambda: not plugged.is_symlink())
    assert os.read(held, 1) == b""  # a terminal that hung up, as a USB port that was pulled
    os.close(held)
    bench = ServoSocket(Leader().chain, plugged.with_name("far"))
    until(plugged.exists)
    assert ping(plugged).startswith(b"\xff\xff\x01")
    bench.close()


def test_what_a_killed_bench_left_behind_is_taken_over(plugged: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(plugged.with_name("far")))
    bench = ServoSocket(Leader().chain, plugged.with_name("far"))
    until(plugged.exists)
    assert ping(plugged).startswith(b"\xff\xff\x01")
    bench.close()
    assert not plugged.with_name("far").exists()


def test_the_cable_ends_with_the_robot_though_the_bench_is_there(tmp_path: Path) -> None:
    bench = ServoSocket(Leader().chain, tmp_path / "far")
    over, alive = os.pipe()
    thread = threading.Thread(target=carry, args=(tmp_path / "far", tmp_path / "port", over))
    thread.start()
    until((tmp_path / "port").exists)
    os.close(alive)
    thread.join(timeout=10)
    assert not thread.is_alive()
    os.close(over)
    bench.close()


def test_nobody_but_its_owner_may_open_the_socket(tmp_path: Path) -> None:
    bench = ServoSocket(Leader().chain, tmp_path / "far")
    assert (tmp_path / "far").stat().st_mode & 0o777 == 0o600
    bench.close()


def test_the_command_runs_with_both_ports_and_the_cables_end_with_it(tmp_path: Path) -> None:
    benches = [ServoSocket(Leader().chain, tmp_path / name) for name in ("follower", "leader")]
    ports = tmp_path / "ports"
    look = "import os,sys; print(*sorted(os.listdir(sys.argv[1])), os.getpid(), flush=True); sys.stdin.read()"
    plug = subprocess.Popen(
        [sys.executable, "-m", "gripwire", "sim", "plug", "--sockets", str(tmp_path), "--ports", str(ports),
         "--", sys.executable, "-c", look, str(ports)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert plug.stdout is not None
    assert plug.stdout.readline().split() == ["follower", "leader", str(plug.pid)]
    plug.send_signal(signal.SIGKILL)
    plug.wait(timeout=10)
    until(lambda: not list(ports.iterdir()))
    for bench in benches:
        bench.close()


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gripwire", "sim", "plug", "--sockets", str(tmp_path), "--ports",
         str(tmp_path), "--patience", "0", "--", "no-such-command"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot run no-such-command" in done.stderr
