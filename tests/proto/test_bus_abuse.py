"""Readers that say what they should not, as often as they can."""

import os
import random
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from gripwire import audience, clock, sockets, wire
from gripwire.bus import Gaps, Publisher, Queued, Received
from gripwire.messages import Health, Reward
from gripwire.topics import Topics
from tests.faults.conftest import GROWTH_MIB, resident_mib
from tests.faults.fuzz import Peer, frame
from tests.helpers import ending, until

WAIT_S = 10.0


def _until(publisher: Publisher[Reward], condition, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        publisher.wait_for_subscriber(0.02, count=10_000)


def _hung_up(peer: Peer) -> bool:
    peer.socket.settimeout(0.02)
    try:
        while peer.socket.recv(65536):  # what was published to it before
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_who_subscribes_to_what_is_not_here_again_and_again_is_counted_and_hung_up_on(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, Queued(topic, Reward) as reader, Peer(topic.endpoint) as bore:
        assert publisher.wait_for_subscriber(WAIT_S)
        bore.send(b"".join(frame(b"\1other%03d" % i) for i in range(1000)))
        _until(publisher, lambda: _hung_up(bore), "it is hung up on")
        assert 120 <= publisher.refused < 600  # 50 bytes each; what ZeroMQ had taken in by then counts too
        seq = publisher.publish(Reward()).seq
        received = reader.receive(WAIT_S)
        assert received and received.message.seq == seq and reader.gaps.lost == 0


def test_a_flood_of_long_subscriptions_costs_little_memory(topics: Topics) -> None:
    """ZeroMQ keeps sixty bytes for each byte of one, and would take in all that the kernel holds at once."""
    flood = b"".join(frame(b"\1" + random.Random(i).randbytes(300)) for i in range(30_000))
    with Publisher(topics["reward"]) as publisher:
        before = resident_mib(os.getpid())
        for _ in range(3):
            with Peer(topics["reward"].endpoint) as bore:
                saying = threading.Thread(target=_say, args=(bore, flood))
                saying.start()
                while saying.is_alive():  # at the pace of a topic of 20 Hz
                    publisher.poll()
                    saying.join(0.05)
        assert resident_mib(os.getpid()) - before < GROWTH_MIB


def test_what_is_taken_back_of_those_who_have_gone_hides_nobody(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ takes everything back that somebody had subscribed to, one by one."""
    topic = topics["reward"]
    monkeypatch.setattr(audience, "_MUCH", 10**9)
    readers = audience.Audience(wire.subscription(topic.name), topic.binds, topic.depth, "a test")
    with closing(readers.socket):
        with Peer(topic.endpoint) as bore:
            bore.send(b"".join(frame(b"\1other%04d" % i) for i in range(3000)))
            until(lambda: readers.look() or readers.refused == 3000, "all is looked at")
        assert readers.socket.poll(int(1000 * WAIT_S))  # it begins to take back
        with Peer(topic.endpoint) as reader:
            reader.send(frame(b"\1" + wire.subscription(topic.name)))
            looks = 0
            while not readers.readers:
                assert readers.socket.poll(int(1000 * WAIT_S)) and looks < 5, "not seen behind all that"
                readers.look()
                looks += 1


def _say(peer: Peer, what: bytes) -> None:
    with suppress(ConnectionError):
        peer.send(what)


def test_one_socket_that_reads_many_topics_is_no_nuisance(topics: Topics) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher, sockets.context().socket(zmq.SUB) as reader:
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
        assert publisher.refused >= 1


def test_a_reader_of_a_topic_that_should_not_be_silent_connects_anew(topics: Topics) -> None:
    """As when the network drops everything: what is held back for it must not come as new when that heals."""
    topic = topics["reward"]
    with sockets.context().socket(zmq.XPUB) as mute, Queued(topic, Reward) as reader:
        mute.setsockopt(zmq.XPUB_VERBOSER, 1)
        mute.bind(topic.endpoint)
        assert mute.poll(int(WAIT_S * 1000)) and mute.recv() == b"\1reward\0"
        deadline, said = time.monotonic() + WAIT_S, list[bytes]()
        while len(said) < 2:
            assert time.monotonic() < deadline
            assert reader.receive(0.1) is None
            while mute.poll(0):
                said.append(mute.recv())
        assert sorted(said[:2]) == [b"\0reward\0", b"\1reward\0"] and reader.refused == 0
        mute.send_multipart(wire.encode("reward", Reward(seq=3)))
        received = reader.receive(WAIT_S)
    assert received and received.message.seq == 3


def test_a_reader_with_a_full_queue_outlives_its_publisher(topics: Topics, tmp_path: Path) -> None:
    """libzmq aborts such a reader when it has heartbeats on."""
    script = tmp_path / "publisher.py"
    script.write_text(
        "import sys, time\nfrom gripwire.bus import Publisher\nfrom gripwire.messages import Reward\n"
        f"from gripwire.topics import Topics\n"
        f"with Publisher(Topics({topics.port_base})['reward']) as publisher:\n"
        "    publisher.wait_for_subscriber(20)\n"
        "    while True:\n        publisher.publish(Reward(reason='x' * 5000))\n        time.sleep(0.0005)\n"
    )
    topic = replace(topics["reward"], depth=5)
    with ending() as started, Queued(topic, Reward) as reader:
        for _ in range(2):
            started.append(subprocess.Popen([sys.executable, script]))
            assert reader.receive(WAIT_S)
            over = time.monotonic() + 5.0
            while time.monotonic() < over:  # slower than it is sent, for longer than any patience
                assert reader.receive(WAIT_S)
                threading.Event().wait(0.3)
            started[-1].kill()
            started[-1].wait()
            while reader.receive(1.0):
                pass
        assert reader.gaps.restarts == 1


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
