"""Which episodes' frames a person wants to see, and what part of them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import Dataset, Episode, open_dataset
from gripwire_reward.preprocess import Crop, InputContract, central_square
from gripwire_trainer import labels
from gripwire_trainer.episodes import short_names

Interpolation = Literal["area", "linear", "cubic", "nearest"]

_NUMBERS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)


@dataclass(frozen=True)
class Cut:
    """What is shown of a dataset's frames: the only camera, its central square and that at its own size,
    unless told otherwise. ``crop``: top, left, height, width in pixels; ``size``: height, width."""

    camera: str | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    whole: bool = False
    interpolation: Interpolation = "area"

    def contract(self, dataset: Dataset) -> InputContract:
        """The cut as the preprocessing of a model that sees just that.

        Raises:
            UserError: the dataset has no such camera, or its frames are smaller than the crop.
        """
        key = dataset.camera(self.camera)
        height, width = dataset.cameras[key]
        box = (0, 0, height, width) if self.whole else self.crop
        try:
            part = Crop(top=box[0], left=box[1], height=box[2], width=box[3]) if box else None
            part = part or central_square(height, width)
            size = self.size or (part.height, part.width)
            return InputContract(
                key=key, frame=(height, width), crop=part, size=size, interpolation=self.interpolation
            )
        except ValueError as e:
            raise UserError(
                f"crop {box}: top, left, height and width within frames {height} high and {width} wide "
                f"are due, which {dataset.path} has"
            ) from e


@dataclass(frozen=True)
class Wanted:
    """One episode to extract into ``folder``; ``success``: its labels, if known, (length,)."""

    folder: Path
    dataset: Dataset
    episode: Episode
    contract: InputContract
    success: NDArray[np.bool_] | None = None

    @property
    def sheet(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.jpg")


def of_dataset(path: Path, out: Path, cut: Cut, chosen: Collection[int] | None = None) -> list[Wanted]:
    """The chosen episodes of a dataset, all by default.

    Raises:
        UserError: it is no dataset, or has no such episode.
    """
    dataset = open_dataset(path)
    return _wanted(dataset, out, cut, dict.fromkeys(sorted(dataset.episodes)), chosen)


def of_labels(file: Path, out: Path, cut: Cut, chosen: Collection[int] | None = None) -> list[Wanted]:
    """The labelled episodes of a label or merge file; of several sources each has a folder of its own.

    Raises:
        UserError: bad labels, or episodes chosen from several sources at once.
    """
    sources = labels.read(file).sources
    if chosen is not None and len(sources) > 1:
        raise UserError(
            f"{file}: --episodes needs one dataset, this has {len(sources)}; name one source file"
        )
    names = short_names([source.file.with_suffix("") for source in sources])
    found = []
    for source in sources:
        dataset = open_dataset(source.dataset)
        truth = labels.truth(source, {n: e.length for n, e in dataset.episodes.items()})
        folder = out / names[source.file.with_suffix("")] if len(sources) > 1 else out
        found += _wanted(dataset, folder, cut, dict(sorted(truth.items())), chosen)
    return found


def _wanted(
    dataset: Dataset,
    folder: Path,
    cut: Cut,
    episodes: Mapping[int, NDArray[np.bool_] | None],
    chosen: Collection[int] | None,
) -> list[Wanted]:
    for number in chosen or ():
        if number not in episodes:
            have = f"{min(episodes)} to {max(episodes)}" if episodes else "none"
            raise UserError(
                f"{dataset.path}: no episode {number} to show (there are {have}); correct --episodes"
            )
    contract = cut.contract(dataset)
    return [
        Wanted(folder / f"episode_{number:06d}", dataset, dataset.episodes[number], contract, success)
        for number, success in episodes.items()
        if (chosen is None or number in chosen) and dataset.episodes[number].length
    ]


def numbers(text: str) -> list[int]:
    """Episode numbers such as `0,3,7-9`.

    Raises:
        UserError: it is no such list.
    """
    out: list[int] = []
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise UserError(f"--episodes {text!r}: numbers and ranges are due, such as 0,3,7-9")
        out += range(int(match[1]), int(match[2] or match[1]) + 1)
    return out
