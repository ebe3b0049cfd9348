"""A whole stack on the virtual bench, as `gripwire up` runs it."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gripwire import clock, control, settings
from gripwire.errors import UserError
from gripwire.messages import DiscardEpisode, Health, Message, Offer
from gripwire.settings import Settings
from gripwire.survey import Survey
from gripwire_reward import bundle
from gripwire_reward.bundle import Manifest
from gripwire_reward.calibration import Calibration
from gripwire_reward.preprocess import Crop, preprocess
from gripwire_reward.scorer import session
from tests.conftest import free_port_base
from tests.faults.wall_clock import WallClock
from tests.reward import tiny

SERVICES = ("sim", "camera/gripper_cam", "robot", "reward", "recorder", "trainer")
NO_FAULT = ("the machine is busy", "end other programs", "had to be repeated", "check the cables")
GROWTH_MIB = 20.0
"""How much more memory a service may take over a fault."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the running stack come last: the others look at the clock, nothing beside them."""
    items.sort(key=lambda item: "running" in getattr(item, "fixturenames", ()))


@dataclass
class Stack:
    """A running `gripwire up` and eyes on all of its topics."""

    settings: Settings
    process: subprocess.Popen[bytes]
    survey: Survey
    log: Path
    wall: WallClock
    usual: dict[str, float] = field(default_factory=dict)

    def health(self, service: str) -> Health | None:
        message = self.survey.latest.get(f"health/{service}")
        return message if isinstance(message, Health) else None

    def pid(self, service: str) -> int:
        health = self.health(service)
        assert health is not None
        return health.pid

    def is_well(self, service: str) -> bool:
        """Ready. What a busy machine alone brings about, and a reward service without a bundle, are no
        consequence of a fault."""
        health = self.health(service)
        if not health or health.state not in ("ready", "degraded"):
            return False
        others = [text for text in health.problem.split("; ") if not any(why in text for why in NO_FAULT)]
        return health.state == "ready" or service == "reward" or not "".join(others)

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> float:
        """Listen until ``condition()``; the seconds it took."""
        began = time.monotonic()
        while not condition():
            took = time.monotonic() - began
            assert took < timeout_s, f"{what}: not within {timeout_s} s\n{self.log.read_text()[-4000:]}"
            assert self.process.poll() is None, f"`gripwire up` ended\n{self.log.read_text()[-4000:]}"
            self.survey.listen(0.05)
        return time.monotonic() - began

    def fresh(self, topic: str, condition: Callable[[Message], object] = lambda message: True):
        """A condition: a message on ``topic`` newer than now that satisfies ``condition``."""
        before = self.survey.latest.get(topic)
        seen = (before.boot, before.seq) if before else ("", -1)

        def arrived() -> bool:
            now = self.survey.latest.get(topic)
            return now is not None and (now.boot, now.seq) != seen and bool(condition(now))

        return arrived

    def listen(self, seconds: float) -> Counter[str]:
        """Listen for so long; how many of the messages published from now on came, by topic."""
        began, end, came = clock.monotonic_ns(), time.monotonic() + seconds, Counter[str]()
        while (left := end - time.monotonic()) > 0:
            heard = self.survey.listen(min(left, 1.0))
            came.update(name for name, received in heard if received.message.t_publish >= began)
        return came

    def rate_before(self, topic: str) -> float:
        """What ``topic`` really has on this machine while nothing is broken; measured once."""
        if topic not in self.usual:
            self.usual = {name: count / 3.0 for name, count in self.listen(3.0).items()}
        return self.usual[topic]

    def all_well(self, timeout_s: float = 60.0) -> None:
        self.listen(0.5)  # what nobody listened to meanwhile, and what of it was lost, is no fault of now
        self.until(lambda: all(self.is_well(s) for s in SERVICES), timeout_s, "every service is well")

    def memory(self) -> dict[str, float]:
        """Resident MiB of every service's process."""
        return {service: resident_mib(self.pid(service)) for service in SERVICES}

    def counted(self, service: str, *names: str) -> int:
        """The sum of these counts in the service's last heartbeat."""
        health = self.health(service)
        return sum(health.counts.get(name, 0) for name in names) if health else 0


def resident_mib(pid: int) -> float:
    """What a process holds in memory: private pages, for those of libraries come and go with others' use."""
    fields = Path(f"/proc/{pid}/status").read_text()
    return int(fields.split("RssAnon:")[1].split()[0]) / 1024


def bench_bundle(bundles: Path) -> str:
    """A bundle for the bench's camera, as small as tests' others: red counts for, blue against."""
    contract = tiny.CONTRACT.model_copy(
        update={"frame": (480, 640), "crop": Crop(top=0, left=80, height=480, width=480)}
    )
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 480, 640, 3), dtype=np.uint8)
    model = tiny.graph()
    engine = session(model, 1, "bench")
    logits = [engine.run(["logit"], {"image": preprocess(f, contract)[None]})[0][0] for f in frames]
    with bundle.staging(bundles) as aside:
        (aside / "model.onnx").write_bytes(model)
        (aside / "report.html").write_text("<p>bench</p>")
        np.savez_compressed(aside / "golden.npz", frames=frames, logits=np.float32(logits))
        made = Manifest(
            name="bench", inputs=[contract], decision=tiny.RULE, calibration=Calibration(temperature=2)
        )
        return bundle.seal(aside, made).id


@pytest.fixture
def running(stack_for_all: Stack) -> Iterator[Stack]:
    """The stack for all tests that break something in it; an episode that one leaves open is given up."""
    yield stack_for_all
    with suppress(UserError):  # there is none
        recorder = stack_for_all.settings.topics.control("recorder")
        control.request(recorder, "recorder", DiscardEpisode(), timeout_s=20)


@pytest.fixture(scope="session")
def stack_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack on the virtual bench; a model serves."""
    folder = tmp_path_factory.mktemp("stack")
    loaded = settings.load(flags={"data": folder / "data", "port_base": free_port_base()}, env={})
    served = bench_bundle(loaded.data / "bundles")
    log, wall = folder / "up.log", WallClock(folder)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "up", "--profile", "sim"],
            env=os.environ | loaded.environment() | wall.environment | {"GRIPWIRE_REWARD__SHADOW_S": "0"},
            stderr=out, stdout=out,
        )  # fmt: skip
    survey = Survey(list(loaded.topics))
    stack = Stack(loaded, process, survey, log, wall)
    try:
        stack.all_well(180)
        control.request(loaded.topics.control("reward"), "reward", Offer(bundle=served), timeout_s=30)
        stack.until(stack.fresh("reward", lambda m: m.valid), 60, "the reward is valid")
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            survey.close()
