"""The labelled episodes to learn from, each under a name of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import Dataset, Episode, columns, open_dataset
from gripwire_trainer import labels
from gripwire_trainer.build import REWARD, lengths
from gripwire_trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Labelled:
    """One episode to learn from. Its ``name``, `dataset/number`, is unique within a job."""

    name: str
    dataset: Dataset
    episode: Episode
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    session: str


def read_episodes(target: Path, settings: TrainerSettings) -> list[Labelled]:
    """All labelled episodes, in order.

    Raises:
        UserError: see :mod:`labels` and :mod:`gripwire_reward.datasets`; also when a class is missing.
    """
    out: list[Labelled] = []
    if target.is_dir():
        dataset = open_dataset(target)
        if REWARD not in dataset.features:
            raise UserError(
                f"{target}: it has no `{REWARD}`; name a label file instead, or build it first with "
                "`gripwire trainer build MERGE.json`"
            )
        for number, episode in sorted(dataset.episodes.items()):
            reward = columns(episode, [REWARD])[REWARD].reshape(-1) > 0.5
            name = f"{dataset.path.name}/{number}"
            out.append(_labelled(name, dataset, number, reward, dataset.path.name, settings))
    else:
        sources = labels.read(target).sources
        shown = short_names([source.dataset for source in sources])
        sessions = short_names([source.file.with_suffix("") for source in sources])
        for source in sources:
            dataset, session = open_dataset(source.dataset), sessions[source.file.with_suffix("")]
            for number, success in sorted(labels.truth(source, lengths(dataset)).items()):
                name = f"{shown[source.dataset]}/{number}"
                out.append(_labelled(name, dataset, number, success, session, settings))
    if not any(e.success.any() for e in out):
        raise UserError(f"{target}: no frame of {len(out)} episodes is labelled success; label some")
    if all(e.success.all() for e in out):
        raise UserError(f"{target}: every frame is labelled success; label failures as well")
    return out


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Each path's last parts, as many as tell it from the others: a folder's name need not be unique."""
    out = {}
    for path in paths:
        others = {other.parts for other in paths if other != path}
        count = 1
        while any(other[-count:] == path.parts[-count:] for other in others):
            count += 1
        out[path] = "/".join(path.parts[-count:])
    return out


def _labelled(
    name: str,
    dataset: Dataset,
    number: int,
    success: NDArray[np.bool_],
    session: str,
    settings: TrainerSettings,
) -> Labelled:
    counted = ~labels.uncertain(success, settings.label_every)
    return Labelled(name, dataset, dataset.episodes[number], success, counted, session)
