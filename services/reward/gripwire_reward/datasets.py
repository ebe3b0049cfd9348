"""Reads LeRobot datasets in place, v2.1 and v3.0: rows with pyarrow, pictures with PyAV, in order.

LeRobot itself reads only v3.0, takes 15 s to import and decodes at random access. Nothing here writes.
Layouts: ``meta/info.json`` names both; v2.1 has one file per episode, v3.0 packs several into one.
"""

import errno
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.messages import RobotState

REWARD, STATE = "next.reward", "observation.state"
"""LeRobot's columns for them."""


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's pictures are: ``path`` from ``start_s`` on."""

    path: Path
    start_s: float = 0.0


@dataclass(frozen=True)
class Episode:
    """One episode: its number, its rows, and where they are."""

    index: int
    length: int
    data: Path
    videos: dict[str, VideoPart] = field(default_factory=dict)
    task: str = ""


@dataclass(frozen=True)
class Dataset:
    """A LeRobot dataset as it lies on disk."""

    path: Path
    version: str
    fps: float
    features: dict[str, dict[str, Any]]
    episodes: dict[int, Episode]
    robot: str = ""

    @property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """Video keys with the height and width of their frames."""
        return {key: _height_width(f) for key, f in self.features.items() if f["dtype"] == "video"}

    @property
    def lengths(self) -> dict[int, int]:
        """Rows per episode."""
        return {number: episode.length for number, episode in self.episodes.items()}

    def camera(self, key: str | None = None) -> str:
        """``key`` if the dataset has it; without one, the only camera.

        Raises:
            UserError: it has no such camera, or several to choose from.
        """
        names = sorted(self.cameras)
        if key in names:
            return str(key)
        if key is None and len(names) == 1:
            return names[0]
        have = ", ".join(names) or "none stored as video"
        raise UserError(f"{self.path}: {f'no camera {key!r}' if key else 'choose a camera'}; it has: {have}")


def _height_width(feature: dict[str, Any]) -> tuple[int, int]:
    """Of a picture; LeRobot's HIL-SERL recorder puts the channels first, all others put them last."""
    first, second, third = feature["shape"]
    names = feature.get("names") or ("height",)
    channels_first = str(names[0]).startswith("channel")
    return (second, third) if channels_first else (first, second)


def open_dataset(path: Path) -> Dataset:
    """Read a dataset's description.

    Raises:
        UserError: it is not a dataset, or one of a version that is not read here, or it is damaged.
    """
    info_file = path / "meta" / "info.json"
    if not _is_file(info_file):
        raise UserError(
            f"{path}: not a LeRobot dataset (it has no meta/info.json); name the dataset's own folder, "
            "the one that holds meta, data and videos"
        )
    try:
        info = json.loads(info_file.read_text())
        version, fps = str(info["codebase_version"]), float(info["fps"])
        features = {
            key: {**f, "dtype": str(f["dtype"]), "shape": tuple(f["shape"])}
            for key, f in info["features"].items()
        }
        if version not in _EPISODES:
            raise UserError(f"{path}: a dataset of version {version}; v2.1 and v3.0 can be read")
        episodes = {e.index: e for e in _EPISODES[version](path, info)}
        found = Dataset(path, version, fps, features, episodes, str(info.get("robot_type") or ""))
        if not (found.fps > 0 and all(side > 0 for size in found.cameras.values() for side in size)):
            raise ValueError("a rate or a size of pictures that is not positive")
    # pyarrow's errors are ValueErrors and OSErrors; the others are what JSON of another shape leads to
    except (ValueError, KeyError, TypeError, OSError, AttributeError, IndexError) as e:
        raise UserError(
            f"{path}: its description under meta/ is damaged ({type(e).__name__}: {str(e)[:150]}); "
            "copy the dataset again, or record it again"
        ) from e
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than any file's
        return False


def _episodes_v21(path: Path, info: dict[str, Any]) -> list[Episode]:
    lines = (path / "meta" / "episodes.jsonl").read_text().splitlines()
    keys = [key for key, f in info["features"].items() if f["dtype"] == "video"]
    out = []
    for entry in (json.loads(line) for line in lines if line.strip()):
        number = int(entry["episode_index"])
        at = {"episode_chunk": number // int(info["chunks_size"]), "episode_index": number}
        videos = {key: VideoPart(path / info["video_path"].format(video_key=key, **at)) for key in keys}
        task = (entry.get("tasks") or [""])[0]
        out.append(Episode(number, int(entry["length"]), path / info["data_path"].format(**at), videos, task))
    return out


def _episodes_v30(path: Path, info: dict[str, Any]) -> list[Episode]:
    keys = [key for key, f in info["features"].items() if f["dtype"] == "video"]
    out = []
    for file in sorted((path / "meta" / "episodes").glob("*/*.parquet")):
        names = [n for n in pq.read_schema(file).names if not n.startswith("stats/")]
        for row in pq.read_table(file, columns=names).to_pylist():
            videos = {}
            for key in keys:
                at = {
                    "chunk_index": row[f"videos/{key}/chunk_index"],
                    "file_index": row[f"videos/{key}/file_index"],
                }
                part = path / info["video_path"].format(video_key=key, **at)
                videos[key] = VideoPart(part, float(row[f"videos/{key}/from_timestamp"]))
            at = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            data = path / info["data_path"].format(**at)
            task = (row.get("tasks") or [""])[0]
            out.append(Episode(int(row["episode_index"]), int(row["length"]), data, videos, task))
    return out


_EPISODES = {"v2.1": _episodes_v21, "v3.0": _episodes_v30}


def rows(episode: Episode, names: list[str]) -> pa.Table:
    """The named columns of an episode's rows.

    Raises:
        UserError: the rows cannot be read, or are not as many as the description says.
    """
    try:
        table = pq.read_table(episode.data, columns=names, filters=[("episode_index", "=", episode.index)])
    except (OSError, ValueError) as e:
        said = " ".join(str(e).split())[:150]
        raise UserError(
            f"{episode.data}: the rows of episode {episode.index} cannot be read ({said}); "
            "leave that episode out or copy the dataset again"
        ) from e
    if table.num_rows != episode.length:
        raise UserError(
            f"{episode.data}: episode {episode.index} has {table.num_rows} rows, its description says "
            f"{episode.length}; leave that episode out or copy the dataset again"
        )
    return table


def columns(episode: Episode, names: list[str]) -> dict[str, NDArray[Any]]:
    """The named columns of an episode's rows, each (length, ...).

    Raises:
        UserError: as :func:`rows`.
    """
    table = rows(episode, names)
    return {name: np.asarray(table[name].to_pylist()) for name in names}


def states(dataset: Dataset, episode: Episode) -> list[RobotState]:
    """The robot's state in each row, as far as the dataset has it: joint positions.

    Raises:
        UserError: as :func:`rows`.
    """
    names = dataset.features.get(STATE, {}).get("names") or []
    if isinstance(names, dict):  # older datasets group them: {"motors": [...]}
        names = next(iter(names.values()), [])
    joints = [str(name).removesuffix(".pos").removeprefix("main_") for name in names]
    if not joints:
        return [RobotState(position={}) for _ in range(episode.length)]
    values = columns(episode, [STATE])[STATE].tolist()
    return [RobotState(position=dict(zip(joints, row, strict=False))) for row in values]


def frames(dataset: Dataset, episode: Episode, key: str) -> Iterator[NDArray[np.uint8]]:
    """The episode's pictures in order, (H, W, 3) uint8 RGB, exactly ``episode.length`` of them.

    Raises:
        UserError: the video is missing, cannot be decoded, or is shorter than the rows.
    """
    import av

    part = episode.videos[key]
    where = f"{part.path}: episode {episode.index}"
    if not part.path.is_file():
        raise UserError(f"{where}: its video is missing; copy the dataset again or leave that episode out")
    count = 0
    try:
        with av.open(str(part.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            # Half a frame of slack: time stamps are rounded to the container's own clock.
            first = part.start_s - 0.5 / dataset.fps
            if first > 0 and stream.time_base:
                container.seek(int(part.start_s / stream.time_base), stream=stream, backward=True)
            decoded = (
                frame for frame in container.decode(stream) if frame.time is not None and frame.time >= first
            )
            for frame in itertools.islice(decoded, episode.length):
                yield frame.to_ndarray(format="rgb24")
                count += 1
    except (av.FFmpegError, IndexError) as e:
        if getattr(e, "errno", None) in (errno.ENOMEM, errno.EAGAIN):  # or of threads: not the file's fault
            raise MemoryError(f"{where}: not enough to decode it") from e
        raise UserError(
            f"{where}: cannot be decoded ({e}); copy the dataset again or leave that episode out"
        ) from e
    if count != episode.length:
        raise UserError(
            f"{where}: the video ends after {count} frames, there are {episode.length} rows; "
            "leave that episode out or record it again"
        )


def resolve(name: str, datasets_root: Path) -> Path:
    """A dataset as a person names it: a folder, or a name under the data root's datasets/."""
    direct = Path(name).expanduser()
    return direct if direct.is_dir() or not (datasets_root / name).is_dir() else datasets_root / name
