"""Tiny datasets made by hand: a v2.1 layout with pictures that show success in red, or their own number."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gripwire_trainer.settings import TrainerSettings

KEY = "observation.images.gripper_cam"
HEIGHT, WIDTH, FPS = 48, 64, 10

QUICK = TrainerSettings(size=(64, 64), views=2, epochs=25, build=False, threads=1)
"""Enough to learn what :func:`coloured` shows."""


def numbered(number: int) -> NDArray[np.uint8]:
    """A picture that encodes its number in eight broad stripes, which survive video compression."""
    bits = [(number >> i) & 1 for i in range(8)]
    return np.repeat(np.repeat(np.uint8(bits)[None] * 200 + 20, WIDTH // 8, 1), HEIGHT, 0)[..., None].repeat(
        3, 2
    )


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number that :func:`numbered` drew."""
    stripes = picture[..., 0].reshape(HEIGHT, 8, WIDTH // 8).mean((0, 2)) > 120
    return int(sum(1 << i for i, on in enumerate(stripes) if on))


def coloured(success: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A grey scene with a square: red and central for success, blue and anywhere for failure."""
    picture = rng.integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    y, x = (16, 24) if success else (int(rng.integers(0, 32)), int(rng.integers(8, 40)))
    picture[y : y + 16, x : x + 16] = (220, 30, 30) if success else (30, 30, 220)
    return picture


def episodes(count: int, length: int = 16) -> list[tuple[list[NDArray[np.uint8]], int | None]]:
    """``count`` episodes, three of four with success from a random frame on."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(count):
        start = None if i % 4 == 3 else int(rng.integers(4, length - 4))
        shown = [coloured(start is not None and frame >= start, rng) for frame in range(length)]
        out.append((shown, start))
    return out


def write_v21(path: Path, shown: list[list[NDArray[np.uint8]]], codec: str = "libx264") -> Path:
    """A LeRobot v2.1 dataset of these episodes."""
    for index, pictures in enumerate(shown):
        _write_video(path / f"videos/chunk-000/{KEY}/episode_{index:06d}.mp4", pictures, codec)
        _write_rows(path / f"data/chunk-000/episode_{index:06d}.parquet", index, len(pictures))
    scalar = {"shape": [1], "names": None}
    features = {
        KEY: {"dtype": "video", "shape": shown[0][0].shape, "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
        **{k: {"dtype": "int64", **scalar} for k in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {"dtype": "float32", **scalar},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": 1000,
        "features": features,
        "total_episodes": len(shown),
        "robot_type": "so101_follower",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    meta = path / "meta"
    meta.mkdir(parents=True)
    (meta / "info.json").write_text(json.dumps(info))
    lines = [{"episode_index": i, "tasks": ["grasp"], "length": len(p)} for i, p in enumerate(shown)]
    (meta / "episodes.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (meta / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "grasp"}))
    return path


def _write_video(file: Path, pictures: list[NDArray[np.uint8]], codec: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options={"crf": "10", "g": "8"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for packet in _packets(stream, pictures):
            container.mux(packet)


def _packets(stream: av.VideoStream, pictures: list[NDArray[np.uint8]]) -> Iterator[av.Packet]:
    for picture in pictures:
        yield from stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    yield from stream.encode()


def _write_rows(file: Path, index: int, length: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = np.arange(length)
    pair = [[float(i), float(-i)] for i in range(length)]
    table = {
        "observation.state": pa.array(pair, pa.list_(pa.float32(), 2)),
        "action": pa.array(pair, pa.list_(pa.float32(), 2)),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": frame,
        "episode_index": np.full(length, index),
        "index": frame + index * length,
        "task_index": np.zeros(length, np.int64),
    }
    pq.write_table(pa.table(table), file)


def write_labels(folder: Path, dataset: Path, starts: list[int | None], name: str = "labels") -> Path:
    """A source file with these beginnings of success."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {str(i): None if s is None else {"success_start": s} for i, s in enumerate(starts)}
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"dataset_path": str(dataset), "episodes": entries}))
    return file
