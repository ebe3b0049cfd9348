"""The facts about ZeroMQ that the bus was built around; each test fails when its remedy is removed."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from gripwire import sockets, wire
from gripwire.bus import Latest, Publisher, Queued
from gripwire.errors import UserError
from gripwire.messages import Frame, Goal, ModelState, Reward, RobotState
from gripwire.topics import Topics
from tests.helpers import until

WAIT_S = 10.0


def _frame(i: int = 0) -> Frame:
    return Frame(valid=True, camera="gripper_cam", width=2, height=1, encoding="rgb8", exposure_seq=i)


def test_latest_keeps_header_and_payload_together_where_conflate_would_drop_both(topics: Topics) -> None:
    topic = topics["camera/gripper_cam"]
    with Publisher(topic) as publisher, Latest(topic, Frame) as latest:
        assert publisher.wait_for_subscriber(WAIT_S)
        for i in range(20):
            publisher.publish(_frame(i), bytes([i] * 6))
        until(lambda: (r := latest.get()) and r.message.exposure_seq == 19, "the last frame", WAIT_S)
        received = latest.get()
    assert received and bytes(received.payload or b"") == bytes([19] * 6)
    assert latest.refused == 0


def test_a_limit_set_before_connect_is_in_force_so_an_oversized_message_never_arrives(topics: Topics) -> None:
    topic = topics["robot/state"]
    sender = replace(topic)  # the publisher does not limit what it sends; the reader's socket refuses it
    with Publisher(sender) as publisher, Queued(topic, RobotState) as reader:
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(RobotState(position={}, reason="x" * (topic.max_bytes + 1)))
        # ZeroMQ drops the connection that carried it; the reader comes back on its own.
        received = None
        deadline = time.monotonic() + WAIT_S
        while received is None and time.monotonic() < deadline:
            publisher.publish(RobotState(position={"gripper": 1.0}))
            received = reader.receive(0.05)
    assert received is not None and received.message.reason == ""


def test_a_reader_that_never_looks_still_finds_the_newest_message_in_its_slot(topics: Topics) -> None:
    topic = replace(topics["robot/state"], depth=5)
    with Publisher(topic) as publisher, Latest(topic, RobotState) as latest:
        assert publisher.wait_for_subscriber(WAIT_S)
        for i in range(100):
            publisher.publish(RobotState(position={"gripper": float(i)}))
            until(
                lambda i=i: latest.gaps.lost + latest.received > i,
                "its thread takes each as it comes",
                WAIT_S,
            )
        received = latest.get()
    assert received and received.message.position["gripper"] == 99.0


def test_a_subscription_to_reward_does_not_receive_reward_debug(topics: Topics) -> None:
    topic = topics["reward"]
    with sockets.context().socket(zmq.XPUB) as raw, Queued(topic, Reward) as reader:
        raw.bind(topic.endpoint)
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv() == b"\x01reward\0"
        raw.send_multipart(wire.encode("reward_debug", Reward(probability=0.1)))
        raw.send_multipart(wire.encode("reward", Reward(probability=0.9)))
        received = reader.receive(WAIT_S)
        assert received and received.message.probability == 0.9
        assert reader.refused == 0


def test_a_publisher_used_from_many_threads_sends_whole_messages_in_order(topics: Topics) -> None:
    topic = replace(topics["robot/state"], depth=10_000)
    with Publisher(topic) as publisher, Queued(topic, RobotState) as reader:
        assert publisher.wait_for_subscriber(WAIT_S)

        def send() -> None:
            for _ in range(250):
                publisher.publish(RobotState(position={}))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        seqs = []
        while len(seqs) < 2000 and (received := reader.receive(WAIT_S)):
            seqs.append(received.message.seq)
        for thread in threads:
            thread.join()
    assert seqs == list(range(2000))
    assert reader.refused == 0


def test_a_forked_child_gets_a_context_that_works(topics: Topics, tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(
        "import os, sys\nfrom gripwire import bus, sockets\nfrom gripwire.messages import RobotState\n"
        "from gripwire.topics import Topics\n"
        "used = sockets.context().socket(bus.zmq.PUB)\n"  # ZeroMQ starts its threads with the first socket
        "if os.fork() == 0:\n"
        f"    with bus.Publisher(Topics({topics.port_base})['robot/state']) as publisher:\n"
        "        publisher.wait_for_subscriber(10)\n"
        "        publisher.publish(RobotState(position={'gripper': 7.0}))\n"
        "        sys.stdin.readline()\n"  # until it has arrived
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    with Queued(topics["robot/state"], RobotState) as reader:
        parent = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE)
        received = reader.receive(WAIT_S)
        parent.communicate(timeout=WAIT_S)
    assert received and received.message.position == {"gripper": 7.0}


def test_a_process_with_undelivered_requests_ends_at_once(topics: Topics, tmp_path: Path) -> None:
    script = tmp_path / "asks.py"
    script.write_text(
        "from gripwire import sockets\nimport zmq\n"
        f"s = sockets.context().socket(zmq.DEALER); s.connect({topics.control('robot')!r})\n"
        "s.send(b'nobody reads this'); s.close(); sockets.context().term(); print('ended')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=20, text=True)
    assert done.stdout == "ended\n", done.stderr


def test_waiting_for_the_subscription_means_the_very_first_message_arrives(topics: Topics) -> None:
    topic = topics["reward"]
    for _ in range(5):
        with Publisher(topic) as publisher, Queued(topic, Reward) as reader:
            assert publisher.wait_for_subscriber(WAIT_S)
            publisher.publish(Reward())
            received = reader.receive(WAIT_S)
            assert received and received.message.seq == 0


def test_a_latched_topic_answers_a_reader_that_comes_late(topics: Topics) -> None:
    topic = topics["model"]
    with Publisher(topic) as publisher:
        publisher.publish(ModelState(serving="abc", epoch=3))
        with Queued(topic, ModelState) as late:
            assert publisher.wait_for_subscriber(WAIT_S)
            received = late.receive(WAIT_S)
            assert received and received.message.serving == "abc"
            with Queued(topic, ModelState) as later:
                assert publisher.wait_for_subscriber(WAIT_S, count=2)
                assert later.receive(WAIT_S)
                assert late.receive(0.3) is None, "the repetition for the other reader is not news"
                assert (late.gaps.lost, late.gaps.restarts) == (0, 0)


def test_a_queued_reader_says_exactly_what_it_lost(topics: Topics) -> None:
    topic = topics["reward"]
    with sockets.context().socket(zmq.XPUB) as raw, Queued(topic, Reward) as reader:
        raw.bind(topic.endpoint)
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv()
        for boot, seq in (("a", 0), ("a", 1), ("a", 5), ("a", 6), ("b", 0), ("b", 2)):
            raw.send_multipart(wire.encode("reward", Reward(boot=boot, seq=seq)))
        for _ in range(6):
            assert reader.receive(WAIT_S)
        assert reader.gaps.ranges == [("a", 2, 4), ("b", 1, 1)]
        assert (reader.gaps.lost, reader.gaps.restarts) == (4, 1)


def test_what_does_not_parse_is_counted_and_dropped_and_the_reader_goes_on(topics: Topics) -> None:
    topic = topics["reward"]
    with sockets.context().socket(zmq.XPUB) as raw, Queued(topic, Reward) as reader:
        raw.bind(topic.endpoint)
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv()
        key = wire.subscription("reward")
        for garbage in (
            [key], [key, b"\xc1"], [key, b"\x93\1\2\3"], [key, wire.pack(Reward(v=2))],
            [key, wire.pack_map({"v": 1, "frame_seq": "seven"})], [key, b"a", b"b", b"c"],
            [key, b"\xc7\x01\x05x"], [key, b""],
        ):  # fmt: skip
            raw.send_multipart(garbage)
        raw.send_multipart(wire.encode("reward", Reward(frame_seq=7)))
        received = reader.receive(WAIT_S)
        assert received and received.message.frame_seq == 7
        assert reader.refused == 8


def test_a_taken_port_is_named_with_the_way_out(topics: Topics) -> None:
    with Publisher(topics["reward"]), pytest.raises(UserError, match=r"topic `reward`.*port-base"):
        Publisher(topics["reward"])


def test_commands_are_models_too_so_a_goal_round_trips() -> None:
    goal = Goal(position={"gripper": 12.5}, source="policy")
    assert Goal.model_validate(wire.unpack_map(wire.pack(goal))) == goal
