"""Supervision: when to start again is arithmetic; starting, stopping and dying together is done for real."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gripwire import supervise
from gripwire.bus import Publisher
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import Health
from gripwire.settings import Settings, load
from gripwire.supervise import Child, Process, RestartPolicy, Supervisor

WAIT_S = 20.0

PROBE = '''
"""An installed service, small enough for a test: it borrows the name of the robot's."""
import signal, sys, threading
import typer
from gripwire import service
from gripwire.cli import options
from gripwire.errors import UserError

app = typer.Typer()

class Probe:
    rate_hz = 50.0
    commands = {}
    def __init__(self, runtime): pass
    def setup(self): pass
    def update(self): pass
    def close(self, failed): pass

@app.command()
def run() -> None:
    service.BEAT_S = 0.1
    raise typer.Exit(service.run("robot", options.load(), Probe))

@app.command()
def fail() -> None:
    raise UserError("no arm at /dev/null; plug it in")

@app.command()
def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf now", file=sys.stderr, flush=True)
    threading.Event().wait(60)
'''

RUN = Process("robot", ("probe", "run"))


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The variables that make the probe an installed service of child processes."""
    site = tmp_path / "site"
    about = site / "gripwire_probe-0.1.dist-info"
    about.mkdir(parents=True)
    (site / "probe_cli.py").write_text(PROBE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gripwire-probe\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[gripwire.commands]\nprobe = probe_cli:app\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))}


class Watched:
    """A supervisor and the heartbeats of what it runs."""

    def __init__(self, supervisor: Supervisor, beats) -> None:
        self.supervisor, self.beats = supervisor, beats
        self.child = next(iter(supervisor.children.values()))

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}"
            self.supervisor.poll(set())
            select.select([], [], [], 0.01)

    def beat_of(self, pid: int) -> Health:
        return self.beats.until(f"of process {pid}", lambda b: b.pid == pid and b.state == "ready")


@pytest.fixture
def watch(
    stack: Settings, installed: dict[str, str], tmp_path: Path, beats
) -> Iterator[Callable[..., Watched]]:
    made: list[Supervisor] = []

    def start(*table: Process) -> Watched:
        made.append(Supervisor(stack, list(table), installed, tmp_path / "logs"))
        return Watched(made[-1], beats)

    yield start
    for supervisor in made:
        supervisor.stop()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- when to start again ------------------------------------------------------------------------------


def test_a_lone_death_is_answered_at_once_and_each_further_one_later() -> None:
    policy = RestartPolicy()
    assert [policy.died(float(t)) for t in range(8)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_deaths_far_apart_are_each_a_lone_one() -> None:
    policy = RestartPolicy(window_s=120.0)
    assert [policy.died(t * 121.0) for t in range(50)] == [0.0] * 50


def test_the_budget_within_the_window_ends_the_restarts() -> None:
    policy = RestartPolicy(budget=3, window_s=120.0)
    assert [policy.died(t) for t in (0.0, 50.0, 100.0)] == [0.0, 0.25, None]


def test_a_death_older_than_the_window_is_forgotten() -> None:
    policy = RestartPolicy(budget=3, window_s=120.0)
    assert [policy.died(t) for t in (0.0, 50.0, 121.0)] == [0.0, 0.25, 0.25]


# --- the table ----------------------------------------------------------------------------------------


def test_a_stack_starts_only_what_is_installed_and_not_switched_off(
    stack: Settings, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_it = {p.service for p in supervise.stack(stack, "sim")}
    without = {p.service for p in supervise.stack(stack, "sim", frozenset({"camera", "sim"}))}
    assert without == {name for name in all_of_it if name != "sim" and not name.startswith("camera/")}


def test_metrics_are_served_where_that_is_asked_for(stack: Settings) -> None:
    assert "metrics" not in {p.service for p in supervise.stack(stack, "sim")}
    asked = load(flags={"data": stack.data, "metrics.enabled": True}, env={})
    assert "metrics" in {p.service for p in supervise.stack(asked, "sim")}


def test_the_bench_takes_the_place_of_the_first_camera_and_the_arm(tmp_path: Path) -> None:
    path = tmp_path / "gripwire.toml"
    path.write_text("port_base = 20000\n[cameras.wrist]\nsource = 0\n[cameras.above]\nsource = 2\n")
    env = supervise.bench_environment(load(path, {"data": tmp_path / "data"}, {}))
    child = load(path, env=env)
    assert child.values["cameras", "wrist", "source"].value == "http://127.0.0.1:20060/"
    assert child.values["cameras", "above", "source"].value == 2
    assert child.values["robot", "port"].value == str(tmp_path / "data" / "sim" / "follower")


# --- real children ------------------------------------------------------------------------------------


def test_a_killed_child_is_started_again_and_works(watch: Callable[..., Watched]) -> None:
    watched = watch(RUN)
    watched.until("started", lambda: watched.child.running)
    first = watched.child.popen.pid
    watched.beat_of(first)
    os.kill(first, signal.SIGKILL)
    watched.until("started again", lambda: watched.child.running and watched.child.popen.pid != first)
    watched.beat_of(watched.child.popen.pid)
    assert (watched.child.restarts, watched.child.last_exit) == (1, -signal.SIGKILL)


def test_stop_ends_every_child_in_order_and_leaves_nothing_behind(watch: Callable[..., Watched]) -> None:
    watched = watch(RUN)
    watched.until("started", lambda: watched.child.running)
    pid = watched.child.popen.pid
    watched.beat_of(pid)
    watched.supervisor.stop()
    assert _gone(pid) and watched.child.last_exit == 0
    watched.supervisor.poll(set())
    assert not watched.child.running, "what was stopped is not started again"


def test_a_child_that_ignores_its_end_is_killed_after_its_grace(watch: Callable[..., Watched]) -> None:
    watched = watch(Process("deaf", ("probe", "deaf"), grace_s=0.2))
    watched.until("deaf", lambda: watched.child.last_words() == "deaf now")
    pid = watched.child.popen.pid
    watched.supervisor.stop()
    assert _gone(pid) and watched.child.last_exit == -signal.SIGKILL


def test_a_child_that_always_fails_is_left_alone_in_the_end_and_its_last_words_kept(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(Process("robot", ("probe", "fail")))
    watched.child.policy = RestartPolicy(budget=2)
    watched.until("given up", lambda: watched.child.given_up)
    assert (watched.child.restarts, watched.child.last_exit) == (1, 1)
    assert watched.child.last_words() == "error: no arm at /dev/null; plug it in"


def test_what_needs_the_bench_waits_until_the_bench_is_ready(watch: Callable[..., Watched]) -> None:
    watched = watch(
        Process("sim", ("probe", "run")), Process("arm", ("probe", "deaf"), after="sim", grace_s=0.1)
    )
    arm: Child = watched.supervisor.children["arm"]
    watched.until("the bench started", lambda: watched.child.running)
    watched.supervisor.poll(set())
    assert arm.popen is None
    watched.supervisor.poll({"sim"})
    assert arm.running


SUPERVISOR = """
import os, sys, threading
from gripwire import settings
from gripwire.supervise import Process, Supervisor
env = {"PYTHONPATH": os.environ["PYTHONPATH"]}
supervisor = Supervisor(settings.load(), [Process("robot", ("probe", "run"))], env, None)
while True:
    supervisor.poll(set())
    threading.Event().wait(0.02)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_die_with_a_supervisor_that_was_killed(
    tmp_path: Path, launch, environment: dict[str, str], installed: dict[str, str], beats
) -> None:
    script = tmp_path / "supervisor.py"
    script.write_text(SUPERVISOR)
    supervisor = launch(script, env=environment | installed)
    child = os.pidfd_open(beats.state("ready").pid)
    try:
        supervisor.kill()
        ended, _, _ = select.select([child], [], [], WAIT_S)
        assert ended, "the child lives on without its supervisor"
    finally:
        if not select.select([child], [], [], 0)[0]:
            signal.pidfd_send_signal(child, signal.SIGKILL)
        os.close(child)


# --- ports --------------------------------------------------------------------------------------------


def test_free_ports_are_free_again_after_they_were_looked_at(stack: Settings) -> None:
    supervise.refuse_taken_ports(stack.topics, bench=True)
    supervise.refuse_taken_ports(stack.topics, bench=True)


def test_any_taken_port_of_the_stack_is_named(stack: Settings) -> None:
    with (
        Publisher(stack.topics["health/sim"]),
        pytest.raises(UserError, match="topic `health/sim` cannot use"),
    ):
        supervise.refuse_taken_ports(stack.topics, bench=True)
    server = Server(stack.topics.control("trainer"), {})
    with pytest.raises(UserError, match="trainer's control endpoint cannot use"):
        supervise.refuse_taken_ports(stack.topics, bench=True)
    server.close()
