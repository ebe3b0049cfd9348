"""Runs the stack's services as child processes: restarts with back-off and a budget, stops all of them.

Which processes make a stack is a table (:func:`stack`); when to start one again is a pure function of the
times it died (:class:`RestartPolicy`).
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Literal

import zmq

from gripwire import sockets
from gripwire.files import make_folder
from gripwire.metrics.settings import Metrics
from gripwire.settings import Settings
from gripwire.topics import Topics

log = logging.getLogger(__name__)

Profile = Literal["sim", "robot"]
FIRST_WAIT_S = 20.0
"""How long services that need the bench wait for it to be ready."""


@dataclass(frozen=True)
class Process:
    """One line of the stack's table. ``after``: start when that one is ready, stop before it."""

    service: str
    arguments: tuple[str, ...]
    after: str = ""
    grace_s: float = 6.0


def stack(settings: Settings, profile: Profile, without: frozenset[str] = frozenset()) -> list[Process]:
    """The processes of a profile, less the services in ``without`` and those not installed."""
    bench = "sim" if profile == "sim" and "sim" not in without else ""
    table = [Process("sim", ("sim", "run"))] if bench else []
    for camera in settings.cameras:
        table.append(Process(f"camera/{camera}", ("camera", "run", "--name", camera), bench))
    table += [
        Process("robot", ("robot", "run"), bench, grace_s=8.0),  # the way to the rest pose takes up to 3 s
        Process("reward", ("reward", "run")),
        Process("recorder", ("recorder", "run"), grace_s=30.0),  # an episode may be on its way to disk
        Process("trainer", ("trainer", "run"), grace_s=12.0),
        Process("capsule", ("capsule", "run"), grace_s=10.0),  # one may be on its way to disk
    ]
    if settings.section("metrics", Metrics).enabled:
        table.append(Process("metrics", ("metrics", "run")))
    installed = {point.name for point in entry_points(group="gripwire.commands")}
    return [p for p in table if p.arguments[0] in installed and p.arguments[0] not in without]


def bench_environment(settings: Settings) -> dict[str, str]:
    """The variables that point camera and robot at the virtual bench instead of hardware."""
    bench = settings.data / "sim"
    source = f"http://{settings.topics.host('sim')}:{settings.topics.sim_camera_port()}/"
    return {f"GRIPWIRE_CAMERAS__{settings.cameras[0].upper()}__SOURCE": source} | {
        "GRIPWIRE_ROBOT__PORT": str(bench / "follower"),
        "GRIPWIRE_ROBOT__ID": "bench",
        "GRIPWIRE_ROBOT__CALIBRATION_DIR": str(bench / "calibration"),
        "GRIPWIRE_ROBOT__LEADER_PORT": str(bench / "leader"),
        "GRIPWIRE_ROBOT__LEADER_ID": "bench",
        "GRIPWIRE_ROBOT__LEADER_CALIBRATION_DIR": str(bench / "calibration"),
    }


class RestartPolicy:
    """When to start a process again: at once when it had lived for ``healthy_s`` or dies for the first time,
    later after each further death, and not at all after ``budget`` of those within ``window_s``."""

    def __init__(self, budget: int = 12, window_s: float = 120.0, healthy_s: float = 10.0) -> None:
        self._window_s, self._healthy_s = window_s, healthy_s
        self._deaths: deque[float] = deque(maxlen=budget)

    def died(self, now: float, lived_s: float = 0.0) -> float | None:
        """Seconds to wait before the next start; None: the budget is used up."""
        if lived_s >= self._healthy_s:
            self._deaths.clear()
        while self._deaths and self._deaths[0] < now - self._window_s:
            self._deaths.popleft()
        self._deaths.append(now)
        recent = len(self._deaths)
        if recent == self._deaths.maxlen:
            return None
        return 0.0 if recent == 1 else min(0.25 * 2 ** (recent - 2), 10.0)


@dataclass
class Child:
    """A process of the table and what became of it."""

    process: Process
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    popen: subprocess.Popen[bytes] | None = None
    start_at: float | None = None
    started: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    given_up: bool = False
    log_path: Path | None = None
    log_file: IO[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def last_words(self) -> str:
        """The last line of its log, for the screen."""
        if not self.log_path or not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - 2000))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return _words(lines[-1]) if lines else ""


def _words(line: str) -> str:
    """A log line as a person reads it: of JSON only the message."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("message", line)) if isinstance(entry, dict) else line


class Supervisor:
    """Keeps the children running until :meth:`stop`.

    ``log_dir``: each child's stderr goes to a file there; None: to this process's own stderr.
    """

    def __init__(
        self, settings: Settings, table: list[Process], env: dict[str, str], log_dir: Path | None
    ) -> None:
        self.children = {process.service: Child(process) for process in table}
        self._env = os.environ | settings.environment() | env | {"GRIPWIRE_SUPERVISED": str(os.getpid())}
        if log_dir:
            make_folder(log_dir)
            for service, child in self.children.items():
                child.log_path = log_dir / f"{service.replace('/', '-')}.log"
        self._began = time.monotonic()
        for child in self.children.values():
            child.start_at = self._began

    def poll(self, ready: set[str]) -> None:
        """Notice deaths and start what is due; ``ready``: services whose heartbeat says so."""
        now = time.monotonic()
        for child in self.children.values():
            if child.popen is not None and not child.running:
                self._bury(child, now)
            elif child.popen is None and child.start_at is not None and now >= child.start_at:
                bench = self.children.get(child.process.after)
                if bench and child.process.after not in ready and now - self._began < FIRST_WAIT_S:
                    continue
                self._start(child)

    def _start(self, child: Child) -> None:
        stderr: IO[bytes] | None = None
        if child.log_path:
            stderr = child.log_file = open(child.log_path, "ab")  # noqa: SIM115 (closed when the child is buried)
        child.started = time.monotonic()
        child.popen = subprocess.Popen(
            [sys.executable, "-m", "gripwire", *child.process.arguments],
            env=self._env, stdin=subprocess.DEVNULL, stderr=stderr,
            # Ctrl+C is for us, who end them in order. Not a session each: Linux gives every session the same
            # share of the processors (autogroup, sched(7)), and the trainer's nice value would not count.
            process_group=0,
        )  # fmt: skip

    def _bury(self, child: Child, now: float) -> None:
        assert child.popen is not None
        code = child.last_exit = child.popen.returncode
        child.popen = None
        if child.log_file:
            child.log_file.close()
        wait = child.policy.died(now, now - child.started)
        if code == 0:  # nobody asked it to stop: a recording has been played to its end
            child.start_at = None
            log.info("%s has ended by itself", child.process.service)
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:  # which the kernel sends when memory runs out
            how += " (unless somebody did that, the memory it may use ran out: see `dmesg`)"
        if wait is None:
            child.start_at, child.given_up = None, True
            log.error("%s %s too often and is left alone: %s", child.process.service, how, child.last_words())
            return
        child.start_at, child.restarts = now + wait, child.restarts + 1
        log.warning("%s %s; starting it again in %.1f s", child.process.service, how, wait)

    def stop(self) -> None:
        """End every child: those that need the bench first; SIGTERM, then SIGKILL after its grace."""
        for wave in (
            [c for c in self.children.values() if c.process.service != "sim"],
            [c for c in self.children.values() if c.process.service == "sim"],
        ):
            for child in wave:
                child.start_at = None
                if child.running and child.popen:
                    child.popen.terminate()
            asked = time.monotonic()
            for child in wave:
                self._wait(child, asked + child.process.grace_s)

    def _wait(self, child: Child, deadline: float) -> None:
        if child.popen is None:
            return
        try:
            child.last_exit = child.popen.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            name, grace = child.process.service, child.process.grace_s
            log.error("%s did not end within %g s and is killed", name, grace)
            child.popen.kill()
            child.last_exit = child.popen.wait()
        if child.log_file:
            child.log_file.close()


def refuse_taken_ports(topics: Topics, bench: bool) -> None:
    """Look before starting anything; ``bench``: its HTTP ports as well.

    Raises:
        UserError: something already holds one of the stack's ports.
    """
    wanted = {str(topic.binds): f"topic `{topic.name}`" for topic in topics}
    wanted |= {
        str(topics.control_binds(service)): f"{service}'s control endpoint" for service in topics.services
    }
    if bench:
        wanted[f"tcp://{topics.bind}:{topics.sim_camera_port()}"] = "the bench's camera"
        wanted[f"tcp://{topics.bind}:{topics.sim_truth_port()}"] = "the bench's truth"
    for endpoint, what in wanted.items():
        socket = sockets.context().socket(zmq.XPUB)
        sockets.bind(socket, endpoint, what)
        socket.unbind(endpoint)
        socket.close()
