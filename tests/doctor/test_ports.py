"""Who listens where: our services, something stuck, or a stranger."""

import socket
from pathlib import Path

import pytest

from gripwire.doctor import ports
from gripwire.doctor.listeners import Listener, listeners, sockets
from gripwire.messages import Health
from gripwire.topics import Topics

TOPICS = Topics(7600)
REWARD = Health(service="reward", state="ready", pid=4711)


def test_free_ports_and_our_own_are_well() -> None:
    (free,) = ports.judge([], {}, TOPICS)
    (ours,) = ports.judge([Listener(7603, 4711, "gripwire reward run")], {"reward": REWARD}, TOPICS)
    assert (free.level, ours.level) == ("ok", "ok") and "all free" in free.text and "1 services" in ours.text


def test_a_stranger_is_named_with_what_it_takes_and_how_to_end_it() -> None:
    (found,) = ports.judge([Listener(7603, 99, "jupyter lab"), Listener(7641, 99, "jupyter lab")], {}, TOPICS)
    assert found.level == "fail"
    assert found.text.startswith("jupyter lab (pid 99) holds 7603 (topic `reward`), 7641 (reward's control")
    assert "`kill 99`" in found.remedy and "--port-base" in found.remedy


def test_a_gripwire_process_without_a_heartbeat_is_stuck() -> None:
    (found,) = ports.judge([Listener(7603, 12, "gripwire reward run")], {}, TOPICS)
    assert found.level == "warn" and "no heartbeat" in found.text


def test_a_process_that_cannot_be_seen_is_a_containers_when_services_are_heard() -> None:
    unseen = [Listener(7603)]
    assert [f.level for f in ports.judge(unseen, {"reward": REWARD}, TOPICS)] == ["ok"]
    (found,) = ports.judge(unseen, {}, TOPICS)
    assert found.level == "fail" and "cannot see" in found.text and "kill" not in found.remedy


def test_proc_net_tcp_is_read_for_sockets_that_listen() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1DB3 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 555 1\n"
        "   1: 0100007F:1DB4 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 556 1\n"
    )
    assert sockets(table, range(7600, 7664)) == {7603: "555"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells")
def test_the_process_that_holds_a_port_is_found_on_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = listeners(range(port, port + 1))
    assert found.pid > 0 and found.command
