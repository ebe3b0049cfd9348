"""What tests of several services need."""

import os
import shlex
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gripwire.bus import Latest
from gripwire.cli import main
from gripwire.messages import Health, Message


def until(holds: Callable[[], object], what: str = "what was waited for", timeout_s: float = 15.0) -> None:
    """Wait for what no message and no exit tells of: ask again and again until it holds."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        pause.wait(0.005)


def wait_for[M: Message](reader: Latest[M], what: Callable[[M], bool], timeout_s: float = 60.0) -> M:
    """The first message, the one that is already there included, of which ``what`` holds."""
    deadline, seen = time.monotonic() + timeout_s, reader.get()
    while not (seen and what(seen.message)):
        assert time.monotonic() < deadline, f"never came; last: {seen and seen.message}"
        seen = reader.wait(1.0, after=seen) or seen
    return seen.message


def wait_for_health(reader: Latest[Health], what: Callable[[Health], bool]) -> Health:
    """The first heartbeat of which ``what`` holds."""
    return wait_for(reader, what)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF orientation (1 upright, 3 upside down, 6 and 8 on a side)."""
    directory = struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)  # its only entry, and no next one
    body = b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + directory
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def run_here(
    arguments: Sequence[str], environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> subprocess.CompletedProcess[str]:
    """`gripwire ARGUMENTS` without the second that a process takes, for commands that only ask a service."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gripwire", *arguments])
        for name in [name for name in os.environ if name.startswith("GRIPWIRE_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        capsys.readouterr()
        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
    out, err = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, code, out, err)


@contextmanager
def ending() -> Iterator[list[subprocess.Popen[Any]]]:
    """Processes put into the list are killed at the end of the block if they still run."""
    started: list[subprocess.Popen[Any]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def on_small_disk(
    place: Path, room: int, *command: str, look_at: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a disk of ``room`` bytes at ``place``. What is left below ``look_at`` on that
    disk ends its stdout. Skips the test where the system lets nobody mount one."""
    place.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={room} tmpfs {shlex.quote(str(place))}"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, mount], capture_output=True).returncode != 0:
        pytest.skip("this system does not let a process mount a disk of its own")
    left = f"code=$?; ls -A {shlex.quote(str(place / look_at))} 2>/dev/null; exit $code"
    script = f"{mount} && {shlex.join(command)}; {left}"
    return subprocess.run([*alone, script], capture_output=True, text=True, timeout=280)
