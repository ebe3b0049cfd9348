"""What to train, and what is told meanwhile. Nothing heavy is imported here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gripwire_trainer.settings import TrainerSettings

Say = Callable[[str, float, dict[str, float]], None]
"""Told the stage, how much of it is done (0..1), and figures so far."""


@dataclass(frozen=True)
class Task:
    """What to train from: a label file, or a dataset that has `next.reward`."""

    target: Path
    data: Path
    settings: TrainerSettings
