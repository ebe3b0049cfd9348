"""Commands: typed, repeatable without harm, refused in plain words."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from gripwire import control, sockets, wire
from gripwire.control import Client, Server
from gripwire.errors import UserError
from gripwire.messages import Command, Done, Goal, Hold, Release, Reply, Sent, StartEpisode
from gripwire.topics import Topics

WAIT_S = 10.0


class Robot:
    """Takes commands as the robot service does, and remembers what reached it."""

    def __init__(self) -> None:
        self.handled: list[Command] = []

    def handlers(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {Goal: self._goal, Hold: self._hold}

    def _goal(self, goal: Goal) -> Sent:
        self.handled.append(goal)
        return Sent(position={joint: min(value, 10.0) for joint, value in goal.position.items()})

    def _hold(self, hold: Hold) -> Done:
        self.handled.append(hold)
        raise UserError("the motors have no power; switch the supply on")


class Serving:
    """A server polled by a thread, as a service's loop does."""

    def __init__(self, endpoint: str) -> None:
        self.robot = Robot()
        self.server = Server(endpoint, self.robot.handlers())
        self.turns = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            self.server.poll(0.02)
            self.turns += 1
        self.server.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def endpoint(topics: Topics) -> str:
    return topics.control("robot")


@pytest.fixture
def serving(endpoint: str) -> Iterator[Serving]:
    serving = Serving(endpoint)
    yield serving
    serving.close()


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    client = Client(endpoint, "robot")
    yield client
    client.close()


def _raw(endpoint: str, *bodies: bytes) -> list[dict[str, Any]]:
    """Send bytes as they are from one DEALER; the answers in order."""
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        answers = []
        for body in bodies:
            socket.send(body)
            assert socket.poll(int(WAIT_S * 1000)), "no answer"
            answers.append(wire.unpack_map(socket.recv()))
        return answers


def _request(**changes: Any) -> bytes:
    goal = {"v": 1, "id": "a1", "kind": "Goal", "args": {"position": {"gripper": 50.0}}}
    return wire.pack_map(goal | changes)


def test_a_reply_has_the_type_its_command_expects(serving: Serving, client: Client) -> None:
    goal = Goal(position={"gripper": 50.0}, source="script", by="ada")
    reply = client.ask(goal, WAIT_S)
    assert reply == Sent(position={"gripper": 10.0})
    assert serving.robot.handled == [goal]


def test_a_driver_who_gives_no_name_is_named_by_its_process(serving: Serving, client: Client) -> None:
    client.ask(Goal(position={"gripper": 50.0}), WAIT_S)
    (goal,) = serving.robot.handled
    assert isinstance(goal, Goal)
    assert goal.by.endswith(f"-{os.getpid()}") and goal.by != f"-{os.getpid()}"


def test_a_refusal_arrives_in_the_services_own_words(serving: Serving, client: Client) -> None:
    with pytest.raises(UserError, match=r"^the motors have no power; switch the supply on$"):
        client.ask(Hold(), WAIT_S)


def test_a_repeated_id_gets_the_same_answer_and_the_handler_runs_once(
    serving: Serving, endpoint: str
) -> None:
    first, again = _raw(endpoint, _request(), _request())
    (later,) = _raw(endpoint, _request())  # a client that timed out comes back with a new connection
    assert first == again == later
    assert first["ok"] and first["result"] == Sent(position={"gripper": 10.0}).model_dump()
    assert len(serving.robot.handled) == 1


def test_another_id_is_another_request_and_so_is_one_without_id(serving: Serving, endpoint: str) -> None:
    _raw(endpoint, _request(), _request(id="a2"), _request(id=""), _request(id=""))
    assert len(serving.robot.handled) == 4


def test_a_repeated_refusal_stays_a_refusal(serving: Serving, endpoint: str) -> None:
    hold = wire.pack_map({"v": 1, "id": "h", "kind": "Hold"})
    first, again = _raw(endpoint, hold, hold)
    assert first == again and not first["ok"] and first["error"].startswith("the motors have no power")
    assert len(serving.robot.handled) == 1


def test_the_memory_for_answers_is_bounded(serving: Serving, endpoint: str) -> None:
    _raw(endpoint, *(_request(id=f"n{i}") for i in range(control._REMEMBERED + 1)), _request(id="n0"))
    assert len(serving.robot.handled) == control._REMEMBERED + 2, "n0 was forgotten and runs again"
    assert len(serving.server._answered) == control._REMEMBERED


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (_request(kind="Fly"), "no command `Fly` here; there are: Goal, Hold"),
        (_request(kind=["Goal"]), "no command `['Goal']` here"),
        (wire.pack_map({"v": 1, "id": "x"}), "no command `None` here"),
        (_request(v=2), "schema version 2, this service speaks 1"),
        (wire.pack_map({"id": "x", "kind": "Goal"}), "schema version None, this service speaks 1"),
        (_request(args={}), "Goal: `position`: Field required"),
        (
            _request(args={"position": {"gripper": "wide"}}),
            "Goal: `position.gripper`: Input should be a valid",
        ),
        (_request(args=[1]), "Goal: ``: Input should be a valid dictionary"),
        (_request(id=None), "`id` must be a string of at most 64 characters"),
        (_request(id="i" * 65), "`id` must be a string of at most 64 characters"),
        (b"", "not a request: not msgpack"),
        (b"\xc1", "not a request: not msgpack"),
        (b"\x01", "not a request: a msgpack map was expected, not int"),
        (b"\xc7\x01\x05x", "not a request: not msgpack"),
    ],
)
def test_a_bad_request_is_answered_with_what_is_wrong_and_the_server_goes_on(
    serving: Serving, endpoint: str, body: bytes, error: str
) -> None:
    bad, good = _raw(endpoint, body, _request(id="after"))
    assert not bad["ok"] and bad["error"].startswith(error) and bad["result"] == {}
    assert good["ok"] and len(serving.robot.handled) == 1
    assert (serving.server.served, serving.server.refused) == (1, 1)


def test_a_refusal_does_not_quote_and_remember_all_that_was_asked(serving: Serving, endpoint: str) -> None:
    long = "k" * 60_000
    answers = _raw(
        endpoint, _request(kind=long), _request(id="v", v=long), _request(id="b", args={"position": long})
    )
    assert all(not answer["ok"] and len(answer["error"]) <= control.LONGEST_ERROR for answer in answers)
    assert sum(map(len, serving.server._answered.values())) < 3 * control.LONGEST_ERROR + 500


def test_a_flood_does_not_keep_the_loop_of_the_service(serving: Serving, endpoint: str) -> None:
    with sockets.context().socket(zmq.DEALER) as flood:
        flood.connect(endpoint)
        flooding = threading.Event()

        def go_on() -> None:
            while not flooding.is_set():
                with contextlib.suppress(zmq.Again):
                    flood.send(b"\xc1", zmq.NOBLOCK)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            deadline = time.monotonic() + WAIT_S
            while serving.server.refused < 1000:
                assert time.monotonic() < deadline
            turns = serving.turns
            while serving.turns < turns + 20:
                assert time.monotonic() < deadline, "the loop does not turn"
        finally:
            flooding.set()
            thread.join()


def test_a_request_of_too_many_parts_is_counted_and_not_sent_back(
    serving: Serving, endpoint: str, client: Client
) -> None:
    with sockets.context().socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send_multipart([b"x"] * 10)
        socket.send(_request(id="after"))
        assert socket.poll(int(WAIT_S * 1000)) and wire.unpack_map(socket.recv())["id"] == "after"
    assert serving.server.refused == 1


def test_unknown_arguments_are_ignored_so_that_a_newer_client_is_understood(
    serving: Serving, endpoint: str
) -> None:
    (answer,) = _raw(endpoint, _request(args={"position": {"gripper": 1}, "speed": 3}, new=True))
    assert answer["ok"] and answer["result"] == Sent(position={"gripper": 1.0}).model_dump()


def test_a_req_socket_is_answered_with_its_delimiter(serving: Serving, endpoint: str) -> None:
    with sockets.context().socket(zmq.REQ) as socket:
        socket.connect(endpoint)
        socket.send(_request())
        assert socket.poll(int(WAIT_S * 1000))
        assert wire.unpack_map(socket.recv())["id"] == "a1"


def test_no_answer_in_time_names_the_service_the_place_and_the_remedy(client: Client, endpoint: str) -> None:
    with pytest.raises(UserError) as refused:
        client.ask(Hold(), timeout_s=0.05)
    text = str(refused.value)
    assert text.startswith(f"the robot service did not answer `Hold` within 0.05 s at {endpoint}")
    assert "gripwire topics" in text and "gripwire robot run" in text


def test_a_request_that_timed_out_is_not_delivered_to_a_service_started_later(
    client: Client, endpoint: str
) -> None:
    with pytest.raises(UserError, match="did not answer"):
        client.ask(Goal(position={"gripper": 1.0}), timeout_s=0.05)
    serving = Serving(endpoint)
    try:
        client.ask(Goal(position={"gripper": 2.0}), WAIT_S)
        # Had the first one been queued it would have come first, over the same connection.
        assert [g.position for g in serving.robot.handled if isinstance(g, Goal)] == [{"gripper": 2.0}]
    finally:
        serving.close()


def test_an_answer_to_an_earlier_question_is_not_taken_for_this_one(client: Client, endpoint: str) -> None:
    def answer() -> None:
        with sockets.context().socket(zmq.ROUTER) as router:
            router.bind(endpoint)
            assert router.poll(int(WAIT_S * 1000))
            asker, body = router.recv_multipart()
            reply = {"v": 1, "ok": True, "error": "", "result": {}}
            router.send_multipart([asker, b"\xc1 garbage"])
            router.send_multipart([asker, wire.pack_map(reply | {"id": "old", "result": {"text": "old"}})])
            mine = wire.unpack_map(body)["id"]
            router.send_multipart([asker, wire.pack_map(reply | {"id": mine, "result": {"text": "mine"}})])
            done.wait(WAIT_S)

    done = threading.Event()
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert client.ask(Release(), WAIT_S) == Done(text="mine")
    finally:
        done.set()
        thread.join()


def test_one_client_may_be_used_from_many_threads(serving: Serving, client: Client) -> None:
    wrong: list[float] = []

    def ask(value: float) -> None:
        for _ in range(20):
            reply = client.ask(Goal(position={"gripper": value}), WAIT_S)
            if reply.position != {"gripper": value}:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(serving.robot.handled) == 80


def test_a_taken_control_port_is_refused_with_the_way_out(serving: Serving, endpoint: str) -> None:
    with pytest.raises(UserError, match=rf"control endpoint cannot use {endpoint}: another process holds"):
        Server(endpoint, {})


def test_a_command_that_the_service_does_not_take_is_named(serving: Serving, client: Client) -> None:
    with pytest.raises(UserError, match="no command `StartEpisode` here; there are: Goal, Hold"):
        client.ask(StartEpisode(task="t"), WAIT_S)
