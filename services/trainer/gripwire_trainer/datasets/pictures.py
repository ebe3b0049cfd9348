"""Statistics of an episode's pictures, which training normalises by: from the source, or by looking.

As LeRobot has them: per channel in 0..1, (3, 1, 1), and the number of pictures looked at.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gripwire_reward.datasets import Dataset

Stats = dict[str, NDArray[np.generic]]

_NEEDED = ("min", "max", "mean", "std", "count")


def of_source(dataset: Dataset) -> dict[tuple[int, str], Stats]:
    """What the dataset says of its episodes' pictures, by episode and camera, as far as it can be read."""
    read = _v21 if dataset.version == "v2.1" else _v30
    found = {}
    with suppress(ValueError, KeyError, TypeError, OSError):  # pyarrow's errors are ValueErrors and OSErrors
        for number, key, stats in read(dataset):
            if set(_NEEDED) <= set(stats):
                found[number, key] = {name: _shaped(name, value) for name, value in stats.items()}
    return found


def by_looking(shown: Iterator[NDArray[np.uint8]], count: int) -> Stats:
    """The same of the pictures that LeRobot would look at, out of ``count``; needs LeRobot."""
    from lerobot.datasets.compute_stats import (
        RunningQuantileStats,
        auto_downsample_height_width,
        sample_indices,
    )

    wanted = set(sample_indices(count))
    running = RunningQuantileStats()
    for i, picture in enumerate(shown):
        if i in wanted:
            running.update(auto_downsample_height_width(picture.transpose(2, 0, 1)).transpose(1, 2, 0))
    seen = running.get_statistics() | {"count": np.array([len(wanted)])}
    return {name: v if name == "count" else v.reshape(3, 1, 1) / 255 for name, v in seen.items()}


def plain(stats: Stats) -> dict[str, Any]:
    """As JSON has it."""
    return {name: value.tolist() for name, value in stats.items()}


def arrays(stats: dict[str, Any]) -> Stats:
    """Back from JSON."""
    return {name: np.array(value) for name, value in stats.items()}


def _shaped(name: str, value: Any) -> NDArray[np.generic]:
    """As it must be, or a ValueError or TypeError."""
    return np.array(value, int).reshape(1) if name == "count" else np.array(value, float).reshape(3, 1, 1)


def _v21(dataset: Dataset) -> list[tuple[int, str, dict[str, Any]]]:
    file = dataset.path / "meta" / "episodes_stats.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    entries = [json.loads(line) for line in lines if line.strip()]
    return [
        (int(entry["episode_index"]), key, entry["stats"][key])
        for entry in entries
        for key in dataset.cameras
        if key in entry["stats"]
    ]


def _v30(dataset: Dataset) -> list[tuple[int, str, dict[str, Any]]]:
    found = []
    for file in sorted((dataset.path / "meta" / "episodes").glob("*/*.parquet")):
        there = set(pq.read_schema(file).names)
        for key in dataset.cameras:
            opening = f"stats/{key}/"
            names = [name for name in there if name.startswith(opening)]
            if f"{opening}mean" in there:
                for row in pq.read_table(file, columns=["episode_index", *names]).to_pylist():
                    stats = {n.removeprefix(opening): row[n] for n in names if row[n] is not None}
                    found.append((int(row["episode_index"]), key, stats))
    return found
