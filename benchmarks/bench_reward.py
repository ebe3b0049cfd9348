"""The reward at control rate: how soon after the picture, what a swap costs, what slow readers cost.

`bench_reward.py [--swaps N] [--seconds S]`. It makes its own bundles (default backbone), pictures and stack
on ports of its own, and takes some five minutes. One JSON line per figure; ratios are of one run.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import default_bundle
import mjpeg
import numpy as np
import pyarrow.parquet as pq
import torch

from gripwire import RewardStream, bus, clock, control
from gripwire.bus import Latest, Publisher, Queued
from gripwire.messages import Frame, Health, ModelState, Reward, StartEpisode, StopEpisode, Swap
from gripwire.recording.file import Recording
from gripwire.topics import Topics
from gripwire_reward import bundle
from gripwire_reward.decode import decode
from gripwire_reward.recordings import rescore
from gripwire_reward.scorer import Scorer

BASE = 28000
HZ = 30.0
_GRIPWIRE = (sys.executable, "-m", "gripwire")


def say(**figure: Any) -> None:
    print(json.dumps(figure), flush=True)


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 2), "p99": round(float(np.quantile(values, 0.99)), 2),
        "worst": round(max(values), 2), "count": len(values),
    }  # fmt: skip


# --- processes --------------------------------------------------------------------------------------------


@contextmanager
def running(
    topics: Topics, data: Path, service: str, *flags: str, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A service of the stack, from when it is ready to the end of the block."""
    name = service.split("/")[0]
    command = [*_GRIPWIRE, name, "run", *flags, "--data", str(data), "--port-base", str(topics.port_base)]
    process = subprocess.Popen(command, env=os.environ | env, stderr=subprocess.DEVNULL)
    try:
        with Latest(topics[f"health/{service}"], Health) as health:
            deadline, seen = time.monotonic() + 60, health.wait(30)
            while not seen or seen.message.state == "starting":
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{service} did not start")
                seen = health.wait(1, after=seen) or seen
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Camera:
    """Publishes pictures at 30 Hz from a thread of this process."""

    def __init__(self, topics: Topics, pictures: list[bytes]) -> None:
        self.publisher: Publisher[Frame] = bus.Publisher(topics["camera/gripper_cam"])
        self._pictures, self._ended = pictures, threading.Event()
        self.costs_us: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        for i in range(10**9):
            due += 1 / HZ
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            frame = Frame(
                valid=True, camera="gripper_cam", width=640, height=480, encoding="jpeg", exposure_seq=i
            )
            begun = time.perf_counter()
            self.publisher.publish(frame, self._pictures[i % len(self._pictures)])
            self.costs_us.append((time.perf_counter() - begun) * 1e6)

    def __enter__(self) -> "Camera":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.publisher.close()


def swap(topics: Topics, model: Latest[ModelState], wanted: str) -> None:
    before = model.get()
    control.request(topics.control("reward"), "reward", Swap(bundle=wanted))
    deadline, seen = time.monotonic() + 20, before
    while not (seen and seen.message.serving == wanted and seen.message.event == "serving"):
        if time.monotonic() > deadline:
            raise SystemExit(f"bundle {wanted} never served: {seen and seen.message.reason}")
        seen = model.wait(0.5, after=seen) or seen


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


# --- figures ----------------------------------------------------------------------------------------------


def loop_cost(made: bundle.Bundle, pictures: list[bytes], folder: Path) -> None:
    """The whole loop for one picture, against the origin's preview loop: read with OpenCV, crop and resize
    with torchvision, ResNet-10 in eager PyTorch, one thread each."""
    from torchvision.transforms.v2 import functional

    from gripwire_trainer.resnet10 import ResNet10, ResNet10Config

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    scorer = Scorer(made)
    scorer.warm_up()
    frame = Frame(camera="gripper_cam", width=640, height=480, encoding="jpeg", valid=True)
    film = folder / "loop.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), HZ, (640, 480))
    for jpeg in pictures:
        writer.write(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    network = ResNet10(ResNet10Config()).eval()
    ours, theirs = [], []
    for _ in range(5):
        capture = cv2.VideoCapture(str(film))
        for jpeg in pictures:
            begun = time.perf_counter()
            scorer.frame(decode(frame, jpeg))
            ours.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            _, image = capture.read()
            tensor = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).float() / 255
            small = functional.resize(tensor[:, :, 80:560], [128, 128], antialias=True)
            with torch.no_grad():
                network(small[None])
            theirs.append(time.perf_counter() - begun)
        capture.release()
    say(
        figure="decode, crop, resize and score one picture, against the origin's preview loop",
        gripwire_ms=round(statistics.median(ours) * 1e3, 2),
        origin_ms=round(statistics.median(theirs) * 1e3, 2),
        ratio=round(statistics.median(ours) / statistics.median(theirs), 3),
    )  # fmt: skip


def latency(topics: Topics, data: Path, made: bundle.Bundle, pictures: list[bytes], seconds: float) -> None:
    """Publication of the frame to publication of its reward: camera, robot and recorder running, first idle,
    then recording. The simulated servos stand for hardware: they draw one picture a second, and give way."""
    settings = data / "gripwire.toml"
    with ExitStack() as stack:
        camera = stack.enter_context(mjpeg.served(pictures, HZ))
        settings.write_text(
            f'[cameras.gripper_cam]\nsource = "{camera}"\n'
            f'[robot]\nport = "{data}/sim/follower"\nid = "bench"\n'
            f'calibration_dir = "{data}/sim/calibration"\n'
        )
        config = ("--config", str(settings))
        sim = stack.enter_context(running(topics, data, "sim", *config, "--rate-hz", "1"))
        for thread in Path(f"/proc/{sim.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 10)
        for service in ("robot", "camera/gripper_cam", "reward", "recorder"):
            stack.enter_context(running(topics, data, service, *config))
        with Latest(topics["model"], ModelState) as model:
            swap(topics, model, made.id)
        frames = stack.enter_context(Queued(topics["camera/gripper_cam"], Frame))
        rewards = stack.enter_context(Queued(topics["reward"], Reward))
        _follow(frames, rewards, 3.0)  # until everything has been run once
        say(figure="frame published to reward published, recorder idle, ms",
            **spread(_follow(frames, rewards, seconds)))  # fmt: skip
        control.request(topics.control("recorder"), "recorder", StartEpisode(task="timing"))
        _follow(frames, rewards, 3.0)
        say(figure="frame published to reward published, recording, ms",
            **spread(_follow(frames, rewards, seconds)))  # fmt: skip
        control.request(topics.control("recorder"), "recorder", StopEpisode())


def _follow(frames: Queued[Frame], rewards: Queued[Reward], seconds: float) -> list[float]:
    """Milliseconds from each frame's publication to that of its reward."""
    sent: dict[int, int] = {}
    took = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        received = rewards.receive(0.1)
        sent |= {f.message.seq: f.message.t_publish for f in frames.drain()}
        if received and received.message.valid and received.message.frame_seq in sent:
            took.append((received.message.t_publish - sent[received.message.frame_seq]) / 1e6)
    return took


def swaps(topics: Topics, data: Path, ids: list[str], pictures: list[bytes], count: int) -> None:
    """Swaps without an end, under load: what became of the ticks, the gaps and the memory."""
    with (
        Camera(topics, pictures) as camera,
        running(topics, data, "reward", GRIPWIRE_REWARD__SHADOW_S="0") as reward,
    ):
        seen: list[tuple[int, int, int]] = []
        ended = threading.Event()

        def follow() -> None:
            with Queued(topics["reward"], Reward) as rewards:
                while not ended.is_set():
                    if received := rewards.receive(0.1):
                        message = received.message
                        seen.append((message.frame_seq, message.t_publish, message.epoch))

        thread = threading.Thread(target=follow)
        thread.start()
        with Latest(topics["model"], ModelState) as model:
            swap(topics, model, ids[0])
            swap(topics, model, ids[1])
            memory = [resident_mib(reward)]
            begun = len(seen)
            for i in range(count):
                swap(topics, model, ids[i % 2])
                if i % (count // 10 or 1) == 0:
                    memory.append(resident_mib(reward))
        ended.set()
        thread.join()
        assert camera.publisher.sent > len(seen) > 0
    seqs = [seq for seq, _, _ in seen[begun:]]
    gaps = np.diff([t for _, t, _ in seen[begun:]]) * HZ / 1e9
    steps = np.diff(seqs)
    say(
        figure="swaps under load", swaps=count, epochs=seen[-1][2] - seen[begun][2], ticks=len(seqs),
        missed=int((steps > 1).sum()), duplicate=int((steps == 0).sum()), reordered=int((steps < 0).sum()),
        largest_gap_periods=round(float(gaps.max()), 2),
        memory_mib=[round(m) for m in (memory[0], memory[len(memory) // 2], memory[-1])],
    )  # fmt: skip


def slow_readers(
    topics: Topics, data: Path, made: bundle.Bundle, pictures: list[bytes], seconds: float
) -> None:
    """A reader at 2 Hz, and one that has stopped altogether."""
    with Camera(topics, pictures) as camera, running(topics, data, "reward") as reward:
        with Latest(topics["model"], ModelState) as model:
            swap(topics, model, made.id)
        with RewardStream(port_base=topics.port_base) as stream:
            ages = []
            for _ in range(max(10, round(seconds / 2))):
                time.sleep(0.5)
                newest = stream.latest()[0]
                ages.append((clock.monotonic_ns() - newest.t_publish) / 1e6)
        say(figure="age of the reward that a reader at 2 Hz gets, ms", **spread(ages))
        rate, cost, memory = _pace(topics, camera, reward, seconds)
        script = (
            "import sys, time; from gripwire.bus import Latest, Queued; from gripwire.messages import Reward;"
            f"from gripwire.topics import Topics; q = Queued(Topics({topics.port_base})['reward'], Reward);"
            "print('subscribed', flush=True); time.sleep(1e6)"
        )
        stopped = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
        for process in stopped:
            assert process.stdout and process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
        with_rate, with_cost, with_memory = _pace(topics, camera, reward, max(seconds, 1000 / HZ))
        for process in stopped:
            process.kill()
            process.wait()
    say(
        figure="two stopped subscribers for a thousand messages",
        rate_hz=[round(rate, 2), round(with_rate, 2)],
        score_to_publish_ms=[round(cost, 2), round(with_cost, 2)],
        memory_mib=[round(memory), round(with_memory)],
    )  # fmt: skip


def _pace(
    topics: Topics, camera: Camera, reward: subprocess.Popen[bytes], seconds: float
) -> tuple[float, float, float]:
    """Rewards per second, median milliseconds from frame to reward, and memory at the end."""
    times, costs = [], []
    with Queued(topics["reward"], Reward) as rewards:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if received := rewards.receive(0.1):
                times.append(received.message.t_publish)
                costs.append((received.message.t_publish - received.message.t_capture) / 1e6)
    return (len(times) - 1) / (times[-1] - times[0]) * 1e9, statistics.median(costs), resident_mib(reward)


def replayed(topics: Topics, data: Path, made: bundle.Bundle, pictures: list[bytes], seconds: float) -> None:
    """A live run, recorded; played back to a new service, and judged offline: the same logits?"""
    run = data / "run.mcap"
    with running(topics, data, "reward"), Latest(topics["model"], ModelState) as model:
        swap(topics, model, made.id)
        with Camera(topics, pictures) as camera:
            flags = ("--port-base", str(topics.port_base), "--data", str(data))
            recorder = subprocess.Popen([*_GRIPWIRE, "record", "-o", str(run), *flags])
            camera.publisher.wait_for_subscriber(20, count=2)
            time.sleep(seconds)
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
    live: dict[int, float | None] = {}
    for one in Recording(run).messages({"reward"}):
        if isinstance(one.message, Reward) and one.message.valid:
            live[one.message.frame_seq] = one.message.logit
    again: dict[int, float | None] = {}
    with (
        running(topics, data, "reward"),
        Queued(topics["reward"], Reward) as rewards,
        Latest(topics["model"], ModelState) as model,
    ):
        while not (model.get() or model.wait(20)).message.serving:  # type: ignore[union-attr]
            continue
        player = subprocess.Popen([*_GRIPWIRE, "replay", str(run), "--topics", "camera/*", *flags])
        deadline = time.monotonic() + seconds + 20
        while len(again) < len(live) and time.monotonic() < deadline:
            if (received := rewards.receive(1)) and received.message.valid:
                again[received.message.frame_seq] = received.message.logit
    player.wait()
    rescored = run.with_suffix(".parquet")
    rescore(Recording(run), Scorer(made), rescored)
    offline = {row["frame_seq"]: row["logit"] for row in pq.read_table(rescored).to_pylist()}
    say(
        figure="frames of a recorded run with the same logit, bit for bit", frames=len(live),
        played_back=sum(again.get(seq) == logit for seq, logit in live.items()),
        rescored=sum(offline.get(seq) == logit for seq, logit in live.items()),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", choices=["loop", "latency", "swaps", "slow", "replay"], action="append")
    given = parser.parse_args()
    pictures = default_bundle.jpegs(90)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        made = [default_bundle.make(data / "bundles", seed) for seed in (0, 1)]
        stacks = iter(Topics(BASE + 64 * i) for i in range(9))
        figures: dict[str, Callable[[], None]] = {
            "loop": lambda: loop_cost(made[0], pictures, data),
            "latency": lambda: latency(next(stacks), data, made[0], pictures, given.seconds),
            "swaps": lambda: swaps(next(stacks), data, [m.id for m in made], pictures, given.swaps),
            "slow": lambda: slow_readers(next(stacks), data, made[0], pictures, given.seconds),
            "replay": lambda: replayed(next(stacks), data, made[0], pictures, given.seconds),
        }
        for name, figure in figures.items():
            if not given.only or name in given.only:
                figure()


if __name__ == "__main__":
    main()
