"""`gripwire doctor`, `graph`, `top`, and pictures by `echo`, as a user runs them."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from gripwire import keys, settings
from gripwire.bus import Publisher
from gripwire.messages import Frame, Health
from gripwire.topics import Topics
from tests.cli.publishing import publishing

WAIT_S = 60.0


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def _findings(out: str) -> list[dict[str, str]]:
    told: list[dict[str, str]] = json.loads(out.splitlines()[-1])["findings"]
    return told


def test_doctor_looks_at_everything_and_fails_only_when_something_does(gripwire, topics: Topics) -> None:
    code, out, err = _end(gripwire("doctor", "--json"))
    findings = _findings(out)
    assert code == any(f["level"] == "fail" for f in findings) and "Traceback" not in err
    assert {"python", "settings", "stack", "ports", "disk", "keys", "clock", "gpu", "limits"} <= {
        f["check"] for f in findings
    }
    assert all(f["remedy"] for f in findings if f["level"] != "ok")
    assert not any("this is a bug" in f["remedy"] for f in findings)


def test_doctor_names_who_took_a_port_and_the_service_that_is_degraded(gripwire, topics: Topics) -> None:
    beat = Health(service="robot", state="degraded", problem="the gripper is hot", valid=True, pid=1)
    with socket.create_server(("127.0.0.1", topics["reward"].port)), Publisher(topics["health/robot"]) as p:
        p.publish(beat)
        process = gripwire("doctor", "--json")
        while process.poll() is None:  # the heartbeat is latched: whoever comes gets it
            p.wait_for_subscriber(0.2)
            p.poll()
        _, out, _ = _end(process)
    texts = [f["text"] for f in _findings(out) if f["level"] != "ok"]
    assert "robot (pid 1) is degraded: the gripper is hot" in texts
    assert any("holds" in text and f"{topics['reward'].port} (topic `reward`)" in text for text in texts)


def test_doctor_says_that_the_settings_cannot_be_read(gripwire, tmp_path: Path) -> None:
    (tmp_path / "gripwire.toml").write_text("prot_base = 1\n")
    code, out, err = _end(gripwire("doctor"))
    assert code == 1 and "gripwire.toml:1: unknown key `prot_base`" in " ".join(out.split())
    assert "Traceback" not in err


def test_doctor_says_that_the_keys_cannot_be_used(gripwire, tmp_path: Path) -> None:
    keys.create(tmp_path / "keys")
    (tmp_path / "keys" / "machine.key").chmod(0o644)
    code, out, _ = _end(gripwire("doctor", "--json", "--data", str(tmp_path)))
    (finding,) = json.loads(out.splitlines()[-1])["findings"]
    assert code == 1 and finding["level"] == "fail" and "chmod 600" in finding["text"]


@pytest.mark.parametrize("verb", ["graph", "top"])
def test_nothing_running_is_one_sentence(gripwire, verb: str, topics: Topics) -> None:
    code, out, err = _end(gripwire(verb))
    assert code == 1 and not out.strip() and err.count("\n") == 1
    assert f"no service is heard on ports {topics.port_base} and up" in err


def test_graph_and_top_show_a_service_by_its_heartbeat(gripwire, topics: Topics) -> None:
    beat = Health(
        service="reward", state="ready", valid=True, pid=4711, rss_mb=120.0, cpu_percent=25.0, threads=9,
        reads={"camera/gripper_cam": 5}, subscribers={"reward": 2},
    )  # fmt: skip
    with publishing(topics["health/reward"], beat.model_copy, 5.0):
        started = [
            gripwire(*args) for args in (("graph",), ("graph", "--json"), ("top",), ("graph", "--dot"))
        ]
        (_, tree, _), (code, told, _), (_, table, _), (_, dot, _) = [_end(process) for process in started]
    assert "reward → 2 others" in tree and "camera/gripper_cam → reward (waits for it)" in tree
    graph = json.loads(told.splitlines()[-1])
    assert code == 0 and graph["services"][0]["pid"] == 4711 and graph["edges"][0]["silent"]
    assert "4711" in table and "25%" in table and "120 MB" in table
    assert dot.startswith("digraph gripwire {")


def test_echo_draws_pictures_in_plain_characters_where_there_is_no_terminal(gripwire, topics: Topics) -> None:
    topic = topics["camera/gripper_cam"]
    frame = Frame(valid=True, camera="gripper_cam", width=2, height=2, encoding="rgb8")
    with publishing(topic, frame.model_copy, 20.0, b"\0" * 6 + b"\xff" * 6):
        code, out, err = _end(gripwire("echo", topic.name, "--picture", "-n", "1"))
    assert (code, err) == (0, "")
    assert "@" in out and "gripper_cam 2x2 rgb8" in out and "\x1b" not in out


def test_echo_refuses_pictures_of_what_has_none(gripwire) -> None:
    for arguments in (("reward", "--picture"), ("camera/gripper_cam", "--picture", "--json")):
        code, _, err = _end(gripwire("echo", *arguments))
        assert code == 1 and err.startswith("error: --picture")


def test_a_stack_with_keys_that_this_terminal_lacks_is_said_to_be_one(
    gripwire, port_base: int, tmp_path: Path
) -> None:
    keys.create(tmp_path / "robot" / "keys")
    robot = settings.load(flags={"data": tmp_path / "robot", "port_base": port_base}, env={})
    beat = Health(service="reward", state="ready", valid=True)
    with publishing(robot.topics["health/reward"], beat.model_copy, 5.0):
        started = [gripwire(*args) for args in (("graph",), ("top",), ("doctor", "--json"))]
        (graph, _, said), (top, _, told), (doctor, out, _) = [_end(process) for process in started]
    assert (graph, top, doctor) == (1, 1, 1)
    assert "asks for keys" in said and "asks for keys" in told
    (found,) = [f for f in _findings(out) if f["check"] == "stack"]
    assert found["level"] == "fail" and "asks for keys" in found["remedy"]
