"""What the publisher and the two readers promise beyond the facts of ZeroMQ."""

import time
from dataclasses import replace

import pytest
import zmq

from gripwire import clock, sockets, wire
from gripwire.bus import Latest, Publisher, Queued, Received
from gripwire.messages import Frame, Reward, RobotState
from gripwire.topics import Topics
from tests.helpers import until

WAIT_S = 10.0


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


def test_a_full_queue_drops_the_newest_and_the_reader_says_exactly_what_it_lost(topics: Topics) -> None:
    # ZeroMQ's own depth is 1000: were the publisher's not in force, all 900 would fit.
    topic, payload = replace(topics["camera/gripper_cam"], depth=10), bytes(60_000)
    frame = Frame(camera="gripper_cam", width=1, height=1, encoding="jpeg")
    with Publisher(topic) as publisher, Queued(topic, Frame) as reader:
        assert publisher.wait_for_subscriber(WAIT_S)
        for _ in range(900):
            publisher.publish(frame, payload)
        kept = [r.message.seq for r in reader.drain()]
        while not kept or kept[-1] < 900:  # until the queue is empty and a newer one fits again
            newest = publisher.publish(frame, payload).seq
            while (received := reader.receive(0.2)) is not None:
                kept.append(received.message.seq)
    assert kept[0] == 0 and kept == sorted(set(kept)) and kept[-1] == newest
    assert reader.gaps.lost == newest + 1 - len(kept) > 0
    assert sum(last - first + 1 for _, first, last in reader.gaps.ranges) == reader.gaps.lost


def test_a_readers_queue_is_as_deep_as_its_topic_says_or_its_owner_wishes(topics: Topics) -> None:
    topic = topics["robot/state"]
    with Queued(topic, RobotState) as usual, Queued(topic, RobotState, depth=7) as chosen:
        assert usual.socket.getsockopt(zmq.RCVHWM) == topic.depth == 2000
        assert chosen.socket.getsockopt(zmq.RCVHWM) == 7


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
    with sockets.context().socket(zmq.XPUB) as raw, Latest(topic, Reward) as latest:
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
            with sockets.context().socket(zmq.XPUB) as raw:
                sockets.bind(raw, topic.endpoint, "a publisher")
                assert raw.poll(int(WAIT_S * 1000)) and raw.recv() == b"\x01reward\0"
                raw.send_multipart(wire.encode("reward", Reward(boot=boot)))
                until(
                    lambda boot=boot: (r := latest.get()) and r.message.boot == boot,
                    f"news from {boot}",
                    WAIT_S,
                )
    assert (latest.gaps.lost, latest.gaps.restarts) == (0, 1)


def test_a_reader_that_leaves_is_noticed(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher:
        with Queued(topic, Reward), Queued(topic, Reward):
            assert publisher.wait_for_subscriber(WAIT_S, count=2)
        until(lambda: publisher.subscribers() == 0, "both have left", WAIT_S)
        assert not publisher.wait_for_subscriber(0.01)


def test_who_subscribes_to_everything_is_a_reader_too(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, sockets.context().socket(zmq.SUB) as all_of_it:
        all_of_it.setsockopt(zmq.SUBSCRIBE, b"")
        all_of_it.connect(topic.endpoint)
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward(frame_seq=4))
        assert all_of_it.poll(int(WAIT_S * 1000))
        message, _ = wire.decode(all_of_it.recv_multipart(), Reward)
    assert message.frame_seq == 4


def test_what_is_no_subscription_does_not_upset_the_count_of_readers(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, sockets.context().socket(zmq.XSUB) as talker:
        talker.connect(topic.endpoint)
        for chatter in (b"", b"\2", b"\2rew", b"hello"):  # XPUB hands on whatever a reader says
            talker.send(chatter)
        talker.send(b"\1reward\0")
        assert publisher.wait_for_subscriber(WAIT_S)


def test_a_reader_that_sends_too_much_is_cut_off_and_the_others_are_not(topics: Topics) -> None:
    topic = topics["reward"]
    with (
        Publisher(topic) as publisher,
        Queued(topic, Reward) as reader,
        sockets.context().socket(zmq.XSUB) as talker,
    ):
        assert publisher.wait_for_subscriber(WAIT_S)
        monitor = talker.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        talker.connect(topic.endpoint)
        talker.send(b"\1" + bytes(100_000))
        assert monitor.poll(int(WAIT_S * 1000)), "nobody stops it"
        talker.disable_monitor()
        monitor.close()
        publisher.publish(Reward(frame_seq=4))
        received = reader.receive(WAIT_S)
    assert received and received.message.frame_seq == 4


@pytest.mark.parametrize("same_host", [True, False])
def test_age_counts_from_capture_where_the_clocks_compare_and_from_arrival_where_not(same_host: bool) -> None:
    now = clock.monotonic_ns()
    host = clock.host_id() if same_host else "another machine"
    received = Received(Reward(host=host, t_capture=now - 500_000_000), None, now)
    assert (received.age_ms() >= 500) is same_host
    assert Received(Reward(host=host), None, now).age_ms() < 400, "no capture time: from arrival"
