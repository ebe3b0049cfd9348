"""Judges the frames of a recording of the bus, offline, by the code that serves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gripwire.bus import Gaps, Received
from gripwire.errors import UserError
from gripwire.files import write_whole
from gripwire.messages import EpisodeState, Frame, Message, Reward, RobotState
from gripwire.recording.file import Recorded, Recording, RecordingFile
from gripwire_reward.companions import gate_open, picture_beside
from gripwire_reward.decision import Decider
from gripwire_reward.decode import decode
from gripwire_reward.pace import Pace
from gripwire_reward.scorer import Scorer
from gripwire_reward.verdict import verdict

_NOMINAL_HZ = 30.0


class Judge:
    """Shown the messages of a recording in order, it gives a reward for each frame of its camera, by the
    bundle's own decision rule."""

    def __init__(self, scorer: Scorer, camera: str) -> None:
        self._scorer, self._camera = scorer, camera
        self._others = [contract.camera for contract in scorer.contracts[1:]]
        self._newest: dict[str, Received[Any]] = {}
        self._pace, self._gaps = Pace(_NOMINAL_HZ), Gaps()
        self._last: int | None = None
        self._decider = Decider(scorer.bundle.manifest.decision, _NOMINAL_HZ)
        self._recording = False

    def see(self, recorded: Recorded) -> Reward | None:
        """The reward of this message, if it is a frame to be judged."""
        message = recorded.message
        if isinstance(message, EpisodeState):
            if message.state == "recording" and not self._recording:
                self._decider.reset()
            self._recording = message.state == "recording"
        # Here the time in the file is when it was received.
        received = Received(message, recorded.payload, recorded.log_time)
        self._newest[recorded.topic] = received
        if recorded.topic != f"camera/{self._camera}" or not isinstance(message, Frame):
            return None
        self._note(received)
        try:
            reward = self._judge(received)
        except UserError as e:
            reward = Reward(reason=str(e))
        if not reward.valid:
            self._decider.update(None)
        reward.camera, reward.frame_seq, reward.frame_boot = self._camera, message.seq, message.boot
        reward.exposure_seq, reward.model, reward.step = (
            message.exposure_seq, self._scorer.bundle.id, self._decider.seen,
        )  # fmt: skip
        return reward

    def _note(self, received: Received[Frame]) -> None:
        """What lies between this frame and the one before, as the service takes it."""
        before = (self._gaps.lost, self._gaps.restarts)
        self._gaps.see(received.message)
        silent = self._last is not None and self._pace.stalled(received.t_receive - self._last)
        if silent or before != (self._gaps.lost, self._gaps.restarts):
            self._decider.forget()
        self._last = received.t_receive
        self._pace.note(received.message)
        if self._pace.differs(self._decider.rate_hz):
            old, self._decider = self._decider, Decider(self._decider.rule, self._pace.hz())
            self._decider.resume(old)

    def _judge(self, received: Received[Frame]) -> Reward:
        frame = received.message
        if not frame.valid:
            raise UserError(f"camera {self._camera}: {frame.reason or 'the frame is not valid'}")
        beside = [picture_beside(name, self._newest.get(f"camera/{name}"), received) for name in self._others]
        score = self._scorer.frame(decode(frame, received.payload), *(image for _, image in beside))
        if strange := self._scorer.strange(score.drift):
            return Reward(reason=strange, drift=score.drift)
        state: Received[RobotState] | None = self._newest.get("robot/state")
        reward = verdict(score, self._decider, lambda text: gate_open(text, state, received.t_receive))
        reward.other_frames = {name: seq for name, (seq, _) in zip(self._others, beside, strict=True)}
        return reward


@dataclass
class Rescored:
    """What became of a recording."""

    frames: int = 0
    not_valid: int = 0
    changed: int | None = None
    """Frames whose decision is another than was recorded; None where none was recorded."""


def rescore(recording: Recording, scorer: Scorer, out: Path) -> Rescored:
    """Write the rewards of every frame: to a table, beside those that were recorded, or, where ``out`` ends
    in .mcap, to a copy of the recording in which they stand in their place.

    Raises:
        UserError: the recording lacks a camera that the model wants, ``out`` exists, or the disk is full.
    """
    judge = Judge(scorer, camera_of(recording, scorer))
    rows: list[dict[str, Any]] = []
    recorded: dict[tuple[str, int], Reward] = {}
    # The copy's times are those of the recording, not of this machine's clock.
    about = {"rescored_with": scorer.bundle.id, "host": "", "epoch_ns": ""}
    copy = RecordingFile(out, about) if out.suffix == ".mcap" else None
    try:
        for one in recording.messages():
            if isinstance(one.message, Reward):
                recorded[one.message.frame_boot, one.message.frame_seq] = one.message
            elif copy:
                copy.append(one.topic, one.log_time, one.message, one.payload)
            if (reward := judge.see(one)) is None:
                continue
            rows.append({"log_time": one.log_time} | _row(reward))
            if copy:
                _dress(reward, one.message, len(rows) - 1)
                copy.append("reward", one.log_time, reward, None)
    finally:
        if copy:
            copy.close()
    for row in rows:
        before = recorded.get((row["frame_boot"], row["frame_seq"]))
        row |= {f"recorded_{name}": getattr(before, name, None) for name in ("model", "logit", "decision")}
    if not copy:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink)
        write_whole(out, sink.getvalue().to_pybytes())
    known = [row for row in rows if row["recorded_decision"] is not None]
    changed = sum(row["decision"] != row["recorded_decision"] for row in known) if known else None
    return Rescored(len(rows), sum(not row["valid"] for row in rows), changed)


_SCHEMA = pa.schema({
    "log_time": pa.timestamp("ns", tz="UTC"), "frame_boot": pa.string(), "frame_seq": pa.int64(),
    "exposure_seq": pa.int64(), "logit": pa.float32(), "probability": pa.float64(), "above": pa.bool_(),
    "gate": pa.bool_(), "decision": pa.bool_(), "valid": pa.bool_(), "reason": pa.string(),
    "drift": pa.float32(), "step": pa.int64(), "recorded_model": pa.string(),
    "recorded_logit": pa.float32(), "recorded_decision": pa.bool_(),
})  # fmt: skip


def _row(reward: Reward) -> dict[str, Any]:
    return {name: getattr(reward, name) for name in _SCHEMA.names if hasattr(reward, name)}


def _dress(reward: Reward, frame: Message, seq: int) -> None:
    """The header of a message that was never published: as if at once, and by one publisher."""
    for name in ("host", "t_capture", "t_publish", "t_wall"):
        setattr(reward, name, getattr(frame, name))
    reward.seq, reward.boot = seq, f"rescored-{reward.model[:7]}"


def camera_of(recording: Recording, scorer: Scorer) -> str:
    """The camera whose frames are judged: the one that the model was trained on, else the only one.

    Raises:
        UserError: there is none, or the recording does not say which.
    """
    has = [name.removeprefix("camera/") for name in recording.contents().counts if name.startswith("camera/")]
    if scorer.contract.camera in has:
        return scorer.contract.camera
    if len(has) == 1:
        return has[0]
    raise UserError(
        f"{recording.path}: the model was trained on camera `{scorer.contract.camera}`; the recording has "
        f"{', '.join(has) or 'no camera'}; record again with `gripwire record`, that camera's topic included"
    )
