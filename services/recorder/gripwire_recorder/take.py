"""One episode while it is recorded: messages in, aligned rows out, a fraction of a second behind live.

A row is settled once every camera and the robot's state have a message at or after its time, and late
messages had time to arrive. Only what the next row may need is kept, so a long episode costs little here.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire.messages import JOINTS, Frame, Reward, RobotAction, RobotState
from gripwire_recorder import align
from gripwire_recorder.align import SECOND

SETTLE_NS = SECOND // 5
"""How late a message may come and still count; measured delays on one machine stay below a tenth of it."""
PREROLL_NS = SECOND // 2
"""A picture or state that was taken this long before the start may still serve the first row."""

JointValues = tuple[float, ...]
_NOTHING: JointValues = (math.nan,) * (len(JOINTS) + 1)
_UNJUDGED = -1


@dataclass(frozen=True)
class Picture:
    """A frame as it came over the bus."""

    t_capture: int
    boot: str
    seq: int
    exposure: int
    width: int
    height: int
    encoding: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Row:
    """One row of the dataset: ``time`` is its place on the grid (ns), joints are float32 (6,)."""

    time: int
    pictures: dict[str, Picture]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    gap_ms: dict[str, float]
    """By camera, and for ``state``: how far apart the two messages are that the row lies between."""
    intervention: bool
    """A person had taken over from the policy."""
    reward: Reward | None
    """Of this row's picture, if it was judged."""
    verdict: int
    """A person's: 1 success, 0 failure, -1 none so far."""


class _Track[T]:
    """The part of one stream that rows to come may need, ascending in time."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.items: list[T] = []
        self.longest = (0, 0)  # the longest silence so far in ns, and when it began

    def add(self, time: int, item: T) -> bool:
        """False for what is not later than the last: it repeats, or its publisher's clock went back."""
        if self.times and time <= self.times[-1]:
            return False
        if self.times:
            self.longest = max(self.longest, (time - self.times[-1], self.times[-1]))
        self.times.append(time)
        self.items.append(item)
        return True

    def trim(self, before: int) -> None:
        """Forget all but the last of what is not later than ``before``."""
        keep = int(np.searchsorted(np.array(self.times, dtype=np.int64), before, side="right")) - 1
        if keep > 0:
            del self.times[:keep], self.items[:keep]

    def array(self) -> align.Times:
        return np.array(self.times, dtype=np.int64)


class Take:
    """The alignment of one episode from ``t_start`` (CLOCK_MONOTONIC ns) on."""

    def __init__(self, cameras: tuple[str, ...], fps: int, t_start: int) -> None:
        self.cameras = cameras
        self.fps = fps
        self.t_start = t_start
        self.t_stop: int | None = None
        self.rows = 0
        self.worst_skew_ms = 0.0
        self.worst_gap_ms: dict[str, float] = {}
        self.models: dict[int, str] = {}
        """By epoch, the bundle that judged pictures of this episode."""
        self._frames: dict[str, _Track[Picture]] = {camera: _Track() for camera in cameras}
        self._states: _Track[JointValues] = _Track()
        self._actions: _Track[JointValues] = _Track()  # the last value: whether a person had taken over
        self._rewards: dict[tuple[str, str, int], Reward] = {}
        self._verdicts: _Track[int] = _Track()
        self._start: int | None = None  # of the grid, known once every stream has begun

    def frame(self, message: Frame, data: bytes) -> None:
        if message.t_capture >= self.t_start - PREROLL_NS:
            picture = Picture(
                message.t_capture, message.boot, message.seq, message.exposure_seq, message.width,
                message.height, message.encoding, data,
            )  # fmt: skip
            self._frames[message.camera].add(message.t_capture, picture)

    def state(self, message: RobotState) -> None:
        if message.t_capture >= self.t_start - PREROLL_NS:
            self._states.add(message.t_capture, _joints(message.position))

    def action(self, message: RobotAction) -> None:
        """Goals of any age count: one stays in force until the next, or until :meth:`no_action`."""
        time = message.t_capture
        if self._no_action() and time <= self._actions.times[-1]:
            time = message.t_publish  # the same goal, in force again
        self._actions.add(time, (*_joints(message.position), float(message.intervention)))

    def reward(self, message: Reward) -> None:
        """What was said about a picture; it may come before or after the picture itself."""
        if message.frame_seq >= 0 and message.t_capture >= self.t_start - PREROLL_NS:
            self._rewards[message.camera, message.frame_boot, message.frame_seq] = message
            if message.model:
                self.models[message.epoch] = message.model

    def verdict(self, time: int, success: bool) -> None:
        """A person says that this is a success, or none, from ``time`` on."""
        self._verdicts.add(time, int(success))

    def no_action(self, time: int) -> None:
        """From ``time`` on no goal is in force, e.g. because the arm was made limp."""
        if not self._no_action():
            # A goal may have been sent after the last message that told of it.
            after = self._actions.times[-1] + 1 if self._actions.times else time
            self._actions.add(max(time, after), _NOTHING)

    def _no_action(self) -> bool:
        return bool(self._actions.items) and self._actions.items[-1] is _NOTHING

    def stop(self, now: int) -> None:
        """No row later than ``now``."""
        self.t_stop = min(now, self.t_stop or now)

    def complete(self, now: int) -> bool:
        """After :meth:`stop`: nothing more will come, or is worth waiting for."""
        if self.t_stop is None or now < self.t_stop + SETTLE_NS:
            return False
        return self._covered() >= self.t_stop or now > self.t_stop + 3 * SETTLE_NS

    def settle(self, now: int) -> list[Row]:
        """The rows that have become certain since the last call."""
        tracks: list[_Track[Any]] = [*self._frames.values(), self._states]
        if not all(track.times for track in tracks):
            return []
        if self._start is None:
            self._start = align.grid_start(self.t_start, [track.times[0] for track in tracks])
        end = min(self._covered(), now - SETTLE_NS, self.t_stop or now)
        at = align.grid(self._start, end, self.fps, skip=self.rows)
        if len(at) == 0:
            return []
        rows = self._align(at)
        self.rows += len(rows)
        for track in (*tracks, self._actions, self._verdicts):
            track.trim(int(at[-1]))
        oldest = min(track.times[0] for track in self._frames.values())
        self._rewards = {key: r for key, r in self._rewards.items() if r.t_capture >= oldest}
        return rows

    def _align(self, at: align.Times) -> list[Row]:
        state = align.interpolate(self._states.array(), np.array(self._states.items), at)
        actions = np.array(self._actions.items).reshape(-1, len(JOINTS) + 1)
        by_itself = np.column_stack([state, np.zeros(len(at))])
        action = align.in_force(self._actions.array(), actions, at, otherwise=by_itself)
        verdicts = np.array(self._verdicts.items, np.float64).reshape(-1, 1)
        unjudged = np.full((len(at), 1), float(_UNJUDGED))
        verdict = align.in_force(self._verdicts.array(), verdicts, at, otherwise=unjudged)[:, 0]
        gaps = {"state": align.gap_ms(self._states.array(), at)}
        pictures: dict[str, list[Picture]] = {}
        for camera, track in self._frames.items():
            times = track.array()
            chosen = align.nearest(times, at)
            self.worst_skew_ms = max(
                self.worst_skew_ms, float(np.abs(align.skew_ms(times, chosen, at)).max())
            )
            gaps[camera] = align.gap_ms(times, at)
            pictures[camera] = [track.items[i] for i in chosen]
        for name, gap in gaps.items():
            self.worst_gap_ms[name] = max(self.worst_gap_ms.get(name, 0.0), float(gap.max()))
        state32, action32 = state.astype(np.float32), action[:, : len(JOINTS)].astype(np.float32)
        return [
            Row(
                time=int(at[i]),
                pictures=(shown := {camera: chosen[i] for camera, chosen in pictures.items()}),
                state=state32[i],
                action=action32[i],
                gap_ms={name: float(gap[i]) for name, gap in gaps.items()},
                intervention=bool(action[i, -1]),
                reward=self._reward_of(shown),
                verdict=int(verdict[i]),
            )
            for i in range(len(at))
        ]

    def _reward_of(self, pictures: dict[str, Picture]) -> Reward | None:
        """Of these pictures, the reward of the one that was judged."""
        keys = ((camera, picture.boot, picture.seq) for camera, picture in pictures.items())
        return next((self._rewards[key] for key in keys if key in self._rewards), None)

    def _covered(self) -> int:
        """The last time for which every stream has data."""
        tracks: list[_Track[Any]] = [*self._frames.values(), self._states]
        return min(track.times[-1] if track.times else 0 for track in tracks)

    def holes(self, longer_than_s: float) -> list[str]:
        """The longest silence of each stream where it exceeds ``longer_than_s``, in words."""
        tracks: dict[str, _Track[Any]] = {f"camera/{name}": track for name, track in self._frames.items()}
        tracks["robot/state"] = self._states
        start = self._start or self.t_start
        found = []
        for topic, track in tracks.items():
            last = track.times[-1] if track.times else start
            length, since = max(track.longest, ((self.t_stop or last) - last, last))
            if length > longer_than_s * 1e9:
                at = max(0.0, (since - start) / 1e9)
                found.append(f"{topic} was silent for {length / 1e9:.1f} s from {at:.1f} s on")
        return found


def has_all_joints(position: dict[str, float]) -> bool:
    return all(math.isfinite(position.get(joint, math.nan)) for joint in JOINTS)


def _joints(position: dict[str, float]) -> JointValues:
    return tuple(position[joint] for joint in JOINTS)
