"""All that needs LeRobot: rows in its types, statistics and the description, by its own functions.

Importing this takes LeRobot's 15 seconds; who builds again and again imports it at the start.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from datasets.table import table_cast
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.video_utils import get_video_info
from lerobot.processor.hil_processor import ImageCropResizeProcessorStep
from lerobot.utils.constants import DEFAULT_FEATURES
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward import datasets as sources
from gripwire_trainer.datasets.pictures import Stats
from gripwire_trainer.datasets.plan import DONE, Plan, Planned

EpisodeStats = dict[str, Stats]


def rows(plan: Plan, index: int) -> pa.Table:
    """The rows of the planned episode ``index``, as LeRobot's own writer would have them.

    Raises:
        UserError: the source's rows cannot be read, or are not of the type that their description says.
    """
    planned = plan.episodes[index]
    features = {key: f for key, f in {**plan.features, **DEFAULT_FEATURES}.items() if f["dtype"] != "video"}
    made = _made(plan, planned, index)
    taken = [key for key in features if key not in made and key in planned.dataset.features]
    read = sources.rows(planned.episode, taken).slice(0, len(planned.reward))
    schema = get_hf_features_from_features(features).arrow_schema
    columns = {}
    for key, feature in features.items():
        try:
            column = read[key] if key in taken else pa.chunked_array([made[key]])
            if feature["shape"] == (1,) and pa.types.is_nested(column.type):  # a number in brackets
                column = pc.list_element(column, 0)
            columns[key] = table_cast(pa.table({key: column}), pa.schema([schema.field(key)]))[key]
        except (pa.ArrowException, TypeError, ValueError) as e:
            raise UserError(
                f"{planned.episode.data}: episode {planned.episode.index}: the column {key} cannot be read "
                f"as {feature['dtype']} {list(feature['shape'])} ({' '.join(str(e).split())[:120]}); "
                "leave that episode out or copy the dataset again"
            ) from e
    return pa.table(columns).cast(schema)


def _made(plan: Plan, planned: Planned, index: int) -> dict[str, pa.Array]:
    """The columns that do not come from the source."""
    count = len(planned.reward)
    frame = np.arange(count)
    made = {
        sources.REWARD: planned.reward,
        "timestamp": (frame / plan.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(count, index),
        "index": planned.start + frame,
        "task_index": np.full(count, plan.tasks.index(planned.task)),
    }
    if planned.done is not None:
        made[DONE] = planned.done
    missing = [key for key in plan.features if key not in made and key not in planned.dataset.features]
    made |= {key: np.zeros(count, plan.features[key]["dtype"]) for key in missing}
    return {key: pa.array(values) for key, values in made.items()}


def save_rows(table: pa.Table) -> bytes:
    """As a parquet file, compressed as LeRobot's own."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", use_dictionary=True)
    return bytes(sink.getvalue())


def statistics(table: pa.Table, plan: Plan) -> EpisodeStats:
    """Of the episode's columns, by LeRobot."""
    features = {**plan.features, **DEFAULT_FEATURES}
    numeric = [key for key in table.column_names if features[key]["dtype"] != "string"]
    found = compute_episode_stats({key: _array(table[key]) for key in numeric}, features)
    return {key: {name: _number(name, value) for name, value in s.items()} for key, s in found.items()}


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.to_pylist())


def _number(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """Of a single row LeRobot keeps the column's own type, which no other episode's has."""
    return value if name == "count" else value.astype(np.float64)


def video_info(file: Path, described: dict[str, Any]) -> dict[str, Any]:
    """What a dataset says about a video: ``described`` by the source, corrected by what LeRobot sees."""
    av.logging.set_libav_level(av.logging.ERROR)  # LeRobot lets libav talk to the terminal from here on
    depth = bool(described.get("is_depth_map") or described.get("video.is_depth_map"))
    seen = {**described, **get_video_info(file), "is_depth_map": depth}
    seen.pop("video.is_depth_map", None)
    return seen


def cut_out(
    shown: Iterable[NDArray[np.uint8]], box: tuple[int, int, int, int], size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Pictures as LeRobot's own processor crops (top, left, height, width) and resizes them for a policy."""
    torch.set_num_threads(1)  # more get into each other's way over pictures so small
    top, left, height, width = box
    step = ImageCropResizeProcessorStep(resize_size=size)
    made = []
    for picture in shown:
        part = np.ascontiguousarray(picture[top : top + height, left : left + width].transpose(2, 0, 1))
        seen = step.observation({"image": torch.from_numpy(part)[None].float() / 255})["image"][0]
        made.append((seen.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    return made


def create(root: Path, plan: Plan) -> LeRobotDatasetMetadata:
    """An empty dataset at ``root``, which must not be there yet."""
    fps = int(plan.fps) if plan.fps.is_integer() else plan.fps
    return LeRobotDatasetMetadata.create(
        repo_id=plan.name,
        fps=fps,
        features=plan.features,
        robot_type=plan.robot or None,
        root=root,
        use_videos=bool(plan.cameras),
        metadata_buffer_size=len(plan.episodes),
    )


def describe(
    meta: LeRobotDatasetMetadata,
    plan: Plan,
    places: list[dict[str, Any]],
    stats: list[EpisodeStats],
    infos: dict[str, list[dict[str, Any]]],
) -> None:
    """Write the description: per episode its place (LeRobot's columns) and statistics, per camera its videos.

    ``infos`` may differ between videos: what is not the same in all of them becomes null, as LeRobot does it
    when it merges datasets. Of the statistics remain those that every episode has.
    """
    for camera, seen in infos.items():
        meta.info.features[camera]["info"] = {
            key: value if all(info.get(key) == value for info in seen) else None
            for key, value in seen[0].items()
        }
    common = {
        key: set.intersection(*(set(episode[key]) for episode in stats))
        for key in stats[0]
        if all(key in episode for episode in stats)
    }
    for index, (planned, place, found) in enumerate(zip(plan.episodes, places, stats, strict=True)):
        kept = {key: {n: v for n, v in found[key].items() if n in names} for key, names in common.items()}
        meta.save_episode_tasks([planned.task])
        meta.save_episode(index, len(planned.reward), [planned.task], kept, place)
    meta.finalize()
