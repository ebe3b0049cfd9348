"""Who may come in: keys on real sockets."""

import copy
import json
import multiprocessing.reduction
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import pytest
import zmq

from gripwire import curve, keys, sockets, wire
from gripwire.bus import Latest, Publisher, Queued
from gripwire.client import RewardStream, RewardTimeout
from gripwire.control import Client
from gripwire.errors import UserError
from gripwire.messages import Done, Hold, Label, ModelState, Reward
from gripwire.settings import Settings, load
from gripwire.topics import Endpoint, Topic
from tests.helpers import run_here, until
from tests.security.conftest import WAIT_S, Machine, Serve, acquaint
from tests.security.wiretap import Wiretap

SECRET = "the cube is under the left cup"


def hear(publisher: Publisher[Reward], reader: Latest[Reward]) -> bool:
    """Whether what is published now reaches the reader soon."""
    before = reader.get()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        publisher.publish(Reward(reason=SECRET))
        if reader.wait(0.02, after=before):
            return True
    return False


def test_the_programs_of_one_data_folder_talk_without_further_ado(
    robot_pc: Settings, machine: Machine
) -> None:
    topic, same = robot_pc.topics["reward"], machine("robot-pc").topics["reward"]
    with Publisher(topic) as publisher, Latest(same, Reward) as reader:
        until(lambda: hear(publisher, reader))
        assert reader.barred == ""


def test_a_process_finds_the_keys_by_the_data_folder_alone(robot_pc: Settings) -> None:
    script = """
        from gripwire import RewardStream
        with RewardStream(timeout_s=20) as stream:
            print(stream.latest()[0].reason)
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}
    environment |= {"GRIPWIRE_DATA": str(robot_pc.data), "GRIPWIRE_PORT_BASE": str(robot_pc.bus.port_base)}
    with Publisher(robot_pc.topics["reward"]) as publisher:
        done = threading.Event()

        def publish() -> None:
            while not done.wait(0.02):
                publisher.publish(Reward(reason=SECRET))

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            out = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(script)], env=environment, cwd=robot_pc.data,
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        finally:
            done.set()
            thread.join()
    assert out.stdout.strip() == SECRET, out.stderr


@pytest.mark.parametrize("with_keys", [True, False])
def test_what_passes_on_the_network_can_be_read_only_without_keys(
    robot_pc: Settings, machine: Machine, with_keys: bool
) -> None:
    stack = robot_pc if with_keys else machine("bare", with_keys=False)
    topic = stack.topics["reward"]
    with Publisher(topic) as publisher:
        tap = Wiretap(topic.port)
        through = replace(topic, endpoint=Endpoint("127.0.0.1", tap.port, stack.keys))
        with Latest(through, Reward) as reader:
            until(lambda: hear(publisher, reader))
        tap.close()
    assert len(tap.heard) > 200 and (SECRET.encode() in tap.heard) is not with_keys


def test_a_machine_that_is_not_allowed_reads_nothing_and_is_told_how_it_would(
    robot_pc: Settings, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    laptop = machine("laptop")
    assert robot_pc.keys and laptop.keys
    keys.allow(laptop.keys, "robot-pc", robot_pc.keys.public, ("watch",), host="127.0.0.1")
    topics = machine("laptop").topics  # it knows the robot's key from now on, and not the other way round
    before = sockets.refused_peers()
    with Publisher(robot_pc.topics["reward"]) as publisher, Latest(topics["reward"], Reward) as reader:
        until(lambda: reader.barred)
        remedy = f"`gripwire keys allow NAME {laptop.keys.public} --role watch`"
        assert "does not let this machine in" in reader.barred and remedy in reader.barred
        assert not hear(publisher, reader)
        until(lambda: sockets.refused_peers() > before + 2)
        told = [record for record in caplog.records if remedy in record.getMessage()]
        assert len(told) == 1, "once a machine, however often it comes"
        # And when somebody follows the remedy, it goes on by itself.
        keys.allow(robot_pc.keys, "laptop", laptop.keys.public, ("watch",))
        until(lambda: hear(publisher, reader))
        until(lambda: not reader.barred)
        assert reader.refused == 0


def test_a_revoked_machine_reads_nothing_more_and_the_others_miss_nothing(
    robot_pc: Settings, machine: Machine
) -> None:
    laptop = machine("laptop")
    acquaint(robot_pc, laptop, "watch")
    theirs, ours = machine("laptop").topics["reward"], robot_pc.topics["reward"]
    with (
        Publisher(ours) as publisher, Latest(theirs, Reward) as reader, Queued(ours, Reward) as witness,
    ):  # fmt: skip
        assert publisher.wait_for_subscriber(WAIT_S, count=2)
        until(lambda: hear(publisher, reader))
        assert robot_pc.keys
        keys.revoke(robot_pc.keys, "laptop")
        last = reader.get()
        assert last and not hear(publisher, reader)
        until(lambda: "does not let this machine in" in reader.barred)
        publisher.publish(Reward(reason="the last"))
        while (received := witness.receive(WAIT_S)) and received.message.reason != "the last":
            pass
        assert received and witness.gaps.lost == 0 and witness.received == publisher.sent
        assert reader.get() is last


def test_a_reader_without_keys_is_told_so(robot_pc: Settings, machine: Machine) -> None:
    bare = machine("bare", with_keys=False).topics["reward"]
    with Publisher(robot_pc.topics["reward"]) as publisher, Latest(bare, Reward) as reader:
        until(lambda: reader.barred)
        assert "asks for keys, and this data folder has none" in reader.barred
        assert not hear(publisher, reader)


def test_a_reader_with_keys_does_not_trust_a_publisher_without(robot_pc: Settings, machine: Machine) -> None:
    bare = machine("bare", with_keys=False).topics["reward"]
    with Publisher(bare) as publisher, Latest(robot_pc.topics["reward"], Reward) as reader:
        until(lambda: reader.barred)
        assert "is served without keys" in reader.barred
        assert not hear(publisher, reader)


def test_a_reader_does_not_trust_a_publisher_with_another_key_than_it_knows(
    robot_pc: Settings, machine: Machine
) -> None:
    impostor = machine("impostor")
    assert robot_pc.keys and impostor.keys
    keys.allow(impostor.keys, "robot-pc", robot_pc.keys.public, ("watch",))  # it would let us in
    with (
        Publisher(impostor.topics["reward"]) as publisher,
        Latest(robot_pc.topics["reward"], Reward) as reader,
    ):
        until(lambda: reader.barred)
        assert "another key than is expected" in reader.barred
        assert not hear(publisher, reader)


def test_a_reader_goes_on_by_itself_when_it_is_told_whose_key_to_expect(
    robot_pc: Settings, machine: Machine
) -> None:
    laptop = machine("laptop")
    assert robot_pc.keys and laptop.keys
    keys.allow(robot_pc.keys, "laptop", laptop.keys.public, ("watch",))
    with Publisher(robot_pc.topics["reward"]) as publisher, Latest(laptop.topics["reward"], Reward) as reader:
        until(lambda: "another key than is expected" in reader.barred)
        keys.allow(laptop.keys, "robot-pc", robot_pc.keys.public, ("watch",), host="127.0.0.1")
        until(lambda: hear(publisher, reader))


def test_the_reward_stream_says_why_it_gets_nothing(robot_pc: Settings, machine: Machine) -> None:
    machine("bare", with_keys=False)
    with (
        Publisher[Reward](robot_pc.topics["reward"]),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("GRIPWIRE_DATA", str(robot_pc.data.parent / "bare"))
        patch.setenv("GRIPWIRE_CONFIG", "")
        with (
            RewardStream(port_base=robot_pc.bus.port_base, timeout_s=2.0) as stream,
            pytest.raises(RewardTimeout, match=r"no reward within 2 s: .*asks for keys"),
        ):
            stream.latest()


def test_the_commands_that_look_at_the_bus_say_why_they_see_nothing(
    robot_pc: Settings, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = machine("bare", with_keys=False)
    with Publisher[Reward](robot_pc.topics["reward"]), Publisher[ModelState](robot_pc.topics["model"]):
        shown = run_here(["topics"], bare.environment(), capsys)
        assert "asks for keys, and this data folder has none" in " ".join(shown.stdout.split())
        rows = json.loads(run_here(["topics", "--json"], bare.environment(), capsys).stdout)["topics"]
        assert "asks for keys" in next(row["barred"] for row in rows if row["topic"] == "reward")
        status = run_here(["reward", "status"], bare.environment(), capsys)
        assert status.returncode == 1 and "asks for keys" in status.stderr


def test_a_command_says_why_it_was_not_asked(robot_pc: Settings, machine: Machine, serve: Serve) -> None:
    serving = serve(robot_pc.topics.control_binds("robot"), {Hold: Done()})
    bare = machine("bare", with_keys=False).topics.control("robot")
    with pytest.raises(UserError, match=r"was not asked for `Hold`: .* asks for keys"):
        Client(bare, "robot").ask(Hold(), timeout_s=0.5)
    with pytest.raises(UserError, match=r"was not asked for `Hold`: .* another key than is expected"):
        Client(machine("laptop").topics.control("robot"), "robot").ask(Hold(), timeout_s=0.5)
    assert serving.handled == []


def test_a_command_to_a_service_that_is_merely_away_still_says_so(robot_pc: Settings) -> None:
    with pytest.raises(UserError, match=r"did not answer `Hold` within 0\.2 s .*is it running"):
        Client(robot_pc.topics.control("robot"), "robot").ask(Hold(), timeout_s=0.2)


def test_without_the_handler_that_looks_at_keys_nobody_gets_in(robot_pc: Settings) -> None:
    topic = robot_pc.topics["label"]
    assert robot_pc.keys
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.linger = 0

    class Absent:
        def domain(self, _: object) -> bytes:
            return b"stack-0"

    with context.socket(zmq.XPUB) as publisher, Latest(topic, Label) as reader:
        curve.serve(publisher, robot_pc.keys, Absent())  # type: ignore[arg-type]
        publisher.bind(topic.binds)
        until(lambda: reader.barred)
        publisher.send_multipart(list(wire.encode("label", Label(success=True, v=1))))
        assert reader.wait(0.3) is None
    context.term()


def test_a_forked_child_serves_with_keys_of_its_own_context(robot_pc: Settings) -> None:
    topic: Topic = robot_pc.topics["reward"]
    script = f"""
        import os, pathlib
        from gripwire import bus, settings
        from gripwire.messages import Label, Reward
        flags = {{"data": {str(robot_pc.data)!r}, "port_base": {robot_pc.bus.port_base}}}
        stack = settings.load(flags=flags, env={{}})
        with bus.Publisher(stack.topics["label"]):  # a doorkeeper in the parent
            if os.fork() == 0:
                with bus.Publisher(stack.topics["reward"]) as publisher:
                    publisher.wait_for_subscriber(20)
                    publisher.publish(Reward(reason="from the child"))
                    publisher.close(linger_ms=2000)
                    sockets.context().term()
                os._exit(0)
            os.wait()
    """
    with Queued(topic, Reward) as reader:
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
        try:
            received = reader.receive(30.0)
        finally:
            assert child.wait(30) == 0
    assert received and received.message.reason == "from the child"


def test_a_topic_keeps_its_keys_when_it_is_copied_or_handed_to_another_process(robot_pc: Settings) -> None:
    topic = robot_pc.topics["reward"]
    for copied in (copy.deepcopy(topic), multiprocessing.reduction.ForkingPickler.loads(
        multiprocessing.reduction.ForkingPickler.dumps(topic))):  # fmt: skip
        assert copied == topic and copied.endpoint.keys and robot_pc.keys
        assert copied.endpoint.keys.secret == robot_pc.keys.secret
        assert (copied.endpoint.host, copied.endpoint.server) == (topic.endpoint.host, robot_pc.keys.public)


def test_a_public_address_is_bound_with_keys_alone(machine: Machine) -> None:
    with pytest.raises(UserError, match=r"has no keys to tell who that is: `gripwire keys new` makes them"):
        machine("bare", with_keys=False, bind="0.0.0.0")
    stack = machine("robot-pc", bind="0.0.0.0")
    with Publisher(stack.topics["reward"]) as publisher, Latest(stack.topics["reward"], Reward) as reader:
        assert stack.topics["reward"].binds.startswith("tcp://0.0.0.0:")
        until(lambda: hear(publisher, reader))


def test_without_keys_no_thread_and_no_option_is_added(machine: Machine) -> None:
    script = """
        import threading, zmq
        from gripwire import bus, settings
        stack = settings.load(env={})
        with bus.Publisher(stack.topics["reward"]) as publisher:
            assert publisher._socket.getsockopt(zmq.MECHANISM) == zmq.NULL
            assert [t.name for t in threading.enumerate()] == ["MainThread"]
    """
    bare = machine("bare", with_keys=False)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}
    bare.data.mkdir()
    script = script.replace("env={}", f"flags={{'port_base': {bare.bus.port_base}}}, env={{}}")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        check=True,
        timeout=60,
        cwd=bare.data,
    )


def test_two_machines_drive_and_watch_each_other(robot_pc: Settings, machine: Machine, serve: Serve) -> None:
    laptop = machine("laptop")
    acquaint(robot_pc, laptop, "watch", "drive")
    topics = machine("laptop").topics
    serving = serve(robot_pc.topics.control_binds("robot"), {Hold: Done(text="held")})
    with Publisher(robot_pc.topics["reward"]) as publisher, Latest(topics["reward"], Reward) as reader:
        until(lambda: hear(publisher, reader))
    assert Client(topics.control("robot"), "robot").ask(Hold(by="ada"), WAIT_S) == Done(text="held")
    assert serving.handled == [Hold(by="ada")]
    assert load(flags={"data": robot_pc.data}, env={}).keys is not None
