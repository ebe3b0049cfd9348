"""Coverage-guided fuzz of what turns bytes into messages and requests: only WireError may leave it, soon."""

import os
from collections.abc import Iterator

import msgpack
import pytest

from gripwire import control, wire
from gripwire import messages as every_message
from gripwire.control import Server
from gripwire.messages import COMMANDS, JOINTS, Done
from gripwire.topics import Topics
from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, resident_mib
from tests.faults.fuzz import messages, requests
from tests.faults.guided import explore

COUNT = 1_000_000 if table.IN_FULL else 3000
LONG = pytest.mark.timeout(3000 if table.IN_FULL else 100)
SOON_S = 0.2  # of processor time
MODELS = {topic.message.__name__: topic.message for topic in Topics(20000)}


@LONG
@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_a_wire_error_leaves_the_decoder(name: str) -> None:
    model, before = MODELS[name], resident_mib(os.getpid())

    def run(data: bytes) -> str:
        try:
            wire.decode([b"topic\0", data], model)
        except wire.WireError as e:
            return str(e)
        return "a message"

    seeds = [bytes(msgpack.packb(message)) for message in messages(model)]
    found = explore(run, seeds, [wire, every_message], COUNT, 5, {*model.model_fields, *JOINTS})
    growth = resident_mib(os.getpid()) - before
    assert found.slowest_s < SOON_S
    assert growth < GROWTH_MIB
    assert len(found.answers) > 10, "it did not get far"
    table.note(
        f"coverage-guided fuzz of the decoder as {name}, {COUNT} inputs",
        "nothing but WireError leaves it; time and memory are bounded",
        f"nothing else did; {len(found.answers)} kinds of answer, the slowest after "
        f"{found.slowest_s * 1e3:.0f} ms; memory {growth:+.1f} MiB",
    )


@pytest.fixture
def server(topics: Topics) -> Iterator[Server]:
    made = Server(topics.control("robot"), {command: lambda _: Done() for command in COMMANDS.values()})
    yield made
    made.close()


@LONG
def test_every_request_gets_an_answer_that_is_a_reply(server: Server) -> None:
    before = resident_mib(os.getpid())

    def run(data: bytes) -> str:
        reply = wire.unpack_map(server._answer(data, "", b"%d" % server.refused))
        assert reply.keys() == {"v", "id", "ok", "error", "result"}
        assert len(str(reply["error"])) <= control.LONGEST_ERROR
        return str(reply["error"] or "done")

    seeds = [bytes(msgpack.packb(request)) for request in requests()]
    fields = {name for command in COMMANDS.values() for name in command.model_fields}
    found = explore(run, seeds, [wire, control, every_message], COUNT, 6, {*COMMANDS, *fields})
    growth = resident_mib(os.getpid()) - before
    assert found.slowest_s < SOON_S
    assert growth < GROWTH_MIB
    assert len(found.answers) > 20, "it did not get far"
    assert server.refused > COUNT / 2
    table.note(
        f"coverage-guided fuzz of requests, {COUNT} inputs",
        "each is answered, refused in plain words where it makes no sense; time and memory are bounded",
        f"all answered, {server.refused} refused; {len(found.answers)} kinds of answer, the slowest after "
        f"{found.slowest_s * 1e3:.0f} ms; memory {growth:+.1f} MiB",
    )
