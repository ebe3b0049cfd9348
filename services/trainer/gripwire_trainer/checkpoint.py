"""What a training leaves under runs/ while it is under way: curves to look at, and states to go on from."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gripwire.errors import UserError
from gripwire.files import write_whole

CURVES = "curves.jsonl"
_EVERY_S = 15.0
"""A state is only worth its writing when losing the work since would hurt."""
_OLD_S = 86400.0
"""Nobody goes on with a training that was left a day ago."""


@dataclass(frozen=True)
class Run:
    """The folder of one job. The same job finds it again: its name is the hash of all that goes in."""

    folder: Path

    def fold(self, number: int) -> "FoldState":
        """Where one head's state is kept."""
        return FoldState(self.folder / f"head-{number}.safetensors")

    def note(self, head: int, epoch: dict[str, float]) -> None:
        """Append one epoch to the curves, for whoever looks on."""
        with contextlib.suppress(OSError):  # a full disk costs the curve, not the job
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / CURVES).open("a") as file:
                file.write(json.dumps({"head": head, **epoch}) + "\n")

    def finish(self, curves: list[list[dict[str, float]]]) -> None:
        """Write the curves (JSON lines, one per epoch) and drop the states, which nothing needs any more."""
        lines = [json.dumps({"head": n, **epoch}) for n, curve in enumerate(curves) for epoch in curve]
        write_whole(self.folder / CURVES, "\n".join(lines) + "\n")
        for file in self.folder.parent.glob("*/head-*.safetensors"):
            with contextlib.suppress(OSError):  # another job may drop it as well
                if file.parent == self.folder or time.time() - file.stat().st_mtime > _OLD_S:
                    file.unlink()


class FoldState:
    """One head's last state, in one file that is whole or absent."""

    def __init__(self, file: Path) -> None:
        self._file, self._saved = file, time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        """The last state; None when there is none that can be read."""
        try:
            return load(self._file.read_bytes())
        except (OSError, SafetensorError):
            return None

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """Keep the state, unless one was kept a moment ago. A full disk costs the state, not the job."""
        if time.monotonic() - self._saved < _EVERY_S:
            return
        try:
            write_whole(self._file, save({k: v.contiguous() for k, v in state().items()}))
        except UserError:
            return
        self._saved = time.monotonic()
