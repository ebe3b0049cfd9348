"""`gripwire record` and `gripwire replay` as a user runs them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from gripwire.bus import Publisher, Queued
from gripwire.messages import Reward
from gripwire.recording.file import Recording, RecordingFile
from gripwire.topics import Topics
from tests.cli.publishing import publishing
from tests.helpers import on_small_disk

WAIT_S = 30.0


def _end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def _make(path: Path, topics: tuple[str, ...] = ("reward",), count: int = 20) -> None:
    with RecordingFile(path) as file:
        for seq in range(count):
            for topic in topics:
                file.append(topic, seq * 10_000_000, Reward(seq=seq, boot="b"), None)


def test_record_ends_with_ctrl_c_and_says_what_it_has(gripwire, topics: Topics, tmp_path: Path) -> None:
    with publishing(topics["reward"], Reward, 200.0) as rewards:
        process = gripwire("record", "-o", "runs/run.mcap")
        assert rewards.wait_for_subscriber(WAIT_S)
        with Queued(topics["reward"], Reward) as seen:  # as many as come in a while
            for _ in range(50):
                assert seen.receive(WAIT_S)
        process.send_signal(signal.SIGINT)
        code, out, err = _end(process)
    recording = Recording(tmp_path / "runs" / "run.mcap")
    seqs = [r.message.seq for r in recording.messages()]
    assert code == 0 and "Ctrl+C ends it" in err and "Traceback" not in err
    assert f"{len(seqs):7} messages" in out and len(seqs) >= 50 and "lost" not in out
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) and recording.problem == ""


def test_a_recorder_that_was_killed_leaves_all_but_the_last_moment(
    gripwire, topics: Topics, tmp_path: Path
) -> None:
    path = tmp_path / "run.mcap"
    with publishing(topics["reward"], Reward, 200.0) as rewards:
        process = gripwire("record", "-o", "run.mcap", "reward")
        assert rewards.wait_for_subscriber(WAIT_S)
        with Queued(topics["reward"], Reward) as seen:
            while not (path.exists() and Recording(path).contents().counts.get("reward", 0) > 100):
                last = seen.receive(WAIT_S)
                assert last is not None
        process.kill()
        process.wait()
    recording = Recording(path)
    messages = [r.message for r in recording.messages()]
    assert len(messages) > 100 and "ends in the middle" in recording.problem
    assert [m.seq for m in messages] == list(range(messages[0].seq, messages[0].seq + len(messages)))


def test_a_full_disk_ends_a_recording_that_can_be_read(topics: Topics, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with publishing(topics["reward"], lambda: Reward(reason=os.urandom(3000).hex()), 200.0):
        done = on_small_disk(
            small, 400_000, "sh", "-c",
            f"{sys.executable} -m gripwire record -o {small}/run.mcap --port-base {topics.port_base}; "
            f"code=$?; {sys.executable} -m gripwire replay {small}/run.mcap --wait 0 --rate 100 "
            f"--port-base {topics.port_base + 64} >&2; exit $code",
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"the disk that holds {small}/run.mcap is full" in done.stderr
    assert "messages played" in done.stderr and "Traceback" not in done.stderr


def test_record_refuses_what_cannot_be_meant(gripwire, tmp_path: Path) -> None:
    _make(tmp_path / "there.mcap")
    for arguments, said in (
        (("-o", "there.mcap"), "exists already and is never overwritten"),
        (("-o", "run.bag"), "ends in .mcap"),
        (("-o", "run.mcap", "rewards"), "no topic `rewards`; there are:"),
    ):
        code, _, err = _end(gripwire("record", *arguments))
        assert code == 1 and said in err and "Traceback" not in err
    assert not (tmp_path / "run.mcap").exists()


def test_record_for_some_seconds_of_nothing_says_so(gripwire, tmp_path: Path) -> None:
    code, out, _ = _end(gripwire("record", "-o", "run.mcap", "--seconds", "0.2"))
    assert code == 0 and "nothing was published" in out
    code, _, err = _end(gripwire("replay", "run.mcap"))
    assert code == 1 and "nothing to play, it holds no message; see" in err


def test_replay_plays_to_whoever_reads(gripwire, topics: Topics, tmp_path: Path) -> None:
    _make(tmp_path / "run.mcap")
    with Queued(topics["reward"], Reward) as reader:
        process = gripwire("replay", "run.mcap", "--json")
        seqs = [reader.receive(WAIT_S).message.seq for _ in range(20)]
        code, out, err = _end(process)
    assert code == 0 and seqs == list(range(20)) and "playing" in err
    summary = json.loads(out.splitlines()[-1])
    assert (summary["topics"], summary["messages"], summary["problem"]) == (["reward"], 20, "")


def test_replay_goes_on_and_on_as_if_its_publishers_were_started_anew(
    gripwire, topics: Topics, tmp_path: Path
) -> None:
    _make(tmp_path / "run.mcap", count=3)
    with Queued(topics["reward"], Reward) as reader:
        process = gripwire("replay", "run.mcap", "--loop")
        seen = [reader.receive(WAIT_S).message for _ in range(8)]
        process.send_signal(signal.SIGINT)
        code, out, _ = _end(process)
    assert [m.seq for m in seen] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert len({m.boot for m in seen}) == 3 and reader.gaps.lost == 0
    assert code == 0 and "messages played" in out


def test_replay_leaves_out_heartbeats_and_what_is_published_already(
    gripwire, topics: Topics, tmp_path: Path
) -> None:
    _make(tmp_path / "run.mcap", ("reward", "label", "health/reward"))
    with Publisher(topics["label"]):
        code, out, err = _end(gripwire("replay", "run.mcap", "--wait", "0", "--json"))
        assert code == 0 and json.loads(out.splitlines()[-1])["topics"] == ["reward"]
        assert "left out, a running service publishes it here: label\n" in err and "nobody reads" in err
        code, _, err = _end(gripwire("replay", "run.mcap", "--topics", "lab*,reward"))
        assert code == 1 and "another process holds that port" in err
    code, _, err = _end(gripwire("replay", "run.mcap", "--topics", "camera/*"))
    assert code == 1 and "no topic `camera/*`; there are: health/reward, label, reward" in err
