"""Readers that say what they should not, as often as they can."""

import time

import pytest
import zmq

from gripwire import bus, clock, wire
from gripwire.bus import Gaps, Publisher, Queued, Received
from gripwire.messages import Health, Reward
from gripwire.topics import Topics
from tests.faults.fuzz import Peer, frame

WAIT_S = 10.0


def _until(publisher: Publisher[Reward], condition, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        publisher.wait_for_subscriber(0.02, count=10_000)


def _hung_up(peer: Peer) -> bool:
    peer.socket.settimeout(0.02)
    try:
        return peer.socket.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_who_subscribes_to_what_is_not_here_again_and_again_is_counted_and_hung_up_on(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, Queued(topic, Reward) as reader, Peer(topic.endpoint) as bore:
        assert publisher.wait_for_subscriber(WAIT_S)
        bore.send(b"".join(frame(b"\1other%d" % i) for i in range(bus._MUCH)))
        _until(publisher, lambda: _hung_up(bore), "it is hung up on")
        assert publisher.refused == bus._MUCH + 1
        seq = publisher.publish(Reward()).seq
        received = reader.receive(WAIT_S)
        assert received and received.message.seq == seq and reader.gaps.lost == 0


def test_one_socket_that_reads_many_topics_is_no_nuisance(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, bus.context().socket(zmq.SUB) as reader:
        for other in topics:
            reader.subscribe(other.name.encode() + b"\0")
        reader.connect(topic.endpoint)
        assert publisher.wait_for_subscriber(WAIT_S)
        _until(publisher, lambda: publisher.refused == len(list(topics)) - 1, "all is looked at")
        publisher.publish(Reward())
        assert reader.poll(int(WAIT_S * 1000))


def test_a_flood_of_subscriptions_holds_no_publication_up(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, Peer(topic.endpoint) as flood:
        flood.socket.settimeout(0.2)
        often = b"".join(frame(b"\1reward\0") + frame(b"\0reward\0") for _ in range(20_000))
        with pytest.raises(TimeoutError):  # more than fits into the queues between
            while True:
                flood.send(often)
        began = time.monotonic()
        for _ in range(20):
            publisher.publish(Reward())
        assert time.monotonic() - began < 2.0
        _until(publisher, lambda: _hung_up(flood), "it is hung up on")
        assert publisher.refused == 1


def test_a_reader_that_is_silent_on_the_network_is_given_up(topics: Topics) -> None:
    """As one whose network drops everything: what waits for it would come as new when it heals."""
    topic = topics["reward"]
    with Publisher(topic) as publisher, Peer(topic.endpoint) as peer:
        ttl = (20).to_bytes(2, "big")  # tenths of a second: what a reader of ours says once a second
        peer.send(frame(b"\1reward\0") + frame(b"\x04PING" + ttl, flags=4))
        assert publisher.wait_for_subscriber(WAIT_S)
        _until(publisher, lambda: publisher.subscribers() == 0, "it is given up")


def test_a_capture_that_is_still_to_come_does_not_keep_a_message_young() -> None:
    now = clock.monotonic_ns()
    received = Received(Reward(host=clock.host_id(), t_capture=now + 10**12), None, now - 500_000_000)
    assert received.age_ms() >= 500


def test_whatever_a_publisher_claims_its_losses_fit_into_a_heartbeat() -> None:
    gaps = Gaps()
    for boot in map(str, range(5)):
        gaps.see(Reward(boot=boot, seq=0))
        gaps.see(Reward(boot=boot, seq=2**63))
    assert wire.pack(Health(service="robot", state="ready", counts={"lost": gaps.lost * 3}))
