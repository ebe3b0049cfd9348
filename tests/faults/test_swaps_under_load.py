"""Models are swapped again and again, broken ones among them, under a running camera: no tick suffers."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gripwire import bus
from gripwire.bus import Latest, Publisher, Queued
from gripwire.control import request
from gripwire.errors import UserError
from gripwire.messages import Frame, ModelState, Offer, Reward, Swap
from gripwire.settings import Settings
from gripwire_reward.bundle import MANIFEST
from tests.faults import table
from tests.reward import tiny

SWAPS = 1000 if table.IN_FULL else 60
HZ, WAIT_S = 30.0, 30.0


class Load:
    """A camera at 30 Hz, and all that is said of its frames, from threads of their own."""

    def __init__(self, settings: Settings) -> None:
        self.camera: Publisher[Frame] = bus.Publisher(settings.topics["camera/gripper_cam"])
        self.rewards: list[Reward] = []
        self.sent: list[int] = []
        self._topic = settings.topics["reward"]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._shoot), threading.Thread(target=self._follow)]

    def _shoot(self) -> None:
        picture, due = tiny.jpeg(tiny.picture(True)), time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due += 1 / HZ
            frame = Frame(
                valid=True, camera="gripper_cam", width=tiny.WIDTH, height=tiny.HEIGHT, encoding="jpeg"
            )
            self.sent.append(self.camera.publish(frame, picture).seq)

    def _follow(self) -> None:
        with Queued(self._topic, Reward) as rewards:
            while not self._ended.is_set() or not self.rewards or self.rewards[-1].frame_seq < self.sent[-1]:
                if received := rewards.receive(0.1):
                    if received.message.frame_seq >= 0:
                        self.rewards.append(received.message)
                elif self._ended.is_set():
                    return

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.camera.close()


@pytest.fixture
def service(stack: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The real reward service, which swaps at once."""
    stack.data.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "gripwire", "reward", "run"],
        env=os.environ | stack.environment() | {"GRIPWIRE_REWARD__SHADOW_S": "0"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield process
    process.kill()
    process.wait()


def _await(model: Latest[ModelState], what: Callable[[ModelState], bool]) -> ModelState:
    deadline, seen = time.monotonic() + WAIT_S, model.get()
    while not (seen and what(seen.message)):
        assert time.monotonic() < deadline, f"never; last: {seen and seen.message}"
        seen = model.wait(0.5, after=seen) or seen
    return seen.message


def _swap(stack: Settings, model: Latest[ModelState], wanted: str) -> None:
    request(stack.topics.control("reward"), "reward", Swap(bundle=wanted), timeout_s=WAIT_S)
    _await(model, lambda m: m.serving == wanted)


def _resident_kib(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0])


@pytest.mark.timeout(600)
def test_no_tick_is_missed_repeated_or_out_of_order_and_memory_stays(
    stack: Settings, service: subprocess.Popen[bytes]
) -> None:
    ids = [tiny.make(stack.data / "bundles", gain=gain).id for gain in (8.0, 9.0)]
    load = Load(stack)
    with Latest(stack.topics["model"], ModelState) as model:
        _await(model, lambda m: True)
        load.start()
        try:
            for i in range(20):
                _swap(stack, model, ids[i % 2])
            before, begun = _resident_kib(service), len(load.rewards)
            for i in range(SWAPS):
                _swap(stack, model, ids[i % 2])
            after = _resident_kib(service)
        finally:
            load.stop()
    seqs = [reward.frame_seq for reward in load.rewards]
    assert seqs == list(range(seqs[0], load.sent[-1] + 1))
    epochs = [reward.epoch for reward in load.rewards]
    assert epochs == sorted(epochs) and epochs[-1] - epochs[begun] >= SWAPS - 1
    assert {reward.model for reward in load.rewards[begun:]} <= set(ids)
    assert after - before < 20 * 1024
    table.note(
        f"{SWAPS} swaps of the model under a running camera",
        "no frame without its reward, none twice, none out of order; memory stays",
        f"{len(seqs)} rewards, each once and in order; memory {(after - before) / 1024:+.1f} MiB",
    )


def _torn(good: Path, place: Path, file: str, content: bytes) -> str:
    """A bundle of which one file is another than it says, under a name of its own."""
    name = f"{abs(hash((file, content))) % 16**20:020x}"
    shutil.copytree(good, place / name)
    (place / name / file).write_bytes(content)
    return name


def test_broken_bundles_are_refused_by_name_and_the_old_one_misses_no_tick(
    stack: Settings, service: subprocess.Popen[bytes]
) -> None:
    bundles = stack.data / "bundles"
    good = tiny.make(bundles)
    broken = [
        _torn(good.path, bundles, "model.onnx", b""),
        _torn(good.path, bundles, "golden.npz", b"PK\x03\x04 torn"),
        _torn(good.path, bundles, "golden.npz", np.array([{}], object).dumps()),  # a pickle
        _torn(good.path, bundles, MANIFEST, b"{"),
        _torn(good.path, bundles, MANIFEST, b"x" * 9_000_000),
        tiny.make(bundles, gain=3e38).id,  # not finite
        tiny.make(bundles, golden_error=1.0).id,
        tiny.make(bundles, contract=tiny.CONTRACT.model_copy(update={"key": "observation.images.top"})).id,
        tiny.make(bundles, model=tiny.graph(size=(24, 24)), check=False).id,
    ]
    load = Load(stack)
    with Latest(stack.topics["model"], ModelState) as model:
        _await(model, lambda m: True)
        load.start()
        try:
            _swap(stack, model, good.id)
            begun = len(load.rewards)
            for wrong in broken:
                request(stack.topics.control("reward"), "reward", Offer(bundle=wrong), timeout_s=WAIT_S)
                said = _await(model, lambda m, wrong=wrong: m.offer == wrong and m.event == "refused")
                assert said.serving == good.id and said.reason and said.epoch == 1
            with pytest.raises(UserError, match="no bundle of that id"):
                request(stack.topics.control("reward"), "reward", Offer(bundle="0" * 20), timeout_s=WAIT_S)
        finally:
            load.stop()
    seqs = [reward.frame_seq for reward in load.rewards]
    assert seqs == list(range(seqs[0], load.sent[-1] + 1))
    assert {reward.model for reward in load.rewards[begun + 1 :]} == {good.id}
