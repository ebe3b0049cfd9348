"""The `gripwire` command as a user runs it: a process with a terminal's worth of output."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import ending

Gripwire = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def gripwire(tmp_path: Path, port_base: int) -> Iterator[Gripwire]:
    """Start `gripwire ARGUMENTS` on a stack of its own; whatever still runs at the end is killed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRIPWIRE_")}
    env |= {"GRIPWIRE_DATA": str(tmp_path / "data"), "GRIPWIRE_PORT_BASE": str(port_base), "COLUMNS": "200"}
    with ending() as started:

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "gripwire", *arguments],
                env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            started.append(process)
            return process

        yield start
