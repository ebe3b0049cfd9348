"""The bus against a bare pyzmq pair carrying the same bytes, and with keys: how much a hop costs.

All run in one go, turn by turn, each between two processes on loopback. One JSON line per figure.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from gripwire import clock, keys
from gripwire.bus import Publisher, Queued
from gripwire.messages import Frame, Reward
from gripwire.topics import Topic, Topics

BASE = 26000
ROUNDS, MESSAGES, PERIOD_S = 15, 200, 0.005
CASES = (("reward", 0), ("camera/gripper_cam", 40_000), ("camera/gripper_cam", 640 * 480 * 3))
"""Topic and bytes of the payload: none, a 640x480 JPEG of the gripper camera, the same as RGB8."""


def _pace(send: Callable[[], None]) -> None:
    due = time.monotonic()
    for _ in range(MESSAGES):
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
        send()


def _publish(name: str, size: int, base: int, folder: Path | None) -> None:
    topic = _topic(name, base, folder)
    payload = bytes(size) if size else None
    with Publisher(topic) as publisher:
        publisher.wait_for_subscriber(10)
        _pace(lambda: publisher.publish(_message(name), payload) and None)
        time.sleep(0.3)  # the last ones are on their way


def _topic(name: str, base: int, folder: Path | None) -> Topic:
    return Topics(base, keys=keys.load(folder) if folder else None)[name]


def _message(name: str) -> Any:
    if name.startswith("camera"):
        return Frame(valid=True, camera="gripper_cam", width=640, height=480, encoding="jpeg")
    return Reward(valid=True, frame_seq=1, logit=1.0, probability=0.7, model="0" * 20)


def _publish_bare(size: int, port: int) -> None:
    socket = zmq.Context().socket(zmq.XPUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(f"tcp://127.0.0.1:{port}")
    socket.recv()
    body = bytes(size)
    _pace(lambda: socket.send_multipart([b"t\0", clock.monotonic_ns().to_bytes(8, "little"), body]))
    time.sleep(0.3)


def hop(name: str, size: int, base: int, folder: Path | None = None) -> float:
    """Median milliseconds from `publish` to a decoded message in another process; ``folder``: of keys."""
    sender = multiprocessing.Process(target=_publish, args=(name, size, base, folder))
    times = []
    topic = _topic(name, base, folder)
    with Queued(topic, topic.message) as reader:
        sender.start()
        while len(times) < MESSAGES and (received := reader.receive(10)):
            times.append((clock.monotonic_ns() - received.message.t_publish) / 1e6)
    sender.join()
    return statistics.median(times)


def bare_hop(size: int, port: int) -> float:
    """The same with three bare parts of the same size in all."""
    sender = multiprocessing.Process(target=_publish_bare, args=(size, port))
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"t\0")
    socket.connect(f"tcp://127.0.0.1:{port}")
    sender.start()
    times = []
    while len(times) < MESSAGES and socket.poll(10_000):
        sent = int.from_bytes(socket.recv_multipart()[1], "little")
        times.append((clock.monotonic_ns() - sent) / 1e6)
    socket.close(0)
    sender.join()
    return statistics.median(times)


def main() -> None:
    multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as folder:
        keys.create(Path(folder))
        for name, size in CASES:
            _measure(name, size, Path(folder))


def _measure(name: str, size: int, folder: Path) -> None:
    ours, bare, locked = [], [], []
    for i in range(ROUNDS):
        ours.append(hop(name, size, BASE + 64 * i))
        bare.append(bare_hop(size + 600, BASE + 1000 + i))
        locked.append(hop(name, size, BASE + 2000 + 64 * i, folder))
    figure = {
        "figure": f"bus hop, {name}, {size} bytes", "gripwire_ms": round(statistics.median(ours), 3),
        "bare_pyzmq_ms": round(statistics.median(bare), 3),
        "with_keys_ms": round(statistics.median(locked), 3),
        "ratio": round(statistics.median(o / b for o, b in zip(ours, bare, strict=True)), 2),
        "keys_ratio": round(statistics.median(k / o for k, o in zip(locked, ours, strict=True)), 2),
    }  # fmt: skip
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
