"""Recordings of the bus: every bit comes back, and whatever reached the disk can be read."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader

from gripwire import bus, clock, messages
from gripwire.bus import Publisher, Queued, Received
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Frame, Message, ModelState, Reward, RobotState
from gripwire.recording import form
from gripwire.recording.file import Recording, RecordingFile
from gripwire.recording.record import Recorder
from gripwire.recording.replay import Replay
from gripwire.topics import Topics

WAIT_S = 20.0
STATE = RobotState(valid=True, position={joint: 0.1 + 0.2 * i for i, joint in enumerate(JOINTS)})
FRAME = Frame(valid=True, camera="gripper_cam", width=2, height=1, encoding="rgb8", exposure_seq=3)


def _received(message: Message, payload: bytes | None = None) -> Received[Any]:
    message.host, message.t_publish = clock.host_id(), clock.monotonic_ns()
    message.t_capture = message.t_capture or message.t_publish
    return Received(message, payload, message.t_publish)


def _states(path: Path, count: int, flush_every: int) -> list[Message]:
    """A recording of as many states; what was written."""
    with RecordingFile(path) as file:
        out = []
        for seq in range(count):
            message = STATE.model_copy(update={"seq": seq, "boot": "a", "t_publish": 0, "t_capture": 0})
            file.write("robot/state", _received(message))
            out.append(message)
            if seq % flush_every == flush_every - 1:
                file.flush()
    return out


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), st.integers(0, 2**63 - 1), st.text()
)
def test_a_message_comes_back_with_every_bit(logit: float, probability: float, time: int, text: str) -> None:
    sent = Reward(logit=logit, probability=probability, t_capture=time, reason=text, model="m", epoch=2)
    assert form.from_json(form.to_json(sent, None), Reward) == (sent, None)


@given(st.binary(max_size=100), st.sampled_from(["jpeg", "rgb8"]))
def test_a_picture_comes_back_with_its_header(payload: bytes, encoding: Any) -> None:
    sent = FRAME.model_copy(update={"encoding": encoding})
    assert form.from_json(form.to_json(sent, payload), Frame) == (sent, payload)


@pytest.mark.parametrize("kind", [k for k in vars(messages).values() if isinstance(k, type)], ids=str)
def test_schemas_are_plain_enough_for_any_viewer(kind: type) -> None:
    if not issubclass(kind, Message) or kind is Message:
        return
    made = kind.model_construct(encoding="jpeg", camera="c", t_wall=0)
    shown = form.schema(made)
    assert all("type" in field for field in shown["properties"].values())
    assert not any(word in json.dumps(shown) for word in ("$ref", "anyOf", "$defs"))


def test_another_reader_of_mcap_finds_a_picture_that_it_can_show(tmp_path: Path) -> None:
    with RecordingFile(tmp_path / "run.mcap") as file:
        jpeg = FRAME.model_copy(update={"encoding": "jpeg", "t_wall": 5_000_000_007})
        file.write("camera/gripper_cam", _received(jpeg, b"\xff\xd8 a picture"))
        file.write("camera/gripper_cam", _received(FRAME.model_copy(), b"abcdef"))
    with open(tmp_path / "run.mcap", "rb") as stream:
        (schema, channel, message), (raw_schema, _, raw) = list(make_reader(stream).iter_messages())
    assert (schema.name, schema.encoding) == ("foxglove.CompressedImage", "jsonschema")
    assert (channel.topic, channel.message_encoding) == ("camera/gripper_cam", "json")
    shown = json.loads(message.data)
    assert base64.b64decode(shown["data"]) == b"\xff\xd8 a picture"
    assert (shown["format"], shown["timestamp"]) == ("jpeg", {"sec": 5, "nsec": 7})
    assert raw_schema.name == "foxglove.RawImage"
    assert json.loads(raw.data)["step"] == 6 and json.loads(raw.data)["encoding"] == "rgb8"


def test_a_recording_that_was_torn_off_gives_all_that_was_flushed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mcap"
    sent = _states(whole, 100, flush_every=10)
    data = whole.read_bytes()
    assert [r.message for r in Recording(whole).messages()] == sent
    counts = []
    for end in range(60, len(data) - 1, 97):
        (torn := tmp_path / "torn.mcap").write_bytes(data[:end])
        recording = Recording(torn)
        seen = [r.message for r in recording.messages()]
        assert seen == sent[: len(seen)] and len(seen) % 10 == 0
        assert "ends in the middle" in recording.problem
        assert recording.contents().counts.get("robot/state", 0) == len(seen)
        counts.append(len(seen))
    assert counts == sorted(counts) and counts[-1] == 100


def test_a_recording_that_was_damaged_gives_what_stands_before(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    sent = _states(path, 100, flush_every=10)
    data = bytearray(path.read_bytes())
    with open(path, "rb") as stream:
        chunk = make_reader(stream).get_summary().chunk_indexes[3]
    data[chunk.chunk_start_offset + chunk.chunk_length // 2] ^= 0xFF
    path.write_bytes(data)
    recording = Recording(path)
    seen = [r.message for r in recording.messages()]
    assert seen == sent[:30]
    assert str(path) in recording.problem and "damaged" in recording.problem


def test_what_is_no_recording_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        Recording(tmp_path / "none.mcap")
    (tmp_path / "text.mcap").write_text("hello")
    with pytest.raises(UserError, match=r"text\.mcap is not an MCAP file"):
        Recording(tmp_path / "text.mcap")
    _states(tmp_path / "run.mcap", 1, 1)
    with pytest.raises(UserError, match="never overwritten"):
        RecordingFile(tmp_path / "run.mcap")
    assert len(list(Recording(tmp_path / "run.mcap").messages())) == 1


def test_topics_published_side_by_side_come_back_in_the_order_of_their_times(tmp_path: Path) -> None:
    with RecordingFile(tmp_path / "run.mcap") as file:
        late, early = _received(STATE.model_copy()), _received(Reward())
        early.message.t_publish = late.message.t_publish - 50_000_000
        file.append("robot/state", late.message.t_publish, late.message, None)
        file.append("reward", early.message.t_publish, early.message, None)
    assert [r.topic for r in Recording(tmp_path / "run.mcap").messages()] == ["reward", "robot/state"]


# --- the live bus -------------------------------------------------------------------------------------


def test_what_is_published_is_recorded_and_a_latched_word_from_before_stands_at_its_beginning(
    topics: Topics, tmp_path: Path
) -> None:
    with Publisher(topics["model"]) as model, Publisher(topics["robot/state"]) as robot:
        model.publish(ModelState(serving="a" * 20))
        before = clock.monotonic_ns()
        recorder = Recorder(tmp_path / "run.mcap", list(topics))
        assert robot.wait_for_subscriber(WAIT_S) and model.wait_for_subscriber(WAIT_S)
        sent = [robot.publish(STATE.model_copy()) for _ in range(50)]
        while recorder.file.counts != {"robot/state": 50, "model": 1}:
            recorder.take(0.05)
        recorder.close()
    read = list(Recording(tmp_path / "run.mcap").messages())
    assert [r.message for r in read if r.topic == "robot/state"] == sent
    assert read[0].topic == "model" and read[0].message.t_publish < before
    assert recorder.lost() == {}
    spans = (read[-1].log_time - read[1].log_time, sent[-1].t_publish - sent[0].t_publish)
    assert spans[0] == spans[1]  # the very times of publication


@contextmanager
def _played(path: Path, topics: Topics, names: list[str], rate: float = 1.0) -> Iterator[Replay]:
    """A replay that runs beside, once somebody reads."""
    player = Replay(Recording(path), topics, names)

    def run() -> None:
        assert player.wait_for_readers(WAIT_S)
        player.run(rate, lambda: False)

    thread = threading.Thread(target=run)
    thread.start()
    yield player
    thread.join()
    player.close()


def _collect(reader: Queued[Any], count: int) -> list[Received[Any]]:
    seen: list[Received[Any]] = []
    while len(seen) < count:
        received = reader.receive(WAIT_S)
        assert received is not None, f"only {len(seen)} came"
        seen.append(received)
    return seen


def test_a_replay_is_as_if_it_happened_now(topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RecordingFile(path) as file:
        for i in range(10):
            frame = FRAME.model_copy(update={"seq": 40 + 2 * i, "boot": "camera", "host": "another machine"})
            frame.t_publish = 1_000_000_000 + i * 20_000_000
            frame.t_capture, frame.t_wall = frame.t_publish - 7_000_000, 1
            file.append("camera/gripper_cam", frame.t_publish, frame, b"abcdef")
            reward = Reward(frame_seq=frame.seq, frame_boot="camera", boot="judge", seq=i)
            file.append("reward", frame.t_publish + 1, reward, None)
    began = clock.monotonic_ns()
    names = ["camera/gripper_cam", "reward"]
    with (
        Queued(topics["camera/gripper_cam"], Frame) as frames,
        Queued(topics["reward"], Reward) as rewards,
        _played(path, topics, names),
    ):
        seen, judged = _collect(frames, 10), _collect(rewards, 10)
    assert [r.message.seq for r in seen] == [40 + 2 * i for i in range(10)]
    assert frames.gaps.lost == 9  # what its recorder had missed is missing again
    assert all(r.payload == b"abcdef" for r in seen)
    for r in seen:
        assert (r.message.host, r.message.valid) == (clock.host_id(), True)
        assert r.message.t_publish - r.message.t_capture == 7_000_000 and r.message.t_publish > began
    took = seen[-1].message.t_publish - seen[0].message.t_publish
    assert took >= 9 * 20_000_000 - 5_000_000
    boots = {r.message.boot for r in seen}
    assert len(boots) == 1 and "camera" not in boots
    assert {r.message.frame_boot for r in judged} == boots  # a reward still names its frame


def test_played_twice_it_is_no_repetition_and_the_rate_shortens_it(topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RecordingFile(path) as file:
        for seq in range(5):
            file.append("robot/state", seq * 10**9, STATE.model_copy(update={"seq": seq, "boot": "r"}), None)
    begun = time.monotonic()
    with Queued(topics["robot/state"], RobotState) as states:
        for _ in range(2):
            with _played(path, topics, ["robot/state"], rate=100):
                assert [r.message.seq for r in _collect(states, 5)] == list(range(5))
    assert states.gaps.restarts == 1 and states.gaps.lost == 0
    assert time.monotonic() - begun < 8  # a hundredth of four seconds each, and the readers' time to come


def test_a_topic_whose_port_is_taken_is_left_out_or_refused(topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RecordingFile(path) as file:
        file.append("robot/state", 1, STATE.model_copy(), None)
        file.append("reward", 2, Reward(), None)
        file.append("camera/side", 3, FRAME.model_copy(), b"")
    with Publisher(topics["reward"]):
        player = Replay(Recording(path), topics, Recording(path).contents().counts, all_of_them=False)
        assert player.names == ("robot/state",) and set(player.left_out) == {"reward", "camera/side"}
        player.close()
        with pytest.raises(UserError, match="another process holds that port"):
            Replay(Recording(path), topics, ["robot/state", "reward"])
    with pytest.raises(UserError, match=r"\[cameras\.NAME\]"):
        Replay(Recording(path), topics, ["camera/side"])
    with bus.Publisher(topics["robot/state"]):
        pass  # what a refused replay had taken is free again


def test_a_foreign_recording_is_refused_by_its_topic(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with open(tmp_path / "ros.mcap", "wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("sensor_msgs/Image", "ros2msg", b"")
        channel = writer.register_channel("/camera", "cdr", schema)
        writer.add_message(channel, 1, b"...", 1)
        writer.finish()
    with pytest.raises(UserError, match=r"ros\.mcap: topic `/camera` .* was not recorded by gripwire"):
        list(Recording(tmp_path / "ros.mcap").messages())


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_one_message_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with RecordingFile(path) as file:
        file.append("reward", 1, Reward(seq=7).model_copy(update={"probability": "much"}), None)
    with pytest.raises(UserError, match=r"message 7 of topic `reward`"):
        list(Recording(path).messages())
