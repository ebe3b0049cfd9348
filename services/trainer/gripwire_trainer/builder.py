"""The reward dataset, built beside the training."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gripwire.errors import UserError
from gripwire_trainer import labels

_COMMAND = (sys.executable, "-m", "gripwire", "trainer", "build")


class Builder:
    """Writes the reward dataset in a process of its own beside the training, at lower priority."""

    def __init__(self, target: Path, data: Path, wanted: bool) -> None:
        self.out = ""
        self._process: subprocess.Popen[str] | None = None
        if not wanted or target.is_dir():
            return
        merge = labels.read(target)
        name = f"{merge.name}-{_content(merge)}"
        self.out = str(data / "datasets" / name)
        if Path(self.out).exists():
            return  # same labels, same sources: it is there already
        # A file, not a pipe: nobody reads while the heads train, and a full pipe would stop the child.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it must outlive this call)
        self._process = subprocess.Popen(
            [*_COMMAND, str(target), "--out", name, "--data", str(data)],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            text=True,
            env=os.environ | {"GRIPWIRE_SUPERVISED": str(os.getpid())},  # else it would outlive a kill -9
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)

    def wait(self, progress: Callable[[float], None]) -> str:
        """The dataset's folder, once it is whole; empty when none was asked for. ``progress`` may raise.

        Raises:
            UserError: it could not be built, in the words of the build.
        """
        if self._process is None:
            return self.out
        while self._process.poll() is None:
            progress(0.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
        if self._process.returncode != 0:
            self._log.seek(0)
            lines = self._log.read().strip().splitlines() or ["no message"]
            said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
            raise UserError(f"the reward dataset was not built: {said.removeprefix('error: ')}")
        return self.out

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _content(merge: labels.Labels) -> str:
    """What the dataset is made of, in eight digits: labels and the sources' descriptions."""
    digest = hashlib.sha256()
    for source in merge.sources:
        digest.update(repr((str(source.dataset), sorted(source.episodes.items()))).encode())
        for file in sorted((source.dataset / "meta").rglob("*.*")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
