"""Opening a dataset of many episodes to add one, against LeRobot's own loading of their metadata.

`bench_append.py [--episodes N]` (120). The baseline is what LeRobot does on its own whenever one is added.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from bench_recorder import spelled
from bench_reward import say

from gripwire.messages import JOINTS
from gripwire_recorder.lerobot_alone import without_torch
from gripwire_recorder.store import Staging
from gripwire_recorder.take import Picture, Row

ROWS, ROUNDS = 10, 5
SIZES = {"gripper_cam": (480, 640)}


def rows() -> list[Row]:
    """A short episode of one and the same picture."""
    jpeg = cv2.imencode(".jpg", spelled(0))[1].tobytes()
    joints = np.zeros(len(JOINTS), np.float32)
    return [
        Row(
            time=i * 100_000_000, state=joints, action=joints, gap_ms={"gripper_cam": 33.0, "state": 16.0},
            pictures={"gripper_cam": Picture(i * 100_000_000, "b", i, i, 640, 480, "jpeg", jpeg)},
            intervention=False, reward=None, verdict=-1,
        )
        for i in range(ROWS)
    ]  # fmt: skip


def measure(root: Path, episodes: int) -> None:
    from lerobot.datasets import io_utils

    from gripwire_recorder.writer import EpisodeWriter

    dataset, episode = root / "many", rows()
    opened: list[float] = []
    for number in range(episodes + ROUNDS):
        staging = Staging(dataset)
        began = time.monotonic()
        staging.prepare()
        writer = EpisodeWriter(staging.path, "many", "bench", 10, 18, SIZES)
        if number >= episodes:
            opened.append(time.monotonic() - began)
        for row in episode:
            writer.add(row)
        writer.finish({"journal": str(number)})
        staging.publish()
    began = time.monotonic()
    assert len(io_utils.load_episodes(dataset)) == episodes + ROUNDS
    alone, ours = time.monotonic() - began, float(np.median(opened))
    say(
        figure=f"a dataset of {episodes} opened to add an episode, s", median=round(ours, 3),
        lerobot_loads_all=round(alone, 2), ratio=round(ours / alone, 4),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=120)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/cache"}
        with without_torch():
            import gripwire_recorder.writer  # noqa: F401
        measure(Path(folder), given.episodes)


if __name__ == "__main__":
    main()
