"""What a dataset will hold: which episodes of which sources, which columns, and the reward of every row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import REWARD, Dataset, Episode, open_dataset
from gripwire_reward.preprocess import central_square
from gripwire_trainer import labels
from gripwire_trainer.datasets.demonstrations import Demonstrations
from gripwire_trainer.labels import Labels, Source

DONE, ACTION = "next.done", "action"
PENALTY = "complementary_info.discrete_penalty"
LEROBOTS_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that say where a row stands; those of the source say where it stood there."""

_PICTURE = ["height", "width", "channels"]
_NO_TASK = "unnamed task"


@dataclass(frozen=True)
class Planned:
    """One episode: its first ``len(reward)`` rows. ``start``: the dataset's rows before it."""

    dataset: Dataset
    episode: Episode
    task: str
    start: int
    reward: NDArray[np.float32]
    done: NDArray[np.bool_] | None = None

    @property
    def where(self) -> str:
        return f"{self.dataset.path}: episode {self.episode.index}"


@dataclass(frozen=True)
class Cut:
    """What of a picture is taken, (top, left, height, width), and (height, width) of what becomes of it."""

    box: tuple[int, int, int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """The dataset to be. ``features`` are its columns without LeRobot's own; ``left_out`` are those that do
    not mean the same in all sources; ``cuts``: by camera, of pictures that are not taken as they are.
    """

    name: str
    fps: float
    robot: str
    features: dict[str, dict[str, Any]]
    episodes: list[Planned]
    left_out: list[str]
    cuts: dict[str, Cut]

    @property
    def cameras(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    @property
    def tasks(self) -> list[str]:
        """Each once, in the order in which they come."""
        return list(dict.fromkeys(planned.task for planned in self.episodes))


def make(merge: Labels, demonstrations: Demonstrations | None = None) -> Plan:
    """Plan the reward dataset of a merge, or its demonstrations.

    Raises:
        UserError: bad labels, sources that do not fit together, or nothing to build.
    """
    opened = [(source, open_dataset(source.dataset)) for source in merge.sources]
    first = opened[0][1]
    for _, other in opened[1:]:
        _check_alike(first, other)
    features, left_out = _common_features([dataset for _, dataset in opened])
    features[REWARD] = _scalar("float32")
    cuts = {}
    if demonstrations:
        _make_transitions(features, first)
        cuts = _cuts(demonstrations, first)
        for camera, cut in cuts.items():
            features[camera] = {"dtype": "video", "shape": (*cut.size, 3), "names": _PICTURE}
    episodes: list[Planned] = []
    for source, dataset, number, success in _labelled(opened, demonstrations):
        episode = dataset.episodes[number]
        start = episodes[-1].start + len(episodes[-1].reward) if episodes else 0
        task = episode.task or _NO_TASK
        if demonstrations:
            reward, done = demonstrations.transitions(success, source.file, number)
            episodes.append(Planned(dataset, episode, task, start, reward, done))
        else:
            episodes.append(Planned(dataset, episode, task, start, success.astype(np.float32)))
    if not episodes:
        raise UserError(f"{merge.file}: no episode to build a dataset of; label some")
    robots = {dataset.robot for _, dataset in opened}
    robot = first.robot if len(robots) == 1 else ""
    return Plan(merge.name, first.fps, robot, features, episodes, left_out, cuts)


def _labelled(
    opened: list[tuple[Source, Dataset]], demonstrations: Demonstrations | None
) -> Iterator[tuple[Source, Dataset, int, NDArray[np.bool_]]]:
    chosen = demonstrations.choose([source for source, _ in opened]) if demonstrations else None
    for source, dataset in opened:
        for number, success in sorted(labels.truth(source, dataset.lengths).items()):
            if not len(success):
                raise UserError(f"{dataset.path}: episode {number} has no rows; leave it out")
            if chosen is None or chosen(source, number, success):
                yield source, dataset, number, success


def _check_alike(first: Dataset, other: Dataset) -> None:
    if other.cameras != first.cameras:
        raise UserError(
            f"{first.path} has {_cameras(first)}, {other.path} has {_cameras(other)}; merge only like with "
            "like"
        )
    if other.fps != first.fps:
        raise UserError(
            f"{first.path} has {first.fps:g} frames per second, {other.path} {other.fps:g}; merge "
            "only like with like"
        )


def _cameras(dataset: Dataset) -> str:
    shown = [f"{key} ({width}x{height})" for key, (height, width) in sorted(dataset.cameras.items())]
    return f"the cameras {', '.join(shown)}" if shown else "no camera stored as video"


def _common_features(datasets: list[Dataset]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The columns that mean the same in all sources, and the names of those that do not, or that are neither
    videos, nor numbers, nor text.
    """
    keys = dict.fromkeys(key for dataset in datasets for key in dataset.features)
    shared, left_out = {}, []
    for key in (key for key in keys if key not in LEROBOTS_OWN and key != REWARD):
        meanings = [_meaning(dataset.features.get(key, {})) for dataset in datasets]
        dtype, shape, names = meanings[0]
        # Cameras are alike already; where the channels stand makes no difference to a video.
        alike = dtype == "video" or all(meaning == meanings[0] for meaning in meanings)
        if alike and _is_known(dtype) and "/" not in key:  # which LeRobot does not take in a name
            shared[key] = {"dtype": dtype, "shape": shape, "names": names}
        else:
            left_out.append(key)
    return shared, left_out


def _is_known(dtype: Any) -> bool:
    try:
        return dtype in ("video", "string") or np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _meaning(feature: dict[str, Any]) -> tuple[Any, tuple[int, ...], Any]:
    return feature.get("dtype"), tuple(feature.get("shape", ())), feature.get("names")


def _make_transitions(features: dict[str, dict[str, Any]], first: Dataset) -> None:
    if ACTION not in features:
        raise UserError(
            f"{first.path}: demonstrations need `{ACTION}`, which is not in all sources alike; name sources "
            "that were recorded with actions"
        )
    features[DONE] = _scalar("bool")
    # A policy with a discrete gripper reads it from every batch, and batches are half demonstrations.
    features.setdefault(PENALTY, {**_scalar("float32"), "names": ["discrete_penalty"]})


def _cuts(demonstrations: Demonstrations, dataset: Dataset) -> dict[str, Cut]:
    if demonstrations.size is None:
        return {}
    cuts = {}
    for camera, (height, width) in dataset.cameras.items():
        square = central_square(height, width)
        top, left, high, wide = box = demonstrations.crop or (
            square.top, square.left, square.height, square.width
        )  # fmt: skip
        if min(top, left) < 0 or min(high, wide) < 1 or top + high > height or left + wide > width:
            raise UserError(
                f"{dataset.path}: the crop {list(box)} (top, left, height, width) does not lie within the "
                f"{width}x{height} pictures of {camera}; correct `crop` under [trainer]"
            )
        cuts[camera] = Cut(box, (demonstrations.size, demonstrations.size))
    return cuts


def _scalar(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": (1,), "names": None}
