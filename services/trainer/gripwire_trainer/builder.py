"""The reward dataset, built beside the training."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gripwire.errors import UserError
from gripwire_trainer import labels
from gripwire_trainer.datasets.build import build

_COMMAND = (sys.executable, "-m", "gripwire", "trainer", "build")


class Builder:
    """Writes the reward dataset in a process of its own beside the training, at lower priority.

    Building takes a second, importing LeRobot a quarter of a minute, which a training need not wait for.
    """

    def __init__(self, target: Path, data: Path, wanted: bool) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not wanted or target.is_dir():
            return
        # Files, not pipes: nobody reads while the heads train, and a full pipe would stop the child.
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 (it must outlive this call)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*_COMMAND, str(target), "--data", str(data), "--json"],
            stdout=self._told,
            stderr=self._log,
            env=os.environ | {"GRIPWIRE_SUPERVISED": str(os.getpid())},  # else it would outlive a kill -9
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)

    def wait(self, progress: Callable[[float], None]) -> str:
        """The dataset's folder, once it is whole; empty when none was asked for. ``progress`` may raise.

        Raises:
            UserError: it could not be built, in the words of the build.
        """
        if self._process is None:
            return ""
        while self._process.poll() is None:
            progress(0.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
        if self._process.returncode != 0:
            lines = _lines(self._log) or ["no message"]
            said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
            raise UserError(f"the reward dataset was not built: {said.removeprefix('error: ')}")
        return str(json.loads(_lines(self._told)[-1])["dataset"])

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class WarmBuilder:
    """Writes it within this process, for who trains again and again: LeRobot is imported once, by
    :meth:`warm_up`, and a build that waits for the classifier costs a second.
    """

    def __init__(self, target: Path, data: Path, wanted: bool) -> None:
        self._labels = labels.read(target) if wanted and not target.is_dir() else None
        self._data = data

    @staticmethod
    def warm_up() -> None:
        """Import LeRobot now."""
        from gripwire_trainer.datasets import writer  # noqa: F401

    def wait(self, progress: Callable[[float], None]) -> str:
        """The dataset's folder, built now of the labels as they were; empty when none was asked for.

        Raises:
            UserError: it could not be built.
        """
        if self._labels is None:
            return ""
        try:
            return build(self._labels, self._data, progress=progress).dataset
        except UserError as e:
            raise UserError(f"the reward dataset was not built: {e}") from e

    def stop(self) -> None:
        """Nothing goes on beside."""


def _lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode(errors="replace").strip().splitlines()
