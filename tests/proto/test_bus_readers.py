"""What the publisher and the two readers promise beyond the facts of ZeroMQ."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import zmq

from gripwire import bus, clock, wire
from gripwire.bus import Latest, Publisher, Queued, Received
from gripwire.messages import Frame, Reward, RobotState
from gripwire.topics import Topics

WAIT_S = 10.0


def _until(condition: Callable[[], object], what: str) -> None:
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        pause.wait(0.005)


def test_the_publisher_fills_the_header_and_keeps_a_capture_time_it_is_given(topics: Topics) -> None:
    before = clock.monotonic_ns()
    with Publisher(topics["reward"]) as publisher:
        first, second = publisher.publish(Reward()), publisher.publish(Reward(t_capture=before - 5))
    assert (first.seq, second.seq) == (0, 1)
    assert first.boot == second.boot == clock.boot_id() and first.host == clock.host_id()
    assert before <= first.t_capture == first.t_publish <= clock.monotonic_ns()
    assert second.t_capture == before - 5 < second.t_publish
    assert abs(first.t_wall - time.time_ns()) < 60e9
    assert not first.valid, "nobody has vouched for it"


def test_both_queues_have_the_declared_depth_and_what_does_not_fit_is_counted(topics: Topics) -> None:
    # A depth far below ZeroMQ's own (1000): were it set after bind or connect, all 1000 would be kept.
    topic, payload = replace(topics["camera/gripper_cam"], depth=10), bytes(100_000)
    frame = Frame(camera="gripper_cam", width=1, height=1, encoding="jpeg")
    with Publisher(topic) as publisher, Queued(topic, Frame) as reader:
        assert publisher.wait_for_subscriber(WAIT_S)
        for _ in range(1000):
            publisher.publish(frame, payload)
        kept = [r.message.seq for r in reader.drain()]
        last = None
        while last is None:  # until the queue has room again
            sent = publisher.publish(frame, payload).seq
            kept += [r.message.seq for r in reader.drain()]
            last = reader.receive(0.05)
            kept += [last.message.seq] if last else []
        while kept[-1] < sent and (received := reader.receive(0.2)):
            kept.append(received.message.seq)
    assert kept == sorted(kept) and kept[0] == 0, "the oldest are kept, the newest dropped"
    assert len(kept) < 700
    assert reader.gaps.lost == kept[-1] + 1 - len(kept) > 0
    assert sum(last - first + 1 for _, first, last in reader.gaps.ranges) == reader.gaps.lost


def test_within_its_depth_a_queue_loses_nothing_while_nobody_reads(topics: Topics) -> None:
    topic = topics["robot/state"]
    with Publisher(topic) as publisher, Queued(topic, RobotState) as reader:
        assert publisher.wait_for_subscriber(WAIT_S)
        for _ in range(topic.depth):
            publisher.publish(RobotState(position={}))
        for seq in range(topic.depth):
            received = reader.receive(WAIT_S)
            assert received and received.message.seq == seq
    assert reader.gaps.lost == 0


def test_the_slot_survives_what_does_not_parse(topics: Topics) -> None:
    topic, key = topics["reward"], wire.subscription("reward")
    with bus.context().socket(zmq.XPUB) as raw, Latest(topic, Reward) as latest:
        raw.bind(topic.endpoint)
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv()
        for garbage in ([key], [key, b"\xc1"], [key, wire.pack(Reward(v=2))], [key, b"a", b"b", b"c"]):
            raw.send_multipart(garbage)
        raw.send_multipart(wire.encode("reward", Reward(frame_seq=7)))
        received = latest.wait(WAIT_S)
        assert received and received.message.frame_seq == 7
        assert latest.refused == 4 and latest.refusal == "a message has 2 or 3 parts, not 4"


def test_waiting_for_news_gives_the_next_message_and_none_when_there_is_none(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, Latest(topic, Reward) as latest:
        assert latest.get() is None and latest.wait(0.01) is None
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward(frame_seq=1))
        first = latest.wait(WAIT_S)
        assert first and first.message.frame_seq == 1
        assert latest.wait(0.01, after=first) is None
        publisher.publish(Reward(frame_seq=2))
        second = latest.wait(WAIT_S, after=first)
        assert second and second.message.frame_seq == 2


def test_a_reader_finds_a_publisher_that_was_started_again(topics: Topics) -> None:
    topic = topics["reward"]
    with Latest(topic, Reward) as latest:
        for boot in ("one", "two"):
            with bus.context().socket(zmq.XPUB) as raw:
                bus.bind(raw, topic.endpoint, "a publisher")
                assert raw.poll(int(WAIT_S * 1000)) and raw.recv() == b"\x01reward\0"
                raw.send_multipart(wire.encode("reward", Reward(boot=boot)))
                _until(lambda boot=boot: (r := latest.get()) and r.message.boot == boot, f"news from {boot}")
    assert (latest.gaps.lost, latest.gaps.restarts) == (0, 1)


def test_a_reader_that_leaves_is_noticed(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher:
        with Queued(topic, Reward), Queued(topic, Reward):
            assert publisher.wait_for_subscriber(WAIT_S, count=2)
        _until(lambda: publisher.poll() is None and publisher._subscribers == 0, "both have left")
        assert not publisher.wait_for_subscriber(0.01)


def test_who_subscribes_to_everything_counts_as_a_reader_and_chatter_does_not(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, bus.context().socket(zmq.XSUB) as talker:
        talker.connect(topic.endpoint)
        talker.send(b"hello")  # no subscription: XPUB hands it on as it is
        talker.send(b"\x01" + bytes(10_000))  # too long for one: the connection is cut
        with bus.context().socket(zmq.SUB) as all_of_it:
            all_of_it.setsockopt(zmq.SUBSCRIBE, b"")
            all_of_it.connect(topic.endpoint)
            assert publisher.wait_for_subscriber(WAIT_S)
            publisher.publish(Reward(frame_seq=4))
            assert all_of_it.poll(int(WAIT_S * 1000))
            message, _ = wire.decode(all_of_it.recv_multipart(), Reward)
    assert message.frame_seq == 4 and publisher._subscribers == 1


@pytest.mark.parametrize("same_host", [True, False])
def test_age_counts_from_capture_where_the_clocks_compare_and_from_arrival_where_not(same_host: bool) -> None:
    now = clock.monotonic_ns()
    host = clock.host_id() if same_host else "another machine"
    received = Received(Reward(host=host, t_capture=now - 500_000_000), None, now)
    assert (received.age_ms() >= 500) is same_host
    assert Received(Reward(host=host), None, now).age_ms() < 400, "no capture time: from arrival"
