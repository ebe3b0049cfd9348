"""The recorder for a shift: 20-second episodes at 30 fps, states at 60 Hz, training beside.

`bench_recorder.py [--minutes M]` (10). It publishes pictures that spell their own number, so that every row
of every video can be checked afterwards. A stack on ports of its own; one JSON line per figure.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
from bench_reward import running, say, spread
from numpy.typing import NDArray

from gripwire import bus, clock, control
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import (
    JOINTS,
    EpisodeState,
    Frame,
    RobotAction,
    RobotState,
    StartEpisode,
    StopEpisode,
    Train,
    TrainerState,
)
from gripwire.topics import Topics

BASE = 28200
HEIGHT, WIDTH, BLOCK = 480, 640, 96
BITS = 24
NUMBERS = 512
"""Pictures are drawn beforehand and shown over and over: what stands in for a camera costs little."""
EPISODE_S = 20.0
TRAINING = 8
_NOISE = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 1))


def spelled(number: int) -> NDArray[np.uint8]:
    """A noisy picture (480, 640, 3) whose black and white blocks spell ``number``."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    blocks = np.array(bits, np.float64).reshape(4, 6).repeat(BLOCK, 0).repeat(BLOCK, 1) * 180 + 40
    picture = np.full((HEIGHT, WIDTH, 1), 128.0)
    picture[: 4 * BLOCK, : 6 * BLOCK, 0] = blocks
    noisy = np.clip(picture + np.roll(_NOISE, 7 * number, 0), 0, 255).astype(np.uint8)
    return np.repeat(noisy, 3, axis=2)


def read(picture: NDArray[np.uint8]) -> int:
    """The number that a picture spells."""
    centres = np.arange(BLOCK // 2, 6 * BLOCK, BLOCK)
    grey = picture[..., 0]
    means = [grey[y - 20 : y + 20, x - 20 : x + 20].mean() for y in centres[:4] for x in centres]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 130)


class Hardware:
    """A camera at 30 Hz and an arm at 60 Hz, as the bus sees them."""

    def __init__(self, topics: Topics) -> None:
        self._camera: bus.Publisher[Frame] = bus.Publisher(topics["camera/gripper_cam"])
        self._state: bus.Publisher[RobotState] = bus.Publisher(topics["robot/state"])
        self._action: bus.Publisher[RobotAction] = bus.Publisher(topics["robot/action"])
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        self._jpegs = [cv2.imencode(".jpg", spelled(n), quality)[1].tobytes() for n in range(NUMBERS)]
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._film, daemon=True),
            threading.Thread(target=self._move, daemon=True),
        ]

    def _film(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / 30, time.monotonic() - 0.1)
            number, taken = self._camera.sent, clock.monotonic_ns()
            frame = Frame(
                valid=True, camera="gripper_cam", width=WIDTH, height=HEIGHT, encoding="jpeg",
                exposure_seq=number, t_capture=taken,
            )  # fmt: skip
            self._camera.publish(frame, self._jpegs[number % NUMBERS])

    def _move(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / 60, time.monotonic() - 0.1)
            now = clock.monotonic_ns()
            position = dict.fromkeys(JOINTS, now % 60_000_000_000 / 1e9)
            self._state.publish(RobotState(valid=True, position=position, t_capture=now))
            self._action.publish(RobotAction(valid=True, position=position, source="script", t_capture=now))

    def __enter__(self) -> "Hardware":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for publisher in (self._camera, self._state, self._action):
            publisher.close()


def family_mib(pid: int) -> float:
    """Memory of a process and those it has started, pages that they share counted once."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for each in (str(pid), *children):
        rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        total += int(rollup.split("Pss:")[1].split()[0]) / 1024
    return total


class Shift:
    """Episodes one after the other, and what each cost."""

    def __init__(self, topics: Topics, pid: int) -> None:
        self._control, self._pid = topics.control("recorder"), pid
        self.states = Latest(topics["episode"], EpisodeState)
        self.saved = 0
        self.durable_s: list[float] = []
        self.memory: list[float] = []
        self.problems: list[str] = []

    def record(self, dataset: str, seconds: float) -> None:
        self._ask(StartEpisode(task="bench", dataset=dataset))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            self.memory.append(family_mib(self._pid))
        begun = time.monotonic()
        self._ask(StopEpisode())
        seen = self.states.get()
        while seen is None or seen.message.saved == self.saved:
            seen = self.states.wait(30, after=seen)
            if seen is None:
                raise SystemExit("an episode was not saved within 30 s")
        self.durable_s.append(time.monotonic() - begun)
        self.saved = seen.message.saved
        if seen.message.problem or seen.message.drops:
            self.problems.append(f"{seen.message.problem} {seen.message.drops}")

    def _ask(self, command: Any) -> None:
        control.request(self._control, "recorder", command, 20)


def train_for_ever(
    topics: Topics, data: Path, ended: threading.Event, done: list[float], failed: list[str]
) -> None:
    """One training after the other, each from nothing; ``failed``: why there are no more of them."""
    with Latest(topics["trainer"], TrainerState) as states:
        while not ended.is_set():
            shutil.rmtree(data / "cache" / "features", ignore_errors=True)
            begun, seen = time.monotonic(), None
            try:
                order = Train(labels="bench.json", offer=False)
                job = control.request(topics.control("trainer"), "trainer", order, 10).text.split()[-1]
            except UserError as e:
                return failed.append(f"no training: {e}")
            while not ended.is_set():
                seen = states.wait(1.0, after=seen) or seen
                if seen and seen.message.job == job and seen.message.done:
                    if seen.message.error:
                        return failed.append(seen.message.error)
                    done.append(time.monotonic() - begun)
                    break


def check(dataset: Path) -> dict[str, int]:
    """Read every row and every picture of the dataset; what is wrong with them."""
    rows = {"rows": 0, "misplaced": 0, "late": 0}
    tables = [pq.read_table(path) for path in sorted((dataset / "data").rglob("*.parquet"))]
    videos = sorted((dataset / "videos").rglob("*.mp4"))
    for table, video in zip(tables, videos, strict=True):
        seqs = table["gripwire.gripper_cam.seq"].to_pylist()
        with av.open(str(video)) as container:
            numbers = [read(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        rows["rows"] += len(seqs)
        rows["misplaced"] += sum(a != b % NUMBERS for a, b in zip(numbers, seqs, strict=True))
        # A picture further from its row than the two beside it could be: something nearer was lost.
        rows["late"] += sum(abs(skew) > 34 for skew in table["gripwire.gripper_cam.skew_ms"].to_pylist())
    return rows


def shift(topics: Topics, data: Path, minutes: float) -> None:
    flags = ("--fps", "30")
    with Hardware(topics), running(topics, data, "recorder", *flags) as recorder:
        work = Shift(topics, recorder.pid)
        for _ in range(TRAINING):
            work.record("training", 5.0)
        episodes = {str(e): {"success_start": 60} if e % 2 else None for e in range(TRAINING)}
        labels = {"dataset_path": "../datasets/training", "episodes": episodes}
        (data / "labels").mkdir()
        (data / "labels" / "bench.json").write_text(json.dumps(labels))
        work.durable_s, work.memory, trained, failed = [], [], list[float](), list[str]()
        with running(topics, data, "trainer"):
            ended = threading.Event()
            arguments = (topics, data, ended, trained, failed)
            thread = threading.Thread(target=train_for_ever, args=arguments, daemon=True)
            thread.start()
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                work.record("shift", EPISODE_S)
                if failed:
                    raise SystemExit(f"nothing trains beside any more: {failed[0]}")
            ended.set()
            thread.join()
    quarter = max(1, len(work.memory) // 4)
    quarters = [work.memory[i * quarter : (i + 1) * quarter] for i in range(4)]
    say(
        figure="stop to durable, episodes of 20 s at 30 fps, training beside, s", **spread(work.durable_s),
        each=[round(s, 2) for s in work.durable_s],
    )  # fmt: skip
    say(
        figure="recorder and its worker, memory, MiB", worst=round(max(work.memory), 1),
        quarters=[round(float(np.median(each)), 1) for each in quarters if each],
    )  # fmt: skip
    say(figure="what is wrong with the rows", **check(data / "datasets" / "shift"), problems=work.problems)
    say(figure="trainings that ran beside", count=len(trained), seconds=[round(s, 1) for s in trained])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        shift(Topics(BASE), Path(folder), given.minutes)


if __name__ == "__main__":
    main()
