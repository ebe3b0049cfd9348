"""Somebody asks, or subscribes and unsubscribes, as fast as they can: the service holds its rate."""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq

from gripwire import control, sockets, wire
from gripwire.errors import UserError
from gripwire.messages import Freeze, Goal, NewEpisode
from gripwire.topics import Topic
from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, SERVICES, Stack
from tests.faults.fuzz import POSITION, Peer, frame

FOR_S = 20.0 if table.IN_FULL else 3.0
SOME = SERVICES if table.IN_FULL else ("robot",)
HELD = 0.8 if table.IN_FULL else 0.5  # of what it had before; a test must pass on a busy machine as well
SAYS = {"sim": "camera/gripper_cam", "camera/gripper_cam": "camera/gripper_cam", "robot": "robot/state",
        "reward": "reward", "recorder": "health/recorder", "trainer": "health/trainer"}  # fmt: skip
BODIES = {"robot": Goal(position=POSITION), "reward": NewEpisode()}


@contextmanager
def _flooding(flood: Callable[[threading.Event, list[int]], None]) -> Iterator[list[int]]:
    """Run ``flood`` in a thread for the length of the block; the list counts what it has sent, and
    over how many connections."""
    over, sent = threading.Event(), [0, 0]
    thread = threading.Thread(target=flood, args=(over, sent))
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def _commands(endpoint: str, service: str) -> Callable[[threading.Event, list[int]], None]:
    command = BODIES.get(service, Freeze(by="flood"))  # which most do not know: refused
    body = {"v": 1, "kind": type(command).__name__, "args": command.model_dump()}

    def flood(over: threading.Event, sent: list[int]) -> None:
        with sockets.context().socket(zmq.DEALER) as socket:
            socket.connect(endpoint)
            while not over.is_set():
                with suppress(zmq.Again):
                    for _ in range(100):
                        socket.send(wire.pack_map(body | {"id": f"flood-{sent[0]}"}), zmq.NOBLOCK)
                        sent[0] += 1
                with suppress(zmq.Again):
                    while True:
                        socket.recv(zmq.NOBLOCK)

    return flood


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", SOME)
def test_a_flood_of_commands_leaves_the_service_its_rate_and_others_their_answer(
    running: Stack, service: str
) -> None:
    running.all_well()
    topic, endpoint = SAYS[service], running.settings.topics.control(service)
    usual, memory = running.rate_before(topic), running.memory()
    refused, pid = running.counted(service, "refused_commands"), running.pid(service)
    lost = running.survey.meters[topic].gaps.lost
    with _flooding(_commands(endpoint, service)) as sent:
        began = time.monotonic()
        with suppress(UserError):  # a refusal is an answer; silence would take longer than this
            control.request(endpoint, service, NewEpisode(), 10.0)
        answer_s = time.monotonic() - began
        rate = running.listen(FOR_S)[topic] / FOR_S
    running.all_well()
    running.until(running.fresh(f"health/{service}"), 20, "a heartbeat after the flood")
    growth = running.memory()[service] - memory[service]
    counted = running.counted(service, "refused_commands") - refused
    assert running.pid(service) == pid
    assert rate >= HELD * usual, f"{topic} at {rate:.1f} Hz, {usual:.1f} before"
    assert running.survey.meters[topic].gaps.lost == lost
    assert answer_s < 8.0
    assert counted > 0 and growth < GROWTH_MIB
    table.note(
        f"flood of commands to {service} for {FOR_S:g} s",
        f"{topic} keeps its rate, others are answered, what is refused is counted, memory stays",
        f"{sent[0] / FOR_S:.0f} commands a second, {counted} of {sent[0]} refused and counted; "
        f"{topic} at {rate:.1f} Hz ({usual:.1f} before), another client was told in {answer_s * 1e3:.0f} ms; "
        f"memory {growth:+.1f} MiB",
    )


def _subscribing(topic: Topic) -> Callable[[threading.Event, list[int]], None]:
    mine = wire.subscription(topic.name)
    batch = (frame(b"\1" + mine) + frame(b"\0" + mine)) * 200

    def flood(over: threading.Event, sent: list[int]) -> None:
        while not over.is_set():
            with suppress(OSError), Peer(topic.endpoint) as peer:
                peer.socket.setblocking(False)
                left = batch
                while not over.is_set():
                    select.select([], [peer.socket], [], 0.1)
                    with suppress(BlockingIOError):
                        left = left[peer.socket.send(left) :] or batch
                        sent[0] += 400 * (left is batch)
                    with suppress(BlockingIOError):
                        peer.socket.recv(1 << 20)  # what it subscribes to comes as well
            sent[1] += 1

    return flood


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", SOME)
def test_a_flood_of_subscriptions_leaves_the_publisher_its_rate(running: Stack, service: str) -> None:
    running.all_well()
    topic = SAYS[service]
    usual, memory, pid = running.rate_before(topic), running.memory(), running.pid(service)
    lost = running.survey.meters[topic].gaps.lost
    with _flooding(_subscribing(running.settings.topics[topic])) as sent:
        rate = running.listen(FOR_S)[topic] / FOR_S
    running.all_well()
    growth = running.memory()[service] - memory[service]
    assert running.pid(service) == pid
    assert rate >= HELD * usual, f"{topic} at {rate:.1f} Hz, {usual:.1f} before"
    assert running.survey.meters[topic].gaps.lost == lost
    assert growth < GROWTH_MIB
    table.note(
        f"{topic} subscribed to and unsubscribed from as fast as can be, for {FOR_S:g} s",
        "the publisher hangs up on them, keeps its rate and memory; other readers lose nothing",
        f"{sent[0] / FOR_S:.0f} a second, hung up on {sent[1] - 1} times; {rate:.1f} Hz "
        f"({usual:.1f} before), nothing lost; "
        f"memory {growth:+.1f} MiB",
    )
