"""The gate that a bundle gets: as the settings say, or the range that the gripper has in successes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gripwire.errors import UserError
from gripwire_reward import gate
from gripwire_reward.datasets import states
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.settings import AUTO, TrainerSettings

_JOINT = "gripper"
_MARGIN, _LEAST_MARGIN = 0.1, 2.0
"""Beyond the range that was seen: a share of its width, and units of the gripper (0..100)."""


def choose(episodes: Sequence[Labelled], settings: TrainerSettings) -> str:
    """The gate's text; empty for none.

    Raises:
        UserError: it is to be fitted, and a dataset does not say how far the gripper was open.
    """
    if settings.gate != AUTO:
        return settings.gate
    seen = []
    for e in episodes:
        if (chosen := e.success & e.counted).any():
            openings = [state.position.get(_JOINT) for state in states(e.dataset, e.episode)]
            seen += [opening for opening, wanted in zip(openings, chosen.tolist(), strict=True) if wanted]
            if None in seen:
                raise UserError(
                    f"{e.dataset.path}: [trainer] gate = auto needs the gripper's position in "
                    "`observation.state`; write the condition itself, or leave it away"
                )
    low, high = float(min(seen)), float(max(seen))
    margin = max(_LEAST_MARGIN, _MARGIN * (high - low))
    return f"{low - margin:.1f} <= {_JOINT} <= {high + margin:.1f}"


def apply(text: str, episodes: Sequence[Labelled]) -> list[Labelled]:
    """The episodes, each with whether the gate was open in its frames.

    Raises:
        UserError: a dataset lacks what the gate asks for.
    """
    if not text:
        return list(episodes)
    return [replace(e, gate=_rows(gate.parse(text), e)) for e in episodes]


def _rows(condition: gate.Gate, e: Labelled) -> np.ndarray:
    try:
        return np.array([condition.holds(state) for state in states(e.dataset, e.episode)])
    except gate.MissingState as why:
        raise UserError(f"{e.dataset.path}: episode {e.episode.index}: {why}") from why
