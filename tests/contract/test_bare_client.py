"""A client that imports only pyzmq and msgpack works with gripwire, in both directions."""

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from gripwire import bus, sockets, wire
from gripwire.bus import Latest, Publisher, Queued
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Done,
    Frame,
    Goal,
    Health,
    Hold,
    Label,
    ModelState,
    Reply,
    Reward,
    RobotState,
    Sent,
)  # fmt: skip
from gripwire.topics import Topics
from tests.helpers import ending

WAIT_S = 20.0
CLIENT = Path(__file__).with_name("bare_client.py")

# Runs a script where any import but Python's own, pyzmq and msgpack fails.
ISOLATED = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"zmq", "msgpack", *sys.stdlib_module_names}:
            raise ImportError(f"{name} must not be imported here")
sys.meta_path.insert(0, Refuse())
sys.path.pop(0)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
foreign = {name.partition(".")[0] for name in sys.modules} & {"gripwire", "pydantic", "numpy"}
assert not foreign, foreign
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Start]:
    """Run the client in a process that can import nothing of gripwire."""
    with ending() as started:

        def start(*arguments: object, script: Path = CLIENT) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", ISOLATED, script, *map(str, arguments)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
            )
            started.append(process)
            return process

        yield start


def _output(process: subprocess.Popen[str]) -> list[Any]:
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def _load_client() -> Any:
    spec = importlib.util.spec_from_file_location("bare_client", CLIENT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Arm:
    """What the control endpoint in these tests commands."""

    def __init__(self, endpoint: str) -> None:
        self.goals: list[Goal] = []
        handlers: dict[type[Command], Callable[[Any], Reply]] = {Goal: self._goal, Hold: self._hold}
        self._server, self._end = Server(endpoint, handlers), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _goal(self, goal: Goal) -> Sent:
        self.goals.append(goal)
        return Sent(position={joint: min(value, 20.0) for joint, value in goal.position.items()})

    def _hold(self, _: Hold) -> Done:
        raise UserError("the motors have no power; switch the supply on")

    def _run(self) -> None:
        while not self._end.is_set():
            self._server.poll(0.02)
        self._server.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def arm(topics: Topics) -> Iterator[Arm]:
    arm = Arm(topics.control("robot"))
    yield arm
    arm.close()


# --- isolation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["gripwire", "pydantic", "gripwire.wire"])
def test_the_client_runs_where_nothing_else_can_be_imported(bare: Start, tmp_path: Path, module: str) -> None:
    cheat = tmp_path / "cheat.py"
    cheat.write_text(f"import zmq, msgpack\nimport {module}\n")
    _, err = bare(script=cheat).communicate(timeout=WAIT_S)
    assert f"ImportError: {module.partition('.')[0]} must not be imported here" in err


# --- gripwire publishes, the bare client reads --------------------------------------------------------


def test_it_reads_what_a_publisher_sends_and_sees_what_it_lost(topics: Topics, bare: Start) -> None:
    topic = topics["reward"]
    with Publisher(topic) as publisher:
        client = bare("follow", topic.endpoint, "reward", 3)
        assert publisher.wait_for_subscriber(WAIT_S)
        sent = [publisher.publish(Reward(valid=True, probability=0.5, logit=0.0, stages_ms={"score": 3.5}))]
        sent.append(publisher.publish(Reward(reason="gründlich geprüft")))
        publisher.sent += 4
        sent.append(publisher.publish(Reward(frame_seq=2**40)))
        seen = _output(client)
    assert [s["header"] for s in seen] == [message.model_dump() for message in sent]
    assert [s["lost"] for s in seen] == [0, 0, 4]
    assert all(0 <= s["age_ms"] < 60_000 for s in seen), "the clocks of one host compare"


def test_it_reads_a_picture_to_the_byte(topics: Topics, bare: Start) -> None:
    topic = topics["camera/gripper_cam"]
    picture = bytes(range(256)) * 3
    with Publisher(topic) as publisher:
        client = bare("follow", topic.endpoint, "camera/gripper_cam", 1)
        assert publisher.wait_for_subscriber(WAIT_S)
        frame = Frame(valid=True, camera="gripper_cam", width=16, height=16, encoding="rgb8")
        publisher.publish(frame, picture)
        (seen,) = _output(client)
    assert bytes.fromhex(seen["payload"]) == picture
    assert len(picture) == seen["header"]["width"] * seen["header"]["height"] * 3


def test_it_drops_a_latched_repetition_that_was_meant_for_another_reader(topics: Topics, bare: Start) -> None:
    topic = topics["model"]
    with Publisher(topic) as publisher:
        publisher.publish(ModelState(serving="first"))
        client = bare("follow", topic.endpoint, "model", 2)
        assert publisher.wait_for_subscriber(WAIT_S)
        with Queued(topic, ModelState) as other:
            assert publisher.wait_for_subscriber(WAIT_S, count=2)
            assert other.receive(WAIT_S)
        publisher.publish(ModelState(serving="second"))
        seen = _output(client)
    assert [(s["header"]["serving"], s["lost"], s["restarts"]) for s in seen] == [
        ("first", 0, 0), ("second", 0, 0),
    ]  # fmt: skip


def test_it_goes_on_after_what_it_does_not_understand(topics: Topics) -> None:
    client, topic = _load_client(), topics["reward"]
    with sockets.context().socket(zmq.XPUB) as raw:
        raw.bind(topic.endpoint)
        reader = client.Reader(sockets.context(), topic.endpoint, "reward")
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv() == b"\x01reward\0"
        key = wire.subscription("reward")
        for garbage in (
            [key], [key, b"\xc1"], [key, b"\x93\1\2\3"], [key, wire.pack(Reward(v=2))],
            [key, msgpack.packb({"v": 1})], [key, b"a", b"b", b"c"], [key, b""],
            [key, msgpack.packb({"v": 1, "boot": "b", "seq": "seven"})],
        ):  # fmt: skip
            raw.send_multipart(garbage)
        raw.send_multipart(wire.encode("reward", Reward(boot="b", seq=7, frame_seq=7)))
        header, payload = reader.receive()
        reader.socket.close()
    assert (header["frame_seq"], payload, reader.refused) == (7, None, 8)


@pytest.mark.parametrize(
    ("messages", "lost", "restarts", "news"),
    [
        ("a0 a1 a2", 0, 0, "a0 a1 a2"),
        ("a5 a6", 0, 0, "a5 a6"),
        ("a0 a3 a3 a4", 2, 0, "a0 a3 a4"),
        ("a0 a1 a0 a2", 0, 0, "a0 a1 a2"),
        ("a7 b0 b2", 1, 1, "a7 b0 b2"),
    ],
)
def test_both_sides_keep_the_same_account_of_what_was_lost(
    messages: str, lost: int, restarts: int, news: str
) -> None:
    ours, theirs = bus.Gaps(), _load_client().Account()
    for account, see in ((ours, ours.see), (theirs, lambda m: theirs.is_news(m.model_dump()))):
        seen = [m for m in messages.split() if see(Reward(boot=m[0], seq=int(m[1:])))]
        assert (account.lost, account.restarts, " ".join(seen)) == (lost, restarts, news)


# --- the bare client commands -------------------------------------------------------------------------


@pytest.mark.parametrize("socket", ["DEALER", "REQ"])
def test_it_commands_a_service(topics: Topics, bare: Start, arm: Arm, socket: str) -> None:
    goal = '{"position": {"gripper": 50.5, "wrist_roll": -3}}'
    (reply,) = _output(bare("ask", topics.control("robot"), "Goal", goal, socket))
    assert reply["v"] == 1 and len(reply["id"]) == 32 and reply["error"] == ""
    assert reply["ok"] and reply["result"] == {
        "position": {"gripper": 20.0, "wrist_roll": -3.0}, "intervention": False
    }  # fmt: skip
    assert arm.goals == [Goal(position={"gripper": 50.5, "wrist_roll": -3.0}, source="policy")]


def test_it_reads_why_a_command_was_refused(topics: Topics, bare: Start, arm: Arm) -> None:
    (reply,) = _output(bare("ask", topics.control("robot"), "Hold", "{}"))
    assert not reply["ok"] and reply["result"] == {}
    assert reply["error"] == "the motors have no power; switch the supply on"


def test_it_may_ask_again_with_the_same_id_without_harm(topics: Topics, arm: Arm) -> None:
    client, endpoint = _load_client(), topics.control("robot")
    args = {"position": {"gripper": 1.0}}
    first = client.ask(sockets.context(), endpoint, "Goal", args, "same")
    again = client.ask(sockets.context(), endpoint, "Goal", args, "same", zmq.REQ)
    assert first == again and first["ok"] and len(arm.goals) == 1


# --- the bare client publishes, gripwire reads --------------------------------------------------------


def test_gripwire_reads_what_it_publishes(topics: Topics, bare: Start) -> None:
    topic = topics["label"]
    with Queued(topic, Label) as reader:
        client = bare("publish", topic.endpoint, "label", '{"success": true, "start": 3, "new": [1]}')
        received = reader.receive(WAIT_S)
    assert received and received.payload is None
    assert received.message.success and (received.message.start, received.message.end) == (3, None)
    assert received.message.valid and 0 < received.age_ms() < 60_000
    assert _output(client) == []


def _read(model: type[Any], fields: dict[str, Any], payload: bytes | None = None, **packing: Any) -> Any:
    parts = [b"any\0", msgpack.packb({"v": 1, **fields}, **packing)]
    return wire.decode(parts + ([payload] if payload is not None else []), model)


def test_a_message_of_its_required_fields_alone_is_understood_and_not_vouched_for() -> None:
    message, payload = _read(Label, {"success": True})
    assert message == Label(success=True) and not message.valid and payload is None
    message, payload = _read(Frame, {"camera": "c", "width": 1, "height": 1, "encoding": "rgb8"}, b"\1\2\3")
    assert payload == b"\1\2\3" and message.exposure_seq == -1


def test_whole_numbers_and_short_floats_are_taken_for_floats() -> None:
    message, _ = _read(RobotState, {"position": {"gripper": 12, "wrist_roll": 0.5}}, use_single_float=True)
    assert message.position == {"gripper": 12.0, "wrist_roll": 0.5}


def test_unknown_fields_are_ignored_whatever_they_hold() -> None:
    message, _ = _read(Health, {"service": "x", "state": "ready", "later": {"deep": [None, b"\0"]}})
    assert message == Health(service="x", state="ready")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (Label, {"success": 1}),
        (Label, {"success": "true"}),
        (Label, {}),
        (Label, {"success": True, "start": 1.0}),
        (Label, {"success": True, "start": True}),
        (Label, {"success": True, "by": b"ada"}),
        (Label, {"success": True, "v": 2}),
        (Label, {"success": True, "v": None}),
        (Label, {"success": True, "t_wall": msgpack.Timestamp(1)}),
        (Label, {"success": True, "later": msgpack.ExtType(5, b"x")}),
        (Health, {"service": "x", "state": "sleepy"}),
        (RobotState, {"position": {"gripper": "12"}}),
        (RobotState, {"position": [1, 2, 3]}),
    ],
)
def test_what_the_page_forbids_is_refused(model: type[Any], fields: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        _read(model, fields)


def test_the_newest_message_of_a_bare_publisher_is_kept_with_its_payload(topics: Topics) -> None:
    client, topic = _load_client(), topics["camera/gripper_cam"]
    header = {"camera": "gripper_cam", "width": 2, "height": 1, "encoding": "rgb8"}
    with Latest(topic, Frame) as latest:
        bare = threading.Thread(
            target=client.publish, args=(sockets.context(), topic.endpoint, topic.name, header, b"rgbrgb")
        )
        bare.start()
        received = latest.wait(WAIT_S)
    bare.join()
    assert received and received.message.valid and received.payload == b"rgbrgb"
