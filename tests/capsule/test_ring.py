"""The ring on the disk, and the one file that is made of it."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mcap.reader import make_reader

from gripwire import clock
from gripwire.bus import Received
from gripwire.capsule import about, join, ring, show
from gripwire.capsule.ring import Ring, segments
from gripwire.errors import UserError
from gripwire.messages import EpisodeState, Frame, Health, Message, ModelState, Reward
from gripwire.recording.file import Recording
from gripwire.settings import Settings, load

WAIT_S = 20.0
BUNDLE = "f25718f0162e0a66c804"


class Source:
    """Messages as a bus would hand them over."""

    def __init__(self, to: Ring) -> None:
        self.ring = to
        self._seq: dict[str, int] = {}

    def say(self, topic: str, message: Message, payload: bytes | None = None) -> Message:
        message.seq = self._seq[topic] = self._seq.get(topic, -1) + 1
        message.boot, message.host, message.valid = "b", clock.host_id(), True
        message.t_capture = message.t_publish = clock.monotonic_ns()
        message.t_wall = time.time_ns()
        self.ring.write(topic, Received(message, payload, message.t_publish))
        self.ring.tend()
        return message

    def rewards(self, count: int) -> None:
        for _ in range(count):
            self.say("reward", Reward())


@pytest.fixture
def folder(stack: Settings) -> Path:
    return stack.data / "capsules" / "ring"


@pytest.fixture
def make(stack: Settings, folder: Path) -> Callable[..., Source]:
    def made(**how: float) -> Source:
        limits = {"minutes": 2.0, "megabytes": 500.0, "floor_mb": 0.0, "segment_s": 10.0} | how
        return Source(Ring(folder, stack.topics, **limits))

    return made


def _save(stack: Settings, folder: Path, note: str = "") -> tuple[join.Capsule, list[Message], show.Inside]:
    capsule = join.save(segments(folder), stack.data / "capsules" / "c.mcap", stack, "asked for", note)
    return capsule, [r.message for r in Recording(capsule.path).messages()], show.read(capsule.path)


def test_what_is_older_than_the_minutes_goes_and_the_rest_stays(
    make: Callable[..., Source], stack: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "_LOOK_S", 0.0)
    source = make(minutes=0.5 / 60, segment_s=0.1)
    source.rewards(1)
    (first,) = segments(folder)
    deadline, sent = time.monotonic() + WAIT_S, [time.monotonic()]
    while first.exists():
        assert time.monotonic() < deadline
        source.rewards(1)
        sent.append(time.monotonic())
    source.ring.close()
    _, messages, _ = _save(stack, folder)
    kept = [m.seq for m in messages]
    assert kept == list(range(kept[0], len(sent))) and kept[0] > 0
    assert (
        sent[-1] - sent[kept[0]] > 0.3
    )  # nearly all of the half second, for what is dropped is a whole part


def test_the_ring_never_takes_more_than_its_megabytes(
    make: Callable[..., Source], stack: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "_LOOK_S", 0.0)
    monkeypatch.setattr(ring, "FLUSH_S", 0.0)
    source = make(megabytes=10)
    for _ in range(400):
        picture = Frame(camera="gripper_cam", width=1, height=1, encoding="jpeg")
        source.say("camera/gripper_cam", picture, os.urandom(100_000))
        assert sum(path.stat().st_size for path in folder.iterdir()) < 11e6
    source.ring.close()
    _, messages, _ = _save(stack, folder)
    assert messages[-1].seq == 399 and 50 < len(messages) < 150


def test_what_latched_topics_said_long_ago_is_in_it_once(
    make: Callable[..., Source], stack: Settings, folder: Path
) -> None:
    source = make()
    source.say("model", ModelState(serving=BUNDLE, previous="0" * 20, epoch=3))
    source.say("episode", EpisodeState(state="recording", dataset="mine", episode=7))
    source.say("health/robot", Health(service="robot", state="ready", versions={"gripwire": "0.1.0"}))
    source.ring.turn()
    segments(folder)[0].unlink()  # the part in which they were published has gone
    for _ in range(3):
        source.rewards(5)
        source.ring.turn()
    (stack.data / "bundles" / BUNDLE).mkdir(parents=True)
    (stack.data / "bundles" / BUNDLE / "bundle.json").write_text('{"schema": 1}')
    _, messages, inside = _save(stack, folder, note="the arm hit the table")
    assert [type(m).__name__ for m in messages].count("ModelState") == 1
    assert [m.seq for m in messages if isinstance(m, Reward)] == list(range(15))
    told = {name: inside.about[name] for name in ("note", "why", "serving", "previous", "epoch", "episode")}
    assert told == {
        "note": "the arm hit the table", "why": "asked for", "serving": BUNDLE, "previous": "0" * 20,
        "epoch": "3", "episode": "mine/7",
    }  # fmt: skip
    assert inside.versions == {"robot": "gripwire 0.1.0"}
    assert inside.attachment("serving/bundle.json") == b'{"schema": 1}'
    assert "previous/bundle.json" not in inside.attachments  # there is no such bundle on this disk


def test_a_part_that_was_torn_off_gives_what_had_been_flushed(
    make: Callable[..., Source], stack: Settings, folder: Path
) -> None:
    source = make()
    source.rewards(10)
    source.ring.turn()
    source.rewards(10)
    assert source.ring._current
    source.ring._current.flush()
    torn = segments(folder)[-1]
    torn.write_bytes(torn.read_bytes() + b"\x06 torn")  # and its process was killed
    capsule, messages, inside = _save(stack, folder)
    assert [m.seq for m in messages] == list(range(20))
    assert "ends in the middle" in capsule.problems[0] and "ends in the middle" in inside.about["problems"]


def test_a_wall_clock_that_is_set_changes_no_interval(
    make: Callable[..., Source], stack: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = make(), time.time_ns
    source.rewards(3)
    source.ring.turn()
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    source.rewards(3)
    source.ring.turn()
    capsule, messages, _ = _save(stack, folder)
    with open(capsule.path, "rb") as file:
        times = [record.log_time for _, _, record in make_reader(file).iter_messages()]
    assert times == sorted(times) and times[-1] - times[0] < 10 * 10**9
    for at, message in zip(times, messages, strict=True):
        # An hour off otherwise; between two looks at two clocks a busy machine may pause.
        assert abs((at - times[0]) - (message.t_publish - messages[0].t_publish)) < 500_000_000


def test_a_disk_without_room_pauses_the_ring_and_takes_back_what_it_had(
    make: Callable[..., Source], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "_LOOK_S", 0.0)
    source = make(floor_mb=100)
    source.rewards(5)
    source.ring.turn()
    source.rewards(5)
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=99 * 2**20))
    for _ in range(3):
        source.rewards(1)
    assert "less than 100 MB left" in source.ring.paused and not segments(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500 * 2**20))
    monkeypatch.setattr(source.ring, "_again", 0.0)
    source.rewards(1)
    assert not source.ring.paused and len(segments(folder)) == 1


def test_a_ring_goes_on_after_its_process_was_killed_and_one_of_another_run_is_put_aside(
    make: Callable[..., Source], stack: Settings, folder: Path
) -> None:
    killed = make()
    killed.rewards(4)
    assert killed.ring._current
    killed.ring._current.flush()
    again = make()
    again.say("reward", Reward(seq=4))
    again.ring.close()
    capsule, messages, _ = _save(stack, folder)
    assert len(messages) == 5 and capsule.messages == 5
    for path in segments(folder):
        os.utime(path, (time.time() - 3600,) * 2)
    make()
    assert not segments(folder)
    assert len(segments(folder / ring.BEFORE)) == 2


def test_nothing_to_save_and_a_name_that_is_taken_are_refused(
    make: Callable[..., Source], stack: Settings, folder: Path
) -> None:
    with pytest.raises(UserError, match="the ring holds no message"):
        _save(stack, folder)
    make().rewards(1)
    source = make()
    source.rewards(1)
    source.ring.close()
    _save(stack, folder)
    with pytest.raises(UserError, match="exists already and is never overwritten"):
        _save(stack, folder)
    assert [path.name for path in (stack.data / "capsules").iterdir() if path.suffix == ".tmp"] == []


def test_a_capsule_that_does_not_fit_is_refused_before_it_is_begun(
    make: Callable[..., Source], stack: Settings, folder: Path
) -> None:
    source = make()
    source.rewards(5)
    source.ring.close()
    out = stack.data / "capsules" / "c.mcap"
    with pytest.raises(UserError, match="does not fit on the disk"):
        join.save(segments(folder), out, stack, "asked for", spare_mb=1e12)
    assert [path.name for path in out.parent.iterdir()] == ["ring"]


def test_settings_are_told_with_their_origin_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "gripwire.toml"
    path.write_text(
        'port_base = 20000\n[cameras.wrist]\nsource = "rtsp://ada:hun/te@r2@cam/live"\n'
        '[console]\napi_key = "hunter2"\n'
    )
    shown = about.shown(load(path, {"data": tmp_path}, {}))
    assert "hunter2" not in json.dumps(shown)
    assert shown["cameras.wrist.source"] == {"value": "rtsp://cam/live", "from": f"{path}:3"}
    assert shown["port_base"] == {"value": "20000", "from": f"{path}:1"}
    assert shown["bind"]["from"] == "default"


def test_log_lines_come_from_the_files_that_were_written_meanwhile(stack: Settings) -> None:
    runs = stack.data / "runs" / "up-20260101-000000"
    runs.mkdir(parents=True)
    (runs / "robot.log").write_text("x" * 100_000 + "\nrtsp://ada:hunter2@cam is gone\n")
    (runs / "reward.log").write_text("of another day\n")
    os.utime(runs / "reward.log", (0, 0))
    known = about.Facts()
    found = {name: data for name, _, data in about.attachments(stack, known, time.time())}
    assert set(found) == {"settings.json", "log/robot.txt"}
    assert found["log/robot.txt"] == b"rtsp://cam is gone\n"


def test_an_id_from_the_wire_names_no_path(stack: Settings) -> None:
    stack.data.mkdir()
    (stack.data / "bundle.json").write_text("secret")
    (stack.data / "bundles").mkdir()
    known = about.Facts(serving="..", previous="/etc")
    assert [name for name, _, _ in about.attachments(stack, known, 0.0)] == ["settings.json"]
