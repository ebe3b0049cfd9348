"""The service's side of its guard (guard.py): started, told that the service lives, replaced when it dies."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from gripwire.service import Runtime
from gripwire_robot import guard, ports
from gripwire_robot.settings import Robot

TOLD_S = 5.0
"""A guard that died is worth a warning for so long, though there is another at once."""


class Sentry:
    """Keeps one guard process."""

    def __init__(self, runtime: Runtime, settings: Robot) -> None:
        self._runtime, self._settings = runtime, settings
        self._process: subprocess.Popen[bytes] | None = None
        self._port = ""
        self._died = -TOLD_S

    def start(self) -> None:
        """Before torque comes on for the first time."""
        self._port = ports.find(str(self._settings.port))
        style = self._runtime.settings.bus.log
        if style == "auto":
            style = "text" if sys.stderr.isatty() else "json"
        command = [
            sys.executable, "-I", str(Path(guard.__file__)),
            self._port, f"{self._settings.guard_s:g}", style,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def beat(self) -> bool:
        """The service lives. True when the guard has cut torque meanwhile: the service had hung."""
        now = time.monotonic()
        code = self._process.poll() if self._process else None
        if code is not None:
            self._died = now if code != guard.CUT else self._died
            self.start()
        text = "the guard process died and was started again; until then nobody would have cut torque for us"
        self._runtime.problem("guard", text if now - self._died < TOLD_S else "")
        self._write(guard.BEAT)
        return code == guard.CUT

    def wait(self) -> None:
        """The service will be busy for a while."""
        self._write(guard.WAIT)

    def port_is_back(self) -> None:
        """An adapter that was plugged in again may have another name."""
        if ports.find(str(self._settings.port)) != self._port:
            self.goodbye()
            self.start()

    def goodbye(self) -> None:
        """Torque is off: there is nothing left to guard."""
        self._write(guard.GOODBYE)
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)

    def _write(self, byte: bytes) -> None:
        if self._process and self._process.stdin:
            # A guard that is gone is seen by the next beat; one that does not read is as good as gone.
            with contextlib.suppress(BrokenPipeError):
                try:
                    os.write(self._process.stdin.fileno(), byte)
                except BlockingIOError:
                    self._process.kill()
