"""A small live bus: a camera whose pictures say their own number, a robot, and the real recorder.

The recorder runs in a process of its own; what it has written is opened by LeRobot in processes forked from
one that has it imported (20 s, once).
"""

import contextlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gripwire import clock, control, wire
from gripwire.bus import Latest, Publisher
from gripwire.messages import (
    JOINTS,
    Command,
    EpisodeState,
    Frame,
    Health,
    Reward,
    RobotAction,
    RobotState,
    StartEpisode,
    StopEpisode,
)  # fmt: skip
from gripwire.settings import Settings, load
from tests.conftest import free_port_base

WIDTH, HEIGHT, BLOCK = 320, 240, 60  # 4 rows of 5 blocks: 20 bits survive any video codec
NOISE = np.random.default_rng(0).normal(20, 4, (HEIGHT, WIDTH, 3)).clip(0, 40).astype(np.uint8)


def picture(number: int) -> np.ndarray:
    """A noisy RGB picture whose black and white blocks spell ``number``."""
    bits = [(number >> bit) & 1 for bit in range(20)]
    blocks = np.array(bits, np.uint8).reshape(4, 5).repeat(BLOCK, 0).repeat(BLOCK + 4, 1) * 180 + 20
    return blocks[:, :, None] + np.roll(NOISE, number, 0)


def joints(value: float) -> dict[str, float]:
    return {joint: value + i for i, joint in enumerate(JOINTS)}


class Bench:
    """Publishes 30 jittered frames and 60 states and actions a second until closed.

    Every picture is judged: a success where its ``seq`` is odd, with a logit of ``seq``. The state of joint
    ``i`` at time t is ``t in s + i``, so that interpolation can be checked; the action is the state of the
    moment it was sent, rounded down to a tenth of a second.
    """

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        self.camera = Publisher[Frame](topics["camera/gripper_cam"])
        self.state = Publisher[RobotState](topics["robot/state"])
        self.action = Publisher[RobotAction](topics["robot/action"])
        self.reward = Publisher[Reward](topics["reward"])
        self.intervention = False
        self.host: str | None = None
        self.valid = True
        self.size = (WIDTH, HEIGHT)
        self.corrupt: set[int] = set()
        self.blind = threading.Event()  # set: the camera says nothing
        self.numb = threading.Event()  # set: the arm says nothing
        self.arm_valid = True
        self.arm_reads = 1.0  # what the positions are multiplied by
        self.skip = threading.Event()  # set: the next frame is lost on the way
        self.t0 = clock.monotonic_ns()
        self.frames: list[tuple[int, int]] = []  # taken, sent: CLOCK_MONOTONIC ns
        self.goals: list[tuple[int, float]] = []  # sent, first joint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._film, self._move)]
        for thread in self._threads:
            thread.start()

    def longest_silence_s(self) -> float:
        """Between two pictures, so far."""
        taken = [taken for taken, _ in self.frames]
        return float(np.diff(taken).max()) / 1e9

    def seconds(self, t: int) -> float:
        return (t - self.t0) / 1e9

    def _film(self) -> None:
        random_ = random.Random(1)
        number = 0
        while not self._stop.wait(1 / 30 + random_.uniform(-0.012, 0.012)):
            if self.blind.is_set():
                continue
            if self.skip.is_set():
                self.skip.clear()
                self.camera.sent += 1
            number += 1
            taken = clock.monotonic_ns()
            jpeg = cv2.imencode(".jpg", picture(self.camera.sent)[:, :, ::-1])[1].tobytes()
            if self.camera.sent in self.corrupt:
                jpeg = jpeg[:100]
            width, height = self.size
            frame = Frame(
                valid=self.valid, reason="" if self.valid else "the picture is frozen", camera="gripper_cam",
                width=width, height=height, encoding="jpeg", exposure_seq=7 * number, t_capture=taken,
            )  # fmt: skip
            self._stop.wait(random_.uniform(0, 0.015))  # the way to the recorder takes its time
            self._send(self.camera, frame, jpeg)
            odd = bool(frame.seq % 2)
            judged = Reward(
                valid=True, camera="gripper_cam", frame_seq=frame.seq, frame_boot=frame.boot, decision=odd,
                logit=float(frame.seq), probability=0.75 if odd else 0.25, model="a-bundle", epoch=3,
                t_capture=taken,
            )  # fmt: skip
            self._send(self.reward, judged)
            self.frames.append((taken, clock.monotonic_ns()))

    def _move(self) -> None:
        while not self._stop.wait(1 / 60):
            if self.numb.is_set():
                continue
            now = clock.monotonic_ns()
            t = self.seconds(now)
            read = {joint: value * self.arm_reads for joint, value in joints(t).items()}
            self._send(self.state, RobotState(valid=self.arm_valid, position=read, t_capture=now))
            sent = RobotAction(
                valid=True, position=joints(int(t * 10) / 10), source="script", t_capture=now,
                intervention=self.intervention,
            )  # fmt: skip
            self._send(self.action, sent)
            self.goals.append((now, sent.position[JOINTS[0]]))

    def _send(self, publisher: Publisher[Any], message: Any, payload: bytes | None = None) -> None:
        if self.host is None:
            publisher.publish(message, payload)
        else:  # as it would come from another machine
            message.seq, message.host = publisher.sent, self.host
            publisher.sent += 1
            publisher._socket.send_multipart(wire.encode(publisher.topic.name, message, payload))

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for publisher in (self.camera, self.state, self.action, self.reward):
            publisher.close()


class Rig:
    """The recorder as a process, and what a client says to it."""

    def __init__(self, settings: Settings, hurried_log: Path | None = None) -> None:
        self.settings = settings
        self.datasets = settings.data / "datasets"
        self.process: Any = None  # a subprocess.Popen
        self.episode = Latest(settings.topics["episode"], EpisodeState)
        self.health = Latest(settings.topics["health/recorder"], Health)
        try:
            self.start_process(hurried_log)
        except BaseException:
            self.close()  # nobody else knows of it yet
            raise

    def start_process(self, hurried_log: Path | None = None) -> None:
        """Start the recorder; with a log, one that gives up early at its end (`hurried_recorder.py`)."""
        boot = self.health.get().message.boot if self.health.get() else ""
        command = [sys.executable, "-m", "gripwire", "recorder", "run"]
        if hurried_log:
            command = [sys.executable, str(Path(__file__).parent / "hurried_recorder.py"), str(hurried_log)]
        own = {key: value for key, value in self.settings.values.items() if key[0] == "recorder"}
        flags = {f"GRIPWIRE_RECORDER__{key[1].upper()}": str(given.value) for key, given in own.items()}
        environment = os.environ | self.settings.environment() | flags
        self.process = subprocess.Popen(command, env=environment, stderr=None)
        up = self.until_health(lambda h: h.boot != boot and h.state in ("ready", "degraded"), timeout_s=90)
        self.until(lambda e: e.boot == up.boot)  # not what a recorder that was killed said last

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def worker(self) -> int:
        """The id of the process that saves."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = [pid for pid in children if b"gripwire_recorder.worker" in _command_line(pid)]
        return int(pid)

    def end(self, timeout_s: float = 30) -> None:
        self.process.terminate()
        assert self.process.wait(timeout_s) == 0

    def ask(self, command: Command) -> str:
        return control.request(self.settings.topics.control("recorder"), "recorder", command, 15).text

    def until(self, holds: Callable[[EpisodeState], bool], timeout_s: float = 90) -> EpisodeState:
        return _until(self.episode, holds, timeout_s)

    def until_health(self, holds: Callable[[Health], bool], timeout_s: float = 90) -> Health:
        return _until(self.health, holds, timeout_s)

    def record(
        self, seconds: float = 1.0, dataset: str = "grasps", task: str = "grasp the cube"
    ) -> EpisodeState:
        """One episode of ``seconds``, saved."""
        self.start(seconds, dataset, task)
        return self.stop()

    def start(self, seconds: float = 1.0, dataset: str = "grasps", task: str = "grasp the cube") -> None:
        self.ask(StartEpisode(task=task, dataset=dataset, append=True))
        self.until(lambda e: e.state == "recording" and e.rows >= seconds * 10)

    def stop(self) -> EpisodeState:
        saved = self.episode.get().message.saved
        self.ask(StopEpisode())
        return self.until(lambda e: e.saved > saved and e.state == "idle")

    def notes(self, dataset: str = "grasps") -> list[dict[str, Any]]:
        lines = (self.datasets / dataset / "meta" / "gripwire.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.episode.close()
        self.health.close()


def _command_line(pid: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _until(reader: Latest[Any], holds: Callable[[Any], bool], timeout_s: float) -> Any:
    deadline, seen = time.monotonic() + timeout_s, reader.get()
    while seen is None or not holds(seen.message):
        assert time.monotonic() < deadline, f"still {seen.message if seen else None} after {timeout_s} s"
        seen = reader.wait(0.5, after=seen) or seen
    return seen.message


def forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lerobot.datasets.lerobot_dataset"])
    return context


@dataclass
class Opened:
    """What LeRobot found in a dataset: `opened_by_lerobot.py` fills it in a process of its own."""

    fps: int
    robot_type: str
    features: dict[str, Any]
    lengths: list[int]
    tasks: list[list[str]]
    columns: dict[str, np.ndarray]
    pictures: np.ndarray  # (rows, 4, 5): mean brightness of each block

    @property
    def numbers(self) -> list[int]:
        """What each row's picture spells."""
        weights = 1 << np.arange(20)
        return list(((self.pictures.reshape(-1, 20) > 130) @ weights).tolist())


def open_with_lerobot(path: Path) -> Opened:
    """Open the dataset and decode every row's picture, as a user of LeRobot would."""
    ours, theirs = multiprocessing.Pipe()
    script = str(Path(__file__).parent / "opened_by_lerobot.py")
    process = forkserver().Process(target=runpy.run_path, args=(script, {"ROOT": path, "REPLY": theirs}))
    process.start()
    theirs.close()
    try:
        return Opened(**ours.recv())
    except EOFError:
        pytest.fail(f"LeRobot cannot open {path}")
    finally:
        process.join()


def make_settings(data: Path, **recorder: Any) -> Settings:
    flags = {f"recorder.{key}": value for key, value in recorder.items()}
    return load(None, {"data": data, "port_base": free_port_base(), **flags}, env={})


def make_rigs(data: Path) -> Iterator[Callable[..., tuple[Rig, Bench]]]:
    opened: list[Any] = []

    def make(data: Path = data, hurried_log: Path | None = None, **recorder: Any) -> tuple[Rig, Bench]:
        settings = make_settings(data, **recorder)
        bench = Bench(settings)
        opened.append(bench)
        rig = Rig(settings, hurried_log)
        opened.append(rig)
        assert bench.camera.wait_for_subscriber(10) and bench.state.wait_for_subscriber(10)
        return rig, bench

    yield make
    for thing in reversed(opened):
        thing.close()
