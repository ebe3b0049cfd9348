"""What arrives makes no sense: at every control endpoint, at every topic, and from every topic.

Seeded, on real sockets. The bench's stack is what is talked at; the readers' side has a publisher of its own
that talks nonsense.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zmq

from gripwire import control, sockets, wire
from gripwire.bus import Latest, Queued
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    DiscardEpisode,
    Fault,
    Health,
    Hold,
    Message,
    ModelState,
    Offer,
    Override,
    SteerSession,
    Thaw,
)
from gripwire.settings import Settings
from gripwire.topics import Topic
from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, SERVICES, Stack, bench_bundle, resident_mib
from tests.faults.fuzz import Garbler, Peer, frame, messages, requests
from tests.helpers import wait_for

COUNT = 1_000_000 if table.IN_FULL else 1000
LONG = pytest.mark.timeout(3600 if table.IN_FULL else 200)
PATIENCE_S = 3000.0 if table.IN_FULL else 60.0
AT_ONCE = 200
"""Requests that wait for their answers at a time."""
SOME = SERVICES if table.IN_FULL else ("robot", "reward")


class Busy:
    """A thread that does its work once; what went wrong in it comes out in :meth:`done`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as e:  # told where the test waits
            self._error = e

    def done(self) -> bool:
        if self._error:
            raise self._error
        return not self._thread.is_alive()


def _ask(endpoint: str, garbler: Garbler) -> None:
    """COUNT requests that make no sense, each of which is answered."""
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        sent = answered = 0
        while answered < COUNT:
            while sent < COUNT and sent - answered < AT_ONCE:
                body = garbler()
                socket.send_multipart([b"", body] if sent % 5 == 0 else [body])
                sent += 1
            assert socket.poll(30_000), f"{answered} of {sent} were answered"
            with suppress(zmq.Again):
                while True:
                    socket.recv_multipart(zmq.NOBLOCK)
                    answered += 1


def _mend(stack: Stack) -> None:
    """Undo what was not as senseless as it was meant to be."""
    remedies: tuple[tuple[str, Command], ...] = (
        ("sim", Fault(what="clear")), ("recorder", SteerSession(what="end")), ("recorder", DiscardEpisode()),
        ("reward", Thaw(force=True)), ("reward", Override(clear=True, force=True)), ("robot", Hold()),
    )  # fmt: skip
    for service, command in remedies:
        with suppress(UserError):  # there was nothing to undo
            control.request(stack.settings.topics.control(service), service, command, timeout_s=20)


@LONG
@pytest.mark.parametrize("service", SOME)
def test_senseless_requests_are_answered_and_counted_and_the_service_holds_its_rate(
    running: Stack, service: str
) -> None:
    running.all_well()
    pids = {s: running.pid(s) for s in SERVICES}
    refused, memory = running.counted(service, "refused_commands"), running.memory()
    began = time.monotonic()
    asking = Busy(lambda: _ask(running.settings.topics.control(service), Garbler(requests(), seed=1)))
    running.until(asking.done, PATIENCE_S, "every request is answered")
    seconds = time.monotonic() - began
    _mend(running)
    running.all_well()
    running.until(lambda: running.counted(service, "refused_commands") > refused, 20, "it counts them")
    running.until(running.fresh(f"health/{service}"), 20, "a heartbeat after the last of them")
    counted = running.counted(service, "refused_commands") - refused
    growth = running.memory()[service] - memory[service]
    assert {s: running.pid(s) for s in SERVICES} == pids, "nobody was restarted"
    assert counted > COUNT / 2
    assert growth < GROWTH_MIB, f"{growth:.1f} MiB more"
    table.note(
        f"{COUNT} senseless requests to {service}",
        "each is answered, refusals are counted, nothing ends, memory stays",
        f"all answered in {seconds:.0f} s, {counted} refused and counted; memory {growth:+.1f} MiB",
    )


def _subscriptions(topic: Topic, seed: int) -> Iterator[bytes]:
    """What no reader would send to a topic: frames of ZMTP that are no subscription to it, or hardly."""
    rng, mine = random.Random(seed), wire.subscription(topic.name)
    while True:
        if rng.random() < 0.001:  # nothing but long ones for a while: ZeroMQ keeps many times their length
            yield from (frame(b"\1" + rng.randbytes(300)) for _ in range(1000))
        way = rng.randrange(10)
        if way < 4:  # to something that does not exist, kept by ZeroMQ until the peer goes
            yield frame(b"\1" + rng.randbytes(rng.randrange(1, 60)))
        elif way < 6:
            yield frame(b"\0" + rng.randbytes(rng.randrange(40)))
        elif way < 8:
            bent = bytearray(b"\1" + mine)
            bent[rng.randrange(1, len(bent))] = rng.randrange(256)
            yield frame(bytes(bent))
        elif way < 9:  # a message, where only subscriptions are expected
            yield frame(rng.randbytes(rng.randrange(200)))
        elif rng.random() < 0.98:
            yield frame(b"\1" + rng.randbytes(300))
        else:  # a command that there is not, not even a frame, too long: ZeroMQ hangs up
            yield rng.choice([frame(b"\4NONE", flags=4), rng.randbytes(30), frame(bytes(900))])


def _talk(topic: Topic, tally: dict[str, int]) -> None:
    """COUNT of them, over as many connections as it takes."""
    senseless, sent = _subscriptions(topic, seed=2), 0
    while sent < COUNT:
        with suppress(OSError), Peer(topic.endpoint) as peer:
            while sent < COUNT:
                batch = [next(senseless) for _ in range(min(100, COUNT - sent))]
                sent += len(batch)  # of those sent to who has hung up nobody knows how many it saw
                peer.send(b"".join(batch))
        tally[topic.name] = tally.get(topic.name, 0) + 1


@LONG
def test_senseless_subscriptions_cost_no_publisher_its_memory_or_its_rate(running: Stack) -> None:
    running.all_well()
    pids, memory = {s: running.pid(s) for s in SERVICES}, running.memory()
    topics = [topic for topic in running.settings.topics if topic.owner in SERVICES]
    refused = {s: running.counted(s, "refused_messages") for s in SERVICES}
    lost = {t.name: running.survey.meters[t.name].gaps.lost for t in topics}
    tally: dict[str, int] = {}
    talking = [Busy(lambda topic=topic: _talk(topic, tally)) for topic in topics]
    running.until(lambda: all(each.done() for each in talking), PATIENCE_S, "all is said")
    running.all_well()
    for service in SERVICES:
        running.until(running.fresh(f"health/{service}"), 20, f"a heartbeat of {service} after the last")
    now = running.memory()
    growth = max(now[s] - memory[s] for s in SERVICES)
    counted = sum(running.counted(s, "refused_messages") - refused[s] for s in SERVICES)
    assert {s: running.pid(s) for s in SERVICES} == pids, "nobody was restarted"
    assert {t.name: running.survey.meters[t.name].gaps.lost for t in topics} == lost, "other readers lost"
    assert all(running.survey.judge()[name].alive for name in ("camera/gripper_cam", "robot/state", "reward"))
    assert counted > 0
    assert growth < GROWTH_MIB, (memory, now)
    table.note(
        f"{COUNT} senseless subscriptions to each of {len(topics)} topics",
        "who sends them is cut off, they are counted, other readers lose nothing, memory stays",
        f"{counted} were seen and counted, {sum(tally.values())} connections cut; memory {growth:+.1f} MiB "
        "at most, no reader lost a message",
    )


class Talker:
    """Stands at a topic's endpoint in its publisher's place, and waits for its reader rather than drop."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.socket = sockets.context().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.socket.setsockopt(zmq.SNDTIMEO, 30_000)
        sockets.bind(self.socket, topic.endpoint, "a liar")

    def wait(self) -> None:
        assert self.socket.poll(60_000) and self.socket.recv()

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart([wire.subscription(self.topic.name), *parts])

    def close(self) -> None:
        self.socket.close()


def _is_sense(parts: list[bytes], model: type[Message]) -> bool:
    try:
        wire.decode(parts, model)
    except wire.WireError:
        return False
    return True


def _nonsense(model: type[Message], seed: int) -> Iterator[list[bytes]]:
    """The parts behind the topic's name: bent messages, too many parts, too few, no picture."""
    garbler, rng = Garbler(messages(model), seed), random.Random(seed)
    while True:
        parts = [garbler()]
        if rng.random() < 0.2:
            parts = parts[: rng.randrange(2)] + [garbler() for _ in range(rng.randrange(4))]
        yield parts


@LONG
@pytest.mark.parametrize("name", ["camera/gripper_cam", "robot/state", "robot/action", "reward", "episode",
                                  "label", "model", "trainer", "health/robot"])  # fmt: skip
def test_a_reader_refuses_and_counts_exactly_what_makes_no_sense(stack: Settings, name: str) -> None:
    topic = stack.topics[name]
    talker, before = Talker(topic), resident_mib(os.getpid())
    with Queued(topic, topic.message) as reader:
        talker.wait()
        wrong, said = 0, _nonsense(topic.message, seed=3)
        for number in range(COUNT):
            parts = next(said)
            wrong += not _is_sense([b"", *parts], topic.message)
            talker.say(*parts)
            if number % 10 == 0:  # a reader of a camera keeps few messages, and this thread is both ends
                for _ in reader.drain():
                    pass
        talker.say(wire.pack(topic.message.model_validate(messages(topic.message)[0] | {"boot": "the last"})))
        while (received := reader.receive(10.0)) and received.message.boot != "the last":
            pass
        growth = resident_mib(os.getpid()) - before
        assert received, "it is deaf"
        assert reader.refused == wrong > COUNT / 2
    talker.close()
    assert growth < GROWTH_MIB
    table.note(
        f"{COUNT} malformed messages on {name}",
        "its readers refuse and count each, and hear the next that is well-formed",
        f"{wrong} malformed, {wrong} counted; memory {growth:+.1f} MiB",
    )


ALONE = {"reward": ("camera/gripper_cam", "episode"),
         "recorder": ("camera/gripper_cam", "robot/state", "robot/action", "reward", "model")}  # fmt: skip


@LONG
@pytest.mark.parametrize("service", ALONE if table.IN_FULL else ["reward"])
def test_a_service_whose_every_source_talks_nonsense_goes_on_and_counts_it(
    stack: Settings, service: str
) -> None:
    served = bench_bundle(stack.data / "bundles")
    talkers = [Talker(stack.topics[name]) for name in ALONE[service]]
    process = subprocess.Popen(
        [sys.executable, "-m", "gripwire", service, "run"],
        env=os.environ | stack.environment() | {"GRIPWIRE_REWARD__SHADOW_S": "0"},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with Latest(stack.topics[f"health/{service}"], Health) as health:
            wait_for(health, lambda h: h.state in ("ready", "degraded"))
            if service == "reward":
                control.request(stack.topics.control("reward"), "reward", Offer(bundle=served), timeout_s=30)
                with Latest(stack.topics["model"], ModelState) as model:
                    wait_for(model, lambda m: m.serving == served)
            before, sent = resident_mib(process.pid), 0
            for talker in talkers:
                said = _nonsense(talker.topic.message, seed=4)
                for _ in range(COUNT):
                    parts = next(said)
                    sent += not _is_sense([b"", *parts], talker.topic.message)
                    talker.say(*parts)
            last = wait_for(health, lambda h: h.counts.get("refused_messages", 0) >= 0.9 * sent, PATIENCE_S)
            growth = resident_mib(process.pid) - before
        assert process.poll() is None and last.pid == process.pid
        assert growth < GROWTH_MIB
    finally:
        process.kill()
        process.wait()
        for talker in talkers:
            talker.close()
    table.note(
        f"the {service} service hears {COUNT} malformed messages from each of its {len(talkers)} sources",
        "it goes on, counts them, and its memory stays",
        f"{last.counts['refused_messages']} of {sent} counted; memory {growth:+.1f} MiB",
    )
