"""Builds the reward dataset: the labelled episodes with `next.reward`, in LeRobot v3.0, by LeRobot's "
"writer."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError, no_space
from gripwire.files import folder_whole
from gripwire_reward.datasets import Dataset, Episode, columns, frames, open_dataset
from gripwire_trainer.labels import Labels, truth

REWARD = "next.reward"
PROVENANCE = "gripwire_build.json"
_OWN = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
"""Columns that LeRobot's writer fills itself."""

_NEARLY_NOTHING = 4 * 2**20
"""Bytes free at which a failed write is put down to a full disk."""

_STALE_S = 60.0

Progress = Callable[[float], None]


def build(
    labels: Labels, out: Path, replace: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the labelled episodes of all sources as one dataset at ``out``; a summary.

    Sources are read in place and never changed. The dataset appears whole or not at all; one that is
    there already is kept unless ``replace`` asks for it by name, and then until the new one is complete.

    Raises:
        UserError: bad labels, sources that do not fit together, an existing dataset, or a full disk.
    """
    if out.exists() and not replace:
        raise UserError(
            f"{out} exists already and is never overwritten unasked; choose another --out NAME, or add "
            "--replace"
        )
    opened = [(source, open_dataset(source.dataset)) for source in labels.sources]
    plans = [(dataset, truth(source, lengths(dataset))) for source, dataset in opened]
    features = _common_features([dataset for dataset, _ in plans])
    try:
        if not out.exists():
            with folder_whole(out) as aside:
                summary = _write(plans, features, labels, aside, progress)
        else:
            fresh = out.with_name(f".{out.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            with folder_whole(fresh) as aside:
                summary = _write(plans, features, labels, aside, progress)
            _exchange(fresh, out)
    except OSError as e:
        raise UserError(
            f"{out} cannot be written ({e.strerror or e}); check that folder and try again"
        ) from e
    return summary | {"dataset": str(out)}


def sweep(datasets: Path) -> None:
    """Remove what builds that were killed left under ``datasets``: `.NAME.PID.tmp` of dead processes.

    A folder shared with another machine or container holds ids that mean nothing here, so what was touched
    within the last minute stays: a build writes more often.
    """
    for path in [*datasets.glob(".*.tmp"), *datasets.glob("*/.*.tmp")]:
        pid = path.name.split(".")[-2]
        if path.is_dir() and pid.isdecimal() and not _alive(int(pid)):
            with contextlib.suppress(FileNotFoundError):  # another build sweeps as well
                touched = max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
                if time.time() - touched > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def lengths(dataset: Dataset) -> dict[int, int]:
    """Rows per episode."""
    return {number: episode.length for number, episode in dataset.episodes.items()}


def _exchange(fresh: Path, out: Path) -> None:
    """Put ``fresh`` in the place of ``out``; the old one is deleted last."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old)


def _common_features(datasets: list[Dataset]) -> dict[str, dict[str, Any]]:
    """The features all sources share; cameras and rate must agree.

    Raises:
        UserError: naming the two that differ.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if other.cameras != first.cameras:
            raise UserError(
                f"{first.path} and {other.path} have different cameras; merge only like with like"
            )
        if other.fps != first.fps:
            raise UserError(
                f"{first.path} has {first.fps:g} frames per second, {other.path} {other.fps:g}; merge "
                "only like with like"
            )
    shared = {}
    for key, feature in first.features.items():
        same = all(
            tuple(d.features.get(key, {}).get("shape", ())) == tuple(feature["shape"]) for d in datasets
        )
        if key not in _OWN and key != REWARD and same:
            entry = {k: feature[k] for k in ("dtype", "names") if k in feature}
            shared[key] = {**entry, "shape": tuple(feature["shape"])}
    shared[REWARD] = {"dtype": "float32", "shape": (1,), "names": None}
    return shared


def _write(
    plans: list[tuple[Dataset, dict[int, NDArray[np.bool_]]]],
    features: dict[str, dict[str, Any]],
    labels: Labels,
    aside: Path,
    progress: Progress | None,
) -> dict[str, Any]:
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    aside.rmdir()  # LeRobot wants to make the folder itself
    # Its encoder drops a frame when its queue is full, and every later row then shows the wrong picture:
    # with room for the longest episode it cannot be.
    longest = max(len(success) for _, marks in plans for success in marks.values())
    writer = LeRobotDataset.create(
        repo_id=labels.name,
        fps=int(plans[0][0].fps),
        features=features,
        root=aside,
        use_videos=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
        streaming_encoding=True,
        encoder_queue_maxsize=longest + 1,
    )
    total = sum(len(success) for _, marks in plans for success in marks.values())
    done, sources = 0, []
    try:
        for dataset, marks in plans:
            for number, success in sorted(marks.items()):
                _copy_episode(writer, dataset, dataset.episodes[number], success, features)
                sources.append({"dataset": str(dataset.path), "episode": number})
                done += len(success)
                if progress:
                    progress(done / total)
        writer.finalize()
    except BaseException as e:
        # A full disk reaches us from the encoder's threads as all kinds of errors.
        full = isinstance(e, Exception) and shutil.disk_usage(aside).free < _NEARLY_NOTHING
        # Its threads, and later its destructor, would write into the folder after that is gone.
        with contextlib.suppress(Exception):
            writer.clear_episode_buffer()
            writer.finalize()
        if full:
            raise no_space(aside.parent) from e
        raise
    (aside / "meta" / PROVENANCE).write_text(
        json.dumps({"labels": str(labels.file), "episodes": sources}, indent=1)
    )
    successes = sum(int(s.sum()) for _, marks in plans for s in marks.values())
    return {"episodes": len(sources), "frames": total, "success_frames": successes}


def _copy_episode(
    writer: Any,
    dataset: Dataset,
    episode: Episode,
    success: NDArray[np.bool_],
    features: dict[str, dict[str, Any]],
) -> None:
    videos = {key: frames(dataset, episode, key) for key in dataset.cameras}
    plain = [key for key in features if key not in videos and key != REWARD]
    rows = columns(episode, plain)
    for i in range(episode.length):
        row: dict[str, Any] = {key: next(pictures) for key, pictures in videos.items()}
        for key in plain:
            shape, dtype = features[key]["shape"], features[key]["dtype"]
            row[key] = (
                np.asarray(rows[key][i], dtype).reshape(shape) if dtype != "string" else str(rows[key][i])
            )
        row[REWARD] = np.array([success[i]], np.float32)
        row["task"] = episode.task or "unnamed task"
        writer.add_frame(row)
    writer.save_episode()
