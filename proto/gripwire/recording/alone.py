"""One service alone against a recorded run: `gripwire <service> run --replay RUN.mcap`.

The service runs as always, but on ports of its own. A child process, `gripwire replay`, stands in for all the
others, and when the recording is over the service is ended. So a bug that was seen at the robot is looked at
where there is no robot, as often as it takes.
"""

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gripwire import service
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import Health
from gripwire.recording.file import Recording
from gripwire.settings import Settings
from gripwire.topics import LOOPBACK, PORT_SPAN

log = logging.getLogger(__name__)

_READY_S = 120.0
"""For a service's imports, on a machine that is busy."""
_LAST_S = 0.5
"""After the last message, for what the service still says to it."""


@dataclass(frozen=True)
class Run:
    """A recording to be played to one service. ``rate`` 2: twice as fast as it was."""

    path: Path
    rate: float = 1.0
    loop: bool = False


Hook = Callable[[Settings, threading.Event], None]
"""Called in the thread that plays; the event is set when the service has ended."""


def private(settings: Settings, port_base: int | None, data: Path | None = None) -> Settings:
    """The same settings on ports that nobody uses, unless ``port_base`` was asked for, and with another data
    folder if there is one."""
    values: dict[str, Any] = {"port_base": port_base or free_ports(), "bind": LOOPBACK}
    return settings.changed(values | ({"data": data} if data else {}), without=("hosts",))


def know_cameras(path: Path, settings: Settings) -> None:
    """Give the cameras of the recording that the settings do not know a slot, for this process and those it
    starts: at the desk there may be no gripwire.toml."""
    recorded = [t.partition("/")[2] for t in Recording(path).contents().counts if t.startswith("camera/")]
    given = {key[1] for key in settings.values if key[0] == "cameras" and len(key) > 1}
    for name in recorded:
        if name not in given:
            os.environ.setdefault(f"GRIPWIRE_CAMERAS__{name.upper()}__SOURCE", "")


def run(
    name: str,
    settings: Settings,
    build: Callable[[service.Runtime], service.Service],
    played: Run,
    begin: Hook | None = None,
    end: Hook | None = None,
) -> int:
    """Run the service until the recording is over or somebody ends it; the process's exit code.

    ``begin`` is called when the service is ready, before anything is played; ``end`` after the last message.

    Raises:
        UserError: the recording cannot be read, or has nothing for this service.
    """
    topics = recorded_topics(played.path, settings, name)
    player = _Player(name, settings, played, topics, begin, end)
    say_where(name, settings, played, f"{', '.join(topics)}")
    player.thread.start()
    try:
        code = service.run(name, settings, build)
    finally:
        player.stop()
    return code or player.code


def recorded_topics(path: Path, settings: Settings, name: str) -> list[str]:
    """What the recording has that the service itself does not publish.

    Raises:
        UserError: nothing is left.
    """
    contents = Recording(path).contents()
    theirs = [t for t in contents.counts if t not in settings.topics or settings.topics[t].owner != name]
    if others := [t for t in theirs if t not in settings.topics]:
        print(f"left out, no camera slot of this stack: {', '.join(sorted(others))}", file=sys.stderr)
    topics = sorted(t for t in theirs if t in settings.topics)
    if not topics:
        raise UserError(
            f"{path}: nothing in it is for the {name} service; it holds "
            f"{', '.join(contents.counts) or 'no message'}"
        )
    return topics


def say_where(name: str, settings: Settings, played: Run, what: str) -> None:
    """How to look on from a second terminal, on stderr."""
    flags = f"--port-base {settings.topics.port_base}"
    if (settings.data / "keys").is_dir():  # the same keys are needed to look on
        flags += f" --data {settings.data}"
    print(
        f"{name} alone, against {played.path}: {what}\n"
        f"look on with:  gripwire topics --watch {flags}    gripwire echo TOPIC {flags}",
        file=sys.stderr, flush=True,
    )  # fmt: skip


class _Player:
    """A thread that waits for the service, has the recording played to it, and ends it."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        played: Run,
        topics: list[str],
        begin: Hook | None,
        end: Hook | None,
    ) -> None:
        self.code = 0
        self.ended = threading.Event()
        self._name, self._settings, self._played, self._topics = name, settings, played, topics
        self._begin, self._end = begin, end
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, name="player", daemon=True)

    def _run(self) -> None:
        try:
            self._play()
        except UserError as e:
            log.error("%s", e)
            self.code = 1
        finally:
            if not self.ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    def _play(self) -> None:
        self._wait_until_ready()
        if self._begin:
            self._begin(self._settings, self.ended)
        with self._lock:
            if self.ended.is_set():
                return
            self._child = self._start()
        # This thread waits for it to the end: the child is told when its parent thread is gone.
        code = self._child.wait()
        if self.ended.is_set():
            return
        if code:
            raise UserError(f"{self._played.path} could not be played to its end; see above")
        self.ended.wait(_LAST_S)
        if self._end:
            self._end(self._settings, self.ended)
        log.info("the recording is over")

    def _wait_until_ready(self) -> None:
        with Latest(self._settings.topics[f"health/{self._name}"], Health) as beats:
            seen = None
            for _ in range(int(_READY_S / 0.5)):
                if self.ended.is_set():
                    return
                seen = beats.wait(0.5, after=seen) or seen
                if seen and seen.message.state in ("ready", "degraded"):
                    return
        raise UserError(f"the {self._name} service was not ready within {_READY_S:.0f} s: nothing was played")

    def _start(self) -> "subprocess.Popen[bytes]":
        played = self._played
        command = [sys.executable, "-m", "gripwire", "replay", str(played.path), "--rate", str(played.rate)]
        command += ["--topics", ",".join(self._topics), "--wait", "30", *(["--loop"] if played.loop else [])]
        env = os.environ | self._settings.environment() | {"GRIPWIRE_SUPERVISED": str(os.getpid())}
        # In a process group of its own: Ctrl+C is for the service, which then ends what is played to it.
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
        )

    def stop(self) -> None:
        """The service has ended: so does what was played to it."""
        with self._lock:
            self.ended.set()
            if self._child and self._child.poll() is None:
                self._child.terminate()
        self.thread.join(10)


def free_ports() -> int:
    """A port base from which a whole stack's ports are free now."""
    for _ in range(1000):
        base = random.randrange(20000, 32000)  # below those that the kernel gives away
        if all(_is_free(base + offset) for offset in range(PORT_SPAN)):
            return base
    raise UserError(f"no {PORT_SPAN} free ports in a row were found; name some with --port-base")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
