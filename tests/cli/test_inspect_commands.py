"""`gripwire topics`, `echo`, `hz`, `delay` beside live publishers."""

import json
import re
import signal
import subprocess
from pathlib import Path

import zmq

from gripwire import clock, sockets, wire
from gripwire.bus import Publisher
from gripwire.messages import Frame, Reward
from gripwire.topics import Topics
from tests.cli.publishing import publishing

WAIT_S = 30.0


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def test_topics_lists_every_endpoint_even_when_nothing_runs(gripwire, topics: Topics) -> None:
    code, out, err = _end(gripwire("topics", "--json"))
    assert (code, err) == (0, "")
    rows = {row["topic"]: row for row in json.loads(out.splitlines()[-1])["topics"]}
    assert {name: row["endpoint"] for name, row in rows.items()} == {t.name: t.endpoint for t in topics}
    assert not any(row["seen"] or row["alive"] or row["valid"] for row in rows.values())


def test_topics_measures_what_is_published_and_shows_a_reason_as_it_is(gripwire, topics: Topics) -> None:
    frame = Frame(valid=True, camera="gripper_cam", width=1, height=1, encoding="rgb8")
    with (
        publishing(topics["camera/gripper_cam"], frame.model_copy, 30.0, b"rgb"),
        publishing(topics["reward"], lambda: Reward(reason="camera [/dev/video0] is gone"), 30.0),
    ):
        for _ in range(5):  # a busy machine may hold these publishers up for 0.3 s, which is said of them
            code, out, err = _end(gripwire("topics", "--json"))
            assert (code, err) == (0, "")
            rows = {row["topic"]: row for row in json.loads(out.splitlines()[-1])["topics"]}
            camera, reward, robot = rows["camera/gripper_cam"], rows["reward"], rows["robot/state"]
            if camera["alive"] and reward["alive"]:
                break
        assert camera["alive"] and camera["valid"] and 5 < camera["rate_hz"] < 40 and camera["delay_ms"] >= 0
        assert reward["alive"] and not reward["valid"]
        assert reward["reason"] == "camera [/dev/video0] is gone"
        assert not robot["seen"]


def test_topics_tells_people_the_reason_too(gripwire, topics: Topics) -> None:
    with publishing(topics["reward"], lambda: Reward(reason="camera [/dev/video0] is gone"), 30.0):
        for _ in range(5):
            code, out, err = _end(gripwire("topics"))
            assert (code, err) == (0, "")
            (line,) = [line for line in out.splitlines() if line.startswith("reward")]
            if "silent for" not in line:
                break
    assert "not valid: camera [/dev/video0] is gone" in line


def test_echo_prints_n_messages_as_json_lines(gripwire, topics: Topics) -> None:
    with Publisher(topics["reward"]) as publisher:
        process = gripwire("echo", "reward", "-n", "3", "--json")
        assert publisher.wait_for_subscriber(WAIT_S)
        sent = [publisher.publish(Reward(frame_seq=i, reason="grün")) for i in range(4)]
        code, out, err = _end(process)
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [message.model_dump() for message in sent[:3]]


def test_echo_is_readable_and_says_how_large_a_picture_is(gripwire, topics: Topics) -> None:
    topic = topics["camera/gripper_cam"]
    frame = Frame(camera="gripper_cam", width=1, height=1, encoding="rgb8", source="[/dev/video0]")
    with Publisher(topic) as publisher:
        process = gripwire("echo", topic.name, "-n", "1")
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(frame, b"rgb")
        code, out, err = _end(process)
    assert (code, err) == (0, "")
    assert "source: [/dev/video0]\n" in out and "payload: 3 bytes\n" in out


def test_echo_ends_in_order_on_ctrl_c(gripwire, topics: Topics) -> None:
    with Publisher(topics["reward"]) as publisher:
        process = gripwire("echo", "reward", "--json")
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward())
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        code, out, err = _end(process)
    assert (code, out, err) == (0, "", "")


def test_echo_into_a_pipe_that_closes_ends_without_a_traceback(gripwire, topics: Topics) -> None:
    with publishing(topics["reward"], Reward, 100.0):
        process = gripwire("echo", "reward", "--json")
        assert process.stdout.readline()
        process.stdout.close()  # as `head -n 1` does
        process.wait(WAIT_S)
        assert "Traceback" not in process.stderr.read()


def test_echo_says_where_it_waits_when_nothing_comes(gripwire, topics: Topics) -> None:
    process = gripwire("echo", "reward", "-n", "1")
    assert process.stderr.readline() == f"waiting for `reward` at {topics['reward'].endpoint}: nothing yet\n"


def test_hz_and_delay_measure_for_a_second(gripwire, topics: Topics) -> None:
    with publishing(topics["reward"], Reward, 50.0):
        rate, delay = [
            _end(process) for process in [gripwire(v, "reward", "-n", "1") for v in ("hz", "delay")]
        ]
    assert rate[::2] == delay[::2] == (0, "")
    pattern = r" *([\d.]+) Hz   between messages: median ([\d.]+) ms, min ([\d.]+), max ([\d.]+)\n"
    hz, middle, least, most = _numbers(pattern, rate[1])
    assert 0 < hz <= 60 and 0 <= least <= middle <= most  # after a stall two come at once
    head, *lines = delay[1].splitlines()
    assert re.fullmatch(r"reward, \d+ messages +median +p90 +max", head)
    stages = [_numbers(r" *[a-z ]+ ([\d.]+) ms +([\d.]+) ms +([\d.]+) ms", line) for line in lines]
    assert [line.split("  ")[0 if line[0] != " " else 1].strip() for line in lines] == [
        "capture to publish", "publish to here", "capture to here"
    ]  # fmt: skip
    assert all(middle >= 0 and p90 >= 0 and 0 <= most < 10_000 for middle, p90, most in stages)


def test_delay_tells_where_a_rewards_time_went(gripwire, topics: Topics) -> None:
    spent = {"receive": 1.0, "decode": 2.0, "score": 4.0}

    def make() -> Reward:
        return Reward(t_capture=clock.monotonic_ns() - 20_000_000, stages_ms=spent)

    with publishing(topics["reward"], make, 50.0):
        code, out, _ = _end(gripwire("delay", "reward", "-n", "1", "--json"))
    told = json.loads(out.splitlines()[-1])["reward"]["stages_ms"]
    assert code == 0 and list(told)[:4] == ["camera and waiting", "receive", "decode", "score"]
    assert told["decode"] == {"median": 2.0, "p90": 2.0, "max": 2.0}
    assert told["camera and waiting"]["median"] >= 13 - 0.001 and told["capture to publish"]["median"] >= 20


def test_delay_without_a_topic_has_a_line_for_each(gripwire, topics: Topics) -> None:
    with publishing(topics["reward"], Reward, 50.0):
        code, out, err = _end(gripwire("delay", "-n", "1"))
    assert (code, err) == (0, "")
    rows = [line.split()[0] for line in out.splitlines() if line.startswith(("reward", "robot/", "camera/"))]
    assert rows == ["robot/state", "robot/action", "reward", "camera/gripper_cam"]


def _numbers(pattern: str, line: str) -> list[float]:
    found = re.fullmatch(pattern, line)
    assert found, line
    return [float(text) for text in found.groups()]


def test_delay_does_not_compare_clocks_of_two_machines(gripwire, topics: Topics) -> None:
    process = gripwire("delay", "reward", "-n", "1")
    with sockets.context().socket(zmq.XPUB) as raw:
        raw.bind(topics["reward"].endpoint)
        assert raw.poll(int(WAIT_S * 1000)) and raw.recv()
        seq = 0
        while process.poll() is None:
            raw.send_multipart(wire.encode("reward", Reward(seq=seq, boot="b", host="another machine")))
            raw.poll(20)  # a pause that the reader's leaving cuts short
            seq += 1
        _, out, _ = _end(process)
    assert "another machine, whose clock is not ours" in out and "publish to here" not in out


def test_an_unknown_topic_is_one_sentence_that_lists_the_topics(gripwire) -> None:
    for process in [gripwire(verb, "rewrad") for verb in ("echo", "hz", "delay")]:
        code, out, err = _end(process)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("error: no topic `rewrad`; there are: ") and "reward" in line


def test_a_mistake_in_the_settings_is_one_sentence_with_file_and_line(gripwire, tmp_path: Path) -> None:
    (tmp_path / "gripwire.toml").write_text('\nport_bse = 7700\n[cameras.wrist]\nsource = "x"\n')
    code, out, err = _end(gripwire("topics"))
    assert (code, out) == (1, "")
    assert err == "error: gripwire.toml:2: unknown key `port_bse`; known: bind, data, log, port_base\n"
