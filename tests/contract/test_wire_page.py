"""docs/wire.md says what the code does: every table is compared, every example is run."""

import json
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgpack
import pytest

from gripwire import control, keys, messages, wire
from gripwire import topics as registry
from gripwire.bus import Publisher
from gripwire.control import Server
from gripwire.messages import (
    COMMANDS,
    Bench,
    BundlePart,
    CapsuleState,
    Command,
    Disagreement,
    Done,
    Goal,
    Label,
    Message,
    Reward,
    Sent,
    Wire,
)
from gripwire.settings import Bus
from gripwire.topics import Topic, Topics
from tests.helpers import ending

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
WAIT_S = 20.0
Row = dict[str, str]


# --- reading the page ---------------------------------------------------------------------------------


def _section(heading: str) -> str:
    """The text under a heading, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/wire.md has no section {heading!r}"
    return re.sub(r"```.*?```", "", found[1], flags=re.DOTALL)


def _table(heading: str) -> list[Row]:
    """The first table of a section, a dict a row, without backquotes."""
    lines = [line for line in _section(heading).splitlines() if line.startswith("|")]
    assert lines, f"the section {heading!r} has no table"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def _plain(cell: str) -> str:
    return cell.replace("`", "")


def _fences(language: str) -> list[str]:
    # Fences that open or close a block alternate, so that prose between two blocks is never taken for one.
    return [
        body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S) if kind == language
    ]


def _bytes(dump: str) -> bytes:
    return bytes.fromhex("".join(line[6:53] for line in dump.splitlines()))


# --- ports --------------------------------------------------------------------------------------------


def _row(topic: Topic) -> tuple[str, ...]:
    kib = topic.max_bytes // 1024
    return (
        topic.message.__name__,
        f"{topic.rate_hz:g} Hz" if topic.rate_hz else "on change",
        "yes" if topic.latched else "no",
        str(topic.depth),
        f"{kib // 1024} MiB" if kib >= 1024 else f"{kib} KiB",
    )


def test_the_table_of_topics_is_that_of_the_code() -> None:
    stack = Topics(0, ["first", "second"])
    named = {t.name: t for t in stack if not t.name.startswith(("camera/", "health/"))}
    page = {_plain(row["topic"]): row for row in _table("Sockets and ports")}
    assert set(page) == {*named, "camera/<name>", "health/<service>"}
    for name, row in page.items():
        topic = named.get(name) or stack["camera/first" if name.startswith("camera/") else "health/robot"]
        told = tuple(row[key] for key in ("message", "rate", "latched", "depth", "largest part"))
        assert told == _row(topic), name
        if name in named:
            assert (row["offset"], row["publisher"]) == (str(topic.port), topic.owner)
    assert page["camera/<name>"]["offset"] == f"{stack['camera/first'].port} + slot"
    assert stack["camera/second"].port == stack["camera/first"].port + 1


def test_the_table_of_services_is_that_of_the_code() -> None:
    stack = Topics(0, ["first", "second"])
    page = {
        _plain(row["service"]): (row["health offset"], row["control offset"]) for row in _table("Services")
    }
    told = {name: page[name] for name in page if name != "camera/<name>"}
    assert told == {name: _offsets(stack, name) for name in registry.SERVICES}
    first = tuple(map(int, _offsets(stack, "camera/first")))
    assert page["camera/<name>"] == tuple(f"{offset} + slot" for offset in first)
    assert tuple(map(int, _offsets(stack, "camera/second"))) == (first[0] + 1, first[1] + 1)


def _offsets(stack: Topics, service: str) -> tuple[str, str]:
    return str(stack[f"health/{service}"].port), stack.control(service).rsplit(":", 1)[1]


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    stack, text = Topics(Bus().port_base), " ".join(PAGE.split())
    assert f"The base is {Bus().port_base} unless" in text and f"HOST is `{Bus().bind}` unless" in text
    assert f"a stack uses the {registry.PORT_SPAN} ports from its base on" in text
    assert f"{registry.MAX_CAMERAS} at most" in text
    assert f"on `camera/gripper_cam` (offset {stack['camera/gripper_cam'].port - stack.port_base})" in text
    assert (
        f"`health/camera/gripper_cam` ({stack['health/camera/gripper_cam'].port - stack.port_base})" in text
    )
    assert f"Offsets {stack.sim_camera_port() - stack.port_base} and" in text
    assert f"and {stack.sim_truth_port() - stack.port_base} are not ZeroMQ" in text
    assert f"remembers the last {control._REMEMBERED} ids" in text
    assert f"at most {control._MAX_ID} characters" in text
    requests, replies = control.LONGEST_REQUEST // registry.KIB, control.MAX_BYTES // registry.MIB
    assert f"Requests: {requests} KiB; replies: {replies} MiB" in text
    assert f"a `v` that is not {messages.SCHEMA_VERSION}" in text
    assert ", ".join(f"`{joint}`" for joint in messages.JOINTS) in text


# --- fields -------------------------------------------------------------------------------------------


def _wire_type(annotation: Any) -> str:
    """How the page names a Python type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("nil" if part is type(None) else _wire_type(part) for part in arguments)
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin is dict:
        return (
            "map" if arguments[1] is Any else f"map {_wire_type(arguments[0])} → {_wire_type(arguments[1])}"
        )
    if origin is list:
        return f"array of {_wire_type(arguments[0])}"
    if origin is tuple:
        return f"array of {len(arguments)} {_wire_type(arguments[0])}"
    return str(annotation.__name__)


def _fields(model: type[Wire], without: frozenset[str] = frozenset()) -> list[tuple[str, str, str]]:
    out = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        default = json.dumps(field.get_default(call_default_factory=True)) if not field.is_required() else ""
        out.append((name, _wire_type(field.annotation), default.replace("null", "nil") or "required"))
    return out


def _told(heading: str) -> list[tuple[str, str, str]]:
    return [tuple(_plain(row[key]) for key in ("field", "type", "default")) for row in _table(heading)]  # type: ignore[misc]


def test_the_header_is_that_of_the_code() -> None:
    assert _told("The header") == _fields(Message)


@pytest.mark.parametrize("model", sorted({t.message for t in Topics(0)}, key=lambda m: m.__name__))
def test_the_fields_of_every_message_are_those_of_the_code(model: type[Message]) -> None:
    assert _told(model.__name__) == _fields(model, frozenset(Message.model_fields))


def test_every_command_is_there_with_its_service_and_its_reply() -> None:
    page = {
        _plain(row["command"]): (row["service"], row["role"], row["reply"]) for row in _table("All commands")
    }
    assert page == {
        name: ((command.__doc__ or "").split(":")[0], command.role, command.expects.__name__)
        for name, command in COMMANDS.items()
    }


def test_the_rates_of_commands_are_those_of_the_code() -> None:
    often = {name for name, command in COMMANDS.items() if command.rate_hz != Command.rate_hz}
    assert often == {"Goal", "ReadBundle"} and {COMMANDS[name].rate_hz for name in often} == {2000}
    assert f"any other command {Command.rate_hz:g} times" in " ".join(_section("Limits").split())


@pytest.mark.parametrize(
    "model", [*COMMANDS.values(), Done, Sent, Bench, CapsuleState, Disagreement, BundlePart]
)
def test_the_fields_of_every_command_and_reply_are_those_of_the_code(model: type[Wire]) -> None:
    if model.model_fields:
        assert _told(model.__name__) == _fields(model)
    else:
        (sentence,) = re.findall(r"^[^.|]* have no arguments\.", PAGE, re.MULTILINE)
        assert f"`{model.__name__}`" in sentence


def test_the_keys_of_request_and_reply_are_those_of_the_code() -> None:
    request, reply = re.findall(r"((?:^\| .*\n)+)", _section("Commands"), re.MULTILINE)[:2]
    columns = [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in (request, reply)]
    assert columns[1] == list(wire.unpack_map(control._reply("x", Done())))
    assert columns[0] == ["v", "id", "kind", "args", "host", "expires"]


# --- examples -----------------------------------------------------------------------------------------


def test_the_message_that_is_shown_byte_for_byte_is_what_gripwire_sends() -> None:
    key, packed = map(_bytes, _fences("hex"))
    shown = json.loads(_fences("json")[0])
    assert msgpack.unpackb(packed) == shown
    message, payload = wire.decode([key, packed], Label)
    assert payload is None and message.model_dump() == shown
    assert [bytes(part) for part in wire.encode("label", message)] == [key, packed]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[int, str], subprocess.Popen[str]]]:
    """Run the page's n-th Python example against an endpoint."""
    with ending() as started:

        def start(n: int, endpoint: str, *more: object) -> subprocess.Popen[str]:
            script = tmp_path / "example.py"
            script.write_text(_fences("python")[n])
            command = [sys.executable, script, endpoint, *map(str, more)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            started.append(process)
            return process

        yield start


def test_the_example_follows_a_live_reward(topics: Topics, example: Callable[..., Any]) -> None:
    topic = topics["reward"]
    script = _fences("python")[0]
    assert set(re.findall(r"^import (.*)$", script, re.MULTILINE)) == {"sys", "msgpack, zmq"}
    assert f'"tcp://127.0.0.1:{Topics(Bus().port_base)["reward"].port}"' in script
    assert len(script.splitlines()) <= 25
    with Publisher(topic) as publisher:
        process = example(0, topic.endpoint)
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward(valid=False, reason="no bundle"))
        publisher.publish(Reward(valid=True, probability=0.25, logit=-1.1))
        publisher.sent += 3
        publisher.publish(Reward(valid=True, probability=0.97, logit=3.5, decision=True))
        lines: list[str] = []
        while len(lines) < 4 and (line := process.stdout.readline()):
            lines += [line] if "for a second" not in line else []  # it may have waited for its first
        assert lines == [
            "no verdict: no bundle\n",
            "success False probability 0.250\n",
            "3 rewards were lost\n",
            "success True probability 0.970\n",
        ]
        assert process.stdout.readline().startswith("no reward for a second")


def test_the_example_commands_a_live_service(topics: Topics, example: Callable[..., Any]) -> None:
    asked: list[Command] = []

    def take(goal: Goal) -> Sent:
        asked.append(goal)
        return Sent(position={"gripper": 12.0})

    endpoint = topics.control("robot")
    assert f'"{Topics(Bus().port_base).control("robot")}"' in _fences("python")[1]
    server = Server(endpoint, {Goal: take})
    process = example(1, endpoint)
    assert server.poll(WAIT_S) == 1
    assert process.stdout.readline() == "{'position': {'gripper': 12.0}, 'intervention': False}\n"
    assert process.wait(WAIT_S) == 0
    assert asked == [Goal(position={"gripper": 50.0}, source="script")]
    server.close()


def test_the_example_with_keys_is_let_in_and_reads(
    tmp_path: Path, port_base: int, example: Callable[..., Any]
) -> None:
    own = keys.create(tmp_path / "keys")
    topic = Topics(port_base, keys=own)["reward"]
    with Publisher(topic) as publisher:
        process = example(2, topic.endpoint, own.folder / keys.PAIR, own.public)
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward(valid=False, reason="no bundle"))
        assert process.stdout.readline() == "2 parts\n"
