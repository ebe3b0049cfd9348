"""What a machine that was let in may ask for, and how often."""

import time
import uuid
from typing import Any

import pytest
import zmq

from gripwire import control, keys, sockets, wire
from gripwire.control import Client, Server
from gripwire.errors import UserError
from gripwire.limits import Limits
from gripwire.messages import (
    COMMANDS,
    Command,
    Done,
    Goal,
    Hold,
    MarkEpisode,
    Reply,
    Sent,
    StopEpisode,
    Swap,
)
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire.topics import Endpoint
from tests.security.conftest import WAIT_S, Machine, Serve, Serving, acquaint

REPLIES: dict[type[Command], Reply] = {
    Goal: Sent(position={}), Hold: Done(), MarkEpisode: Done(), StopEpisode: Done(), Swap: Done(),
}  # fmt: skip
ASKED = {
    "label": MarkEpisode(success=True),
    "drive": Goal(position={"gripper": 1.0}),
    "train": Swap(bundle="0" * 20),
}


@pytest.fixture
def serving(robot_pc: Settings, serve: Serve) -> Serving:
    return serve(robot_pc.topics.control_binds("robot"), REPLIES)


@pytest.fixture
def laptop(robot_pc: Settings, machine: Machine) -> Settings:
    made = machine("laptop")
    acquaint(robot_pc, made, "watch")
    return machine("laptop")


def _ask(stack: Settings, command: Command) -> Any:
    return control.request(stack.topics.control("robot"), "robot", command, WAIT_S)


def _give(here: Settings, name: str, *roles: str) -> None:
    assert here.keys
    keys.allow(here.keys, name, None, roles)  # type: ignore[arg-type]


def test_every_command_has_a_role_and_a_rate() -> None:
    assert {name for name, command in COMMANDS.items() if command.role not in keys.ROLES} == set()
    assert all(command.rate_hz >= 10 for command in COMMANDS.values())


@pytest.mark.parametrize("role", ["label", "drive", "train"])
def test_a_machine_may_ask_for_what_its_roles_cover_and_for_nothing_else(
    robot_pc: Settings, laptop: Settings, serving: Serving, role: str
) -> None:
    _give(robot_pc, "laptop", "watch", role)
    for wanted, command in ASKED.items():
        if wanted == role:
            assert _ask(laptop, command) == REPLIES[type(command)]
        else:
            with pytest.raises(
                UserError, match=f"needs the role `{wanted}`, and laptop has only watch, {role}"
            ):
                _ask(laptop, command)
    assert [type(command) for command in serving.handled] == [type(ASKED[role])]


def test_a_refusal_names_the_role_and_the_remedy_and_following_it_helps_at_once(
    robot_pc: Settings, laptop: Settings, serving: Serving
) -> None:
    client = Client(laptop.topics.control("robot"), "robot")
    with pytest.raises(UserError, match="`gripwire keys allow laptop --role watch --role drive`"):
        client.ask(Hold(), WAIT_S)
    _give(robot_pc, "laptop", "watch", "drive")
    assert client.ask(Hold(), WAIT_S) == Done()  # on the connection it had
    client.close()


def test_a_revoked_machine_commands_nothing_from_then_on_not_even_on_a_connection_it_has(
    robot_pc: Settings, laptop: Settings, serving: Serving
) -> None:
    _give(robot_pc, "laptop", "watch", "drive")
    client = Client(laptop.topics.control("robot"), "robot")
    client.ask(Hold(by="ada"), WAIT_S)
    assert robot_pc.keys
    keys.revoke(robot_pc.keys, "laptop")
    with pytest.raises(UserError, match="key was revoked there"):
        client.ask(Hold(by="ada"), WAIT_S)
    client.close()
    with pytest.raises(UserError, match="does not let this machine in"):
        _ask(laptop, Hold(by="ada"))
    assert len(serving.handled) == 1


def test_the_own_machine_may_everything(robot_pc: Settings, serving: Serving) -> None:
    for command in ASKED.values():
        _ask(robot_pc, command)
    assert len(serving.handled) == len(ASKED)


def test_one_machine_cannot_fetch_the_answer_to_anothers_request(
    robot_pc: Settings, laptop: Settings, serving: Serving
) -> None:
    _give(robot_pc, "laptop", "watch", "drive")
    body = wire.pack_map({"v": 1, "id": "guessed", "kind": "Hold", "args": {}})
    for stack in (robot_pc, laptop):
        with sockets.context().socket(zmq.DEALER) as socket:
            sockets.connect(socket, stack.topics.control("robot"))
            socket.send(body)
            assert socket.poll(WAIT_S * 1000)
            assert wire.unpack_map(socket.recv())["ok"]
    assert len(serving.handled) == 2


def test_a_flood_of_one_command_is_refused_with_its_limit_and_the_others_still_get_in(
    robot_pc: Settings, serving: Serving
) -> None:
    limit = int(StopEpisode.rate_hz)
    endpoint = robot_pc.topics.control("robot")
    with sockets.context().socket(zmq.DEALER) as socket:
        sockets.connect(socket, endpoint)
        for _ in range(4 * limit):
            request = {"v": 1, "id": uuid.uuid4().hex, "kind": "StopEpisode", "args": {}}
            socket.send(wire.pack_map(request))
        answers = []
        for _ in range(4 * limit):
            assert socket.poll(WAIT_S * 1000)
            answers.append(wire.unpack_map(socket.recv()))
        refused = [answer["error"] for answer in answers if not answer["ok"]]
        assert refused, "more than a second's worth at once"
        assert refused[0].startswith(f"StopEpisode came more than {limit} times a second from one peer")
        assert len(serving.handled) >= limit
    assert _ask(robot_pc, Hold()) == Done()
    assert serving.server.refused == len(refused)


def test_a_request_refused_for_its_rate_may_be_repeated_with_the_same_id(
    robot_pc: Settings, serving: Serving
) -> None:
    def answer(request_id: str) -> dict[str, Any]:
        request = {"v": 1, "id": request_id, "kind": "StopEpisode", "args": {}}
        return wire.unpack_map(serving.server._answer(wire.pack_map(request), robot_pc.keys.public, b"c"))  # type: ignore[union-attr]

    number = 0
    while answer(f"n{number}")["ok"]:
        number += 1
    deadline = time.monotonic() + WAIT_S
    while not answer(f"n{number}")["ok"]:
        assert time.monotonic() < deadline


def test_teleoperation_at_its_fastest_stays_far_below_the_limit() -> None:
    limits = Limits()
    assert all(limits.allow(b"leader", "Goal", Goal.rate_hz, i / 755) for i in range(755 * 60))


def test_a_bucket_is_one_second_deep_refills_and_belongs_to_one_peer_and_kind() -> None:
    limits = Limits()
    assert [limits.allow(b"a", "x", 3.0, 100.0) for _ in range(4)] == [True, True, True, False]
    assert limits.allow(b"a", "y", 3.0, 100.0) and limits.allow(b"b", "x", 3.0, 100.0)
    assert not limits.allow(b"a", "x", 3.0, 100.3)
    assert limits.allow(b"a", "x", 3.0, 100.7)
    assert [limits.allow(b"a", "x", 3.0, 999.0) for _ in range(4)] == [True, True, True, False]


def test_peers_that_come_and_go_do_not_fill_the_memory() -> None:
    limits = Limits()
    for i in range(5000):
        limits.allow(str(i).encode(), "x", 1.0, float(i))
    assert len(limits._left) <= 1024


def test_a_heartbeat_counts_what_was_refused(robot_pc: Settings, laptop: Settings) -> None:
    runtime = Runtime("robot", robot_pc)
    server = runtime.server = Server(robot_pc.topics.control_binds("robot"), {})
    before = runtime.refusals()
    assert set(before) == {"refused_messages", "refused_commands", "refused_peers"}
    topic = robot_pc.topics["label"]
    reader = runtime.queued("label", topic.message)
    with sockets.context().socket(zmq.XPUB) as raw, sockets.context().socket(zmq.DEALER) as socket:
        sockets.bind(raw, topic.binds, "a publisher")
        assert raw.poll(WAIT_S * 1000)
        raw.send_multipart([wire.subscription("label"), b"\xc1"])
        sockets.connect(socket, Endpoint("127.0.0.1", robot_pc.bus.port_base + 40, robot_pc.keys))
        socket.send(b"\xc1")
        deadline = time.monotonic() + WAIT_S
        while runtime.refusals() != before | {"refused_messages": 1, "refused_commands": 1}:
            reader.receive(0.01)
            server.poll(0.01)
            assert time.monotonic() < deadline, runtime.refusals()
    server.close()
    runtime.close()
