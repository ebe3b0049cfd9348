"""The labelled episodes to learn from, each under a name of its own."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import REWARD, Dataset, Episode, columns, open_dataset
from gripwire_trainer import labels
from gripwire_trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Labelled:
    """One episode to learn from. Its ``name``, `dataset/number`, is unique within a job."""

    name: str
    dataset: Dataset
    episode: Episode
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    source: str
    """The label file that speaks of it, without its suffix."""
    session: str
    """As the recorder wrote it; empty where none is known."""
    gate: NDArray[np.bool_] | None = None
    """Whether the bundle's gate was open, where it has one."""


def read_episodes(target: Path, settings: TrainerSettings) -> list[Labelled]:
    """All labelled episodes, in order.

    Raises:
        UserError: see :mod:`labels` and :mod:`gripwire_reward.datasets`; also when a class is missing.
    """
    found = _of_dataset(target) if target.is_dir() else _of_labels(target)
    step = reading_step(found, settings)
    out = [replace(e, counted=~labels.uncertain(e.success, step)) for e in found]
    if not any(e.success.any() for e in out):
        raise UserError(f"{target}: no frame of {len(out)} episodes is labelled success; label some")
    if all(e.success.all() for e in out):
        raise UserError(f"{target}: every frame is labelled success; label failures as well")
    return out


def reading_step(episodes: Sequence[Labelled], settings: TrainerSettings) -> int:
    """Every how many frames the labels were read off: as the settings say, or as the labels show."""
    if settings.label_every != "auto":
        return settings.label_every
    return labels.common_step([edge for e in episodes for edge in _edges(e.success)])


def _of_dataset(path: Path) -> list[Labelled]:
    dataset = open_dataset(path)
    if REWARD not in dataset.features:
        raise UserError(
            f"{path}: it has no `{REWARD}`; name a label file instead, or build it first with "
            "`gripwire trainer build MERGE.json`"
        )
    from gripwire_trainer.datasets.build import are_demonstrations

    if are_demonstrations(path):
        raise UserError(
            f"{path}: demonstrations for HIL-SERL, whose rewards belong to the next picture; train on the "
            "label files, or on a dataset built without --offline-rl"
        )
    rewards = {
        number: columns(episode, [REWARD])[REWARD].reshape(-1) > 0.5
        for number, episode in sorted(dataset.episodes.items())
    }
    return _labelled(dataset.path.name, dataset, rewards, dataset.path.name)


def _of_labels(file: Path) -> list[Labelled]:
    out, sources = [], labels.read(file).sources
    shown = short_names([source.dataset for source in sources])
    files = short_names([source.file.with_suffix("") for source in sources])
    for source in sources:
        dataset = open_dataset(source.dataset)
        truth = dict(sorted(labels.truth(source, dataset.lengths).items()))
        out += _labelled(shown[source.dataset], dataset, truth, files[source.file.with_suffix("")])
    return out


def _labelled(
    shown: str, dataset: Dataset, truth: dict[int, NDArray[np.bool_]], source: str
) -> list[Labelled]:
    sessions = recorded_sessions(dataset.path)
    return [
        Labelled(
            name=f"{shown}/{number}",
            dataset=dataset,
            episode=dataset.episodes[number],
            success=success,
            counted=np.ones(len(success), bool),
            source=source,
            session=sessions.get(number, ""),
        )
        for number, success in truth.items()
    ]


def recorded_sessions(dataset: Path) -> dict[int, str]:
    """Which run of gripwire's recorder each episode of a dataset is from; empty for others' datasets."""
    out = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # a note beside the data, not the data
        for line in (dataset / "meta" / "gripwire.jsonl").read_text().splitlines():
            entry = json.loads(line)
            out[int(entry["episode"])] = str(entry["session"])
    return out


def _edges(success: NDArray[np.bool_]) -> list[int]:
    """First frames of all ranges of success, and last ones of those that end before the episode."""
    change = np.flatnonzero(success[1:] != success[:-1])
    return [int(i) + 1 if success[i + 1] else int(i) for i in change]


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
