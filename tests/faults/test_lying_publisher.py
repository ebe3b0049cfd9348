"""A publisher whose messages are well-formed and contradict themselves, and two publishers of one topic."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gripwire import clock, control, wire
from gripwire.bus import Latest, Publisher, Queued
from gripwire.messages import Health, ModelState, Offer, Reward
from gripwire.settings import Settings
from tests.faults import table
from tests.faults.test_malformed_messages import Talker
from tests.helpers import wait_for
from tests.reward import tiny

WAIT_S = 20.0


@dataclass
class Camera:
    """Sends frames as a camera service would, true ones and others."""

    talker: Talker
    seq: int = 0
    success: bool = True
    said: list[Reward] = field(default_factory=list)

    def send(self, payload: bytes | None = None, topic: str = "", **lies: Any) -> int:
        now = clock.monotonic_ns()
        header = {
            "v": 1, "seq": self.seq, "boot": "b" * 16, "host": clock.host_id(), "t_capture": now,
            "t_publish": now, "t_wall": time.time_ns(), "valid": True, "camera": "gripper_cam",
            "width": tiny.WIDTH, "height": tiny.HEIGHT, "encoding": "jpeg",
        }  # fmt: skip
        self.seq += 1
        picture = tiny.jpeg(tiny.picture(self.success, self.seq)) if payload is None else payload
        named = wire.subscription(self.talker.topic.name) + topic.encode()
        self.talker.socket.send_multipart([named, wire.pack_map(header | lies), picture])
        return int((header | lies)["seq"])


# What is claimed, and what becomes of it: it is refused and counted, or not valid with such words for a
# reason, or judged, with what is true in the place of what is not.
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a schema that is not ours": ({"v": 2}, "refused"),
    "another topic's name": ({"topic": "evil"}, "refused"),
    "a size of nothing": ({"width": 0}, "refused"),
    "a number beyond 64 bits": ({"exposure_seq": 2**63}, "refused"),
    "another camera's name": ({"camera": "top_cam"}, "say that they are"),
    "a size that the picture has not": ({"width": 640}, "its header says"),
    "raw pixels that do not fill the size": ({"encoding": "rgb8", "payload": b"x" * 100}, "are no"),
    "no picture at all": ({"payload": b""}, "has no picture"),
    "valid, and frozen": ({"valid": False, "reason": "frozen"}, "frozen"),
    "published long ago": ({"t_publish": 1}, "skipped"),
    "captured in the future": ({"t_capture": 2**62}, "judged"),
}


@pytest.fixture
def lying(stack: Settings) -> Iterator[tuple[Camera, Queued[Reward], Latest[Health]]]:
    """A camera to lie with, the real reward service that listens to it, and what that says."""
    served = tiny.make(stack.data / "bundles").id
    talker = Talker(stack.topics["camera/gripper_cam"])
    process = subprocess.Popen(
        [sys.executable, "-m", "gripwire", "reward", "run"],
        env=os.environ | stack.environment() | {"GRIPWIRE_REWARD__SHADOW_S": "0"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with (
            Queued(stack.topics["reward"], Reward) as rewards,
            Latest(stack.topics["health/reward"], Health) as health,
            Latest(stack.topics["model"], ModelState) as model,
        ):
            wait_for(health, lambda h: h.state in ("ready", "degraded"))
            control.request(stack.topics.control("reward"), "reward", Offer(bundle=served), timeout_s=30)
            wait_for(model, lambda m: m.serving == served)
            yield Camera(talker), rewards, health
    finally:
        process.kill()
        process.wait()
        talker.close()


def _verdict(rewards: Queued[Reward], seq: int) -> Reward:
    deadline = time.monotonic() + WAIT_S
    while (left := deadline - time.monotonic()) > 0:
        if (received := rewards.receive(left)) and received.message.frame_seq == seq:
            return received.message
    raise AssertionError(f"nothing is said about frame {seq}")


def test_a_camera_that_lies_is_believed_nothing_and_the_truth_after_it_is_judged(
    lying: tuple[Camera, Queued[Reward], Latest[Health]],
) -> None:
    camera, rewards, health = lying
    assert _verdict(rewards, camera.send()).valid
    counted = wait_for(health, lambda h: True).counts["refused_messages"]
    refused = 0
    for lie, (claims, fate) in LIES.items():
        seq = camera.send(**claims)
        truth = camera.send()
        if fate == "refused":
            refused += 1
        else:
            said = _verdict(rewards, seq)
            assert said.valid is (fate == "judged"), lie
            assert fate == "judged" or (fate in said.reason and not said.decision), f"{lie}: {said.reason}"
            assert said.t_capture <= said.t_publish, lie
        assert _verdict(rewards, truth).valid, f"after {lie}"
    wait_for(health, lambda h: h.counts["refused_messages"] == counted + refused)
    # Numbers that go back are repetitions: they are not judged, and nothing waits for what is between.
    camera.seq, last = 0, camera.seq
    for _ in range(3):
        camera.send()
    camera.seq = last
    assert _verdict(rewards, camera.send()).valid
    table.note(
        f"a camera that lies in {len(LIES)} ways (sizes, numbers, times, names), and counts backwards",
        "what contradicts itself is refused and counted, or called not valid; the truth after it is judged",
        f"{refused} refused and counted, {sum(f not in ('refused', 'judged') for _, f in LIES.values())} not "
        "valid with the reason; for a time of the future stands that of arrival; every true frame was judged",
    )


@pytest.mark.parametrize(
    "claims",
    [{"probability": 7.0}, {"probability": math.nan}, {"probability": -0.1}, {"logit": math.inf},
     {"threshold": 2.0}, {"decision": 1}, {"decision": "yes"}, {"seq": 2**64 - 1}],
    ids=str,
)  # fmt: skip
def test_a_reward_that_cannot_be_is_no_reward(stack: Settings, claims: dict[str, Any]) -> None:
    topic = stack.topics["reward"]
    talker = Talker(topic)
    header = {
        "v": 1,
        "boot": "b",
        "host": clock.host_id(),
        "valid": True,
        "decision": True,
        "probability": 0.9,
    }
    with Latest(topic, Reward) as latest:
        talker.wait()
        talker.say(wire.pack_map(header | {"seq": 1} | claims))
        talker.say(wire.pack_map(header | {"seq": 2}))
        assert wait_for(latest, lambda r: r.seq == 2, WAIT_S).decision
        assert latest.refused == 1 and latest.received == 1
    talker.close()


@pytest.fixture
def second(stack: Settings) -> Iterator[Callable[[], subprocess.CompletedProcess[str]]]:
    """Start another service whose ports are those of one that runs."""

    def start() -> subprocess.CompletedProcess[str]:
        command, env = [sys.executable, "-m", "gripwire", "reward", "run"], os.environ | stack.environment()
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    yield start


@pytest.mark.parametrize("name", ["health/reward", "reward"])
def test_a_second_publisher_of_a_topic_ends_with_a_sentence_and_the_first_goes_on(
    stack: Settings, second: Callable[[], subprocess.CompletedProcess[str]], name: str
) -> None:
    topic = stack.topics[name]
    with Publisher(topic) as first, Queued(topic, topic.message) as reader:
        assert first.wait_for_subscriber(WAIT_S)
        refused = second()
        first.publish(Reward() if name == "reward" else Health(service="reward", state="ready"))
        received = reader.receive(WAIT_S)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert f"topic `{name}` cannot use {topic.binds}: another process holds that port" in refused.stderr
    assert "--port-base" in refused.stderr
    assert received and reader.received == 1 and reader.gaps.restarts == 0
    if name == "reward":
        table.note(
            "two publishers on one port",
            "the second ends with a sentence that says what to do, the first and its readers go on",
            "exit code 1 and that sentence, for the topic's port and the heartbeat's; nothing lost",
        )
