"""Other episodes of the recordings' bench, with exact grasp truth: what the classifier is judged on.

    MUJOCO_GL=egl .venv/bin/python benchmarks/episodes.py OUT --condition nominal --episodes 42 --seed 1

OUT becomes a LeRobot v2.1 dataset like the recorded ones (10 fps, 640x480, h264, 18 state values).
`next.reward` is 1 in every frame at whose exposure both jaws press on the cube from opposite sides
(`GraspTruth.touching`); `labels.json` beside `meta` says the same as exact ranges. The motion is the
recordings' too: straight lines in joint space, a hand that trembles while it waits, attempts that fail on
purpose and grasps, one after another.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from look import CONDITIONS, Look, Studio
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_sim import joints
from gripwire_sim.grasp import GraspTruth
from gripwire_sim.kinematics import HOME, TIP, Arm
from gripwire_sim.world import TICK_S, World

FPS = 10
KEY = "observation.images.gripper_cam"
OPEN, SHUT = 1.2, -0.15
"""Where the recordings' jaw goes, radians."""
_TREMBLE = 0.006
"""Radians: how far each joint of a waiting arm strays from frame to frame."""
_TICK_S, _TICKS_A_FRAME = 0.02, 5
"""The arm's goal moves 50 times a second."""


class Over(Exception):
    """The episode has all its frames."""


@dataclass
class Take:
    """One episode as it happens: the world, the hand's goal, and what was recorded so far."""

    world: World
    arm: Arm
    rng: np.random.Generator
    length: int
    q: NDArray[np.float64]
    rows: list[dict[str, Any]] = field(default_factory=list)
    poses: list[NDArray[np.float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._truth = GraspTruth(self.world.model, TICK_S)
        self._site = self.world.model.site(TIP).id
        self._tick = 0

    @property
    def cube(self) -> NDArray[np.float64]:
        return self.world.snapshot().cube[:3]

    def go(self, goal: NDArray[np.float64], seconds: float) -> None:
        """A straight line in joint space to ``goal`` (6 radians), exposing every tenth of a second.

        Raises:
            Over: that was the last frame.
        """
        start, ticks = self.q, max(1, round(seconds / _TICK_S))
        for tick in range(1, ticks + 1):
            self.q = start + (goal - start) * tick / ticks
            if self._tick % _TICKS_A_FRAME == 0:
                self._expose()
            self._tick += 1
            for joint, target in enumerate(self.q.tolist()):
                self.world.drive(joint, target, hold=True)
            self.world.step_for(_TICK_S)

    def _expose(self) -> None:
        if len(self.rows) == self.length:
            raise Over
        data, quat = self.world.data, np.zeros(4)
        # A step leaves contacts and poses of before it; state, truth and picture shall be of one moment.
        mujoco.mj_forward(self.world.model, data)
        mujoco.mju_mat2Quat(quat, data.site_xmat[self._site])
        state = [*data.qpos[:6], *np.zeros(6), *data.site_xpos[self._site], *quat[:3]]
        grip = float(np.sign(self.q[5] - data.qpos[5])) or 1.0
        self.rows.append({"state": state, "touching": self._truth.touching(data), "grip": grip})
        self.poses.append(data.qpos.copy())

    def jaw(self, angle: float, seconds: float) -> None:
        self.go(np.array([*self.q[:5], angle]), seconds)

    def still(self, seconds: float) -> None:
        self.go(self.q, seconds)

    def wait(self, seconds: float) -> None:
        """Hold the pose as a hand does: trembling, and drifting a little."""
        centre, drift = self.q, self.rng.normal(0, 0.004, 5)
        for i in range(round(seconds * FPS)):
            goal = centre.copy()
            goal[:5] += drift * i / FPS + self.rng.normal(0, _TREMBLE, 5)
            self.go(np.clip(goal, joints.LOW, joints.HIGH), 1 / FPS)

    def pose(self, at: NDArray[np.float64], yaw: float, jaw: float) -> NDArray[np.float64]:
        """Joint angles with the tip at ``at``, pointing down as far as it can, jaws turned by ``yaw``."""
        near = self.q.copy()
        try:
            q = self.arm.reach(at, yaw, near)
        except UserError:  # out of reach: stay near the middle
            q = self.arm.reach(0.5 * at + 0.5 * np.array([0.27, 0.0, at[2]]), yaw, near)
        q[5] = jaw
        return q

    def facing(self) -> float:
        """The turn that brings the jaws flat onto two faces of the cube, nearest to how they are turned."""
        _, axes = self.arm.forward(self.q)
        now = np.arctan2(-axes[1, 0], -axes[0, 0])
        w, _, _, z = self.world.snapshot().cube[3:]
        quarter = np.pi / 2
        off = (2 * np.arctan2(z, w) - now + quarter / 2) % quarter - quarter / 2
        return float(now + off)


def _along(yaw: float) -> NDArray[np.float64]:
    """The direction in which the moving jaw lies from the fixed one."""
    return np.array([np.cos(yaw), np.sin(yaw), 0.0])


def _aside(yaw: float) -> NDArray[np.float64]:
    return np.array([-np.sin(yaw), np.cos(yaw), 0.0])


# --- attempts: each begins and ends above the cube with open jaws, unless the episode is over before ------


def _hover(take: Take, seconds: float) -> None:
    """Above the cube, a centimetre off; the recordings' start pose."""
    rng = take.rng
    at = take.cube
    at[:2] += rng.uniform(-0.01, 0.01, 2)
    at[2] = rng.uniform(0.068, 0.091)
    take.go(take.pose(at, take.facing() + rng.uniform(-0.12, 0.12), OPEN), seconds)


def _release(take: Take) -> None:
    rng = take.rng
    take.jaw(OPEN, rng.uniform(0.4, 0.6))
    take.still(rng.uniform(0.1, 0.3))
    _hover(take, rng.uniform(0.6, 1))
    take.wait(rng.uniform(0, 0.6))


def _over(take: Take, yaw: float) -> NDArray[np.float64]:
    return take.cube + take.rng.normal(0.003, 0.0015) * _along(yaw) + take.rng.normal(0, 0.0015) * _aside(yaw)


def _close_at(take: Take, at: NDArray[np.float64], yaw: float) -> None:
    rng = take.rng
    take.go(take.pose(at, yaw, OPEN), rng.uniform(0.8, 1.5))
    take.still(rng.uniform(0.1, 0.4))
    take.jaw(SHUT, rng.uniform(0.4, 0.9))


def _grasp(take: Take, seconds: float) -> None:
    """Around the cube and closed; half of them then lift it. Held for ``seconds``."""
    rng, yaw = take.rng, take.facing()
    at = _over(take, yaw)
    at[2] = rng.uniform(0.011, 0.017)
    _close_at(take, at, yaw)
    if rng.random() < 0.5:
        take.wait(rng.uniform(0.1, 0.4))
        at[2] = rng.uniform(0.03, 0.085)
        take.go(take.pose(at, yaw, SHUT), rng.uniform(0.6, 1.2))
    take.wait(seconds)


def _grasp_and_release(take: Take) -> None:
    _grasp(take, take.rng.uniform(0.4, 3))
    _release(take)


def _near_miss(take: Take) -> None:
    rng, yaw = take.rng, take.facing()
    beside = rng.choice([-1, 1]) * rng.uniform(0.029, 0.050)
    at = take.cube + beside * _aside(yaw) + rng.uniform(-0.02, 0.02) * _along(yaw)
    at[2] = rng.uniform(0.011, 0.03)
    _close_at(take, at, yaw + rng.uniform(-0.1, 0.1))
    take.wait(rng.uniform(0.3, 1.2))
    _release(take)


def _close_on_air(take: Take) -> None:
    rng, yaw = take.rng, take.facing()
    at = _over(take, yaw)
    at[2] = rng.uniform(0.036, 0.085)
    _close_at(take, at, yaw + rng.uniform(-0.15, 0.15))
    take.wait(rng.uniform(0.3, 1.2))
    _release(take)


def _swoop(take: Take) -> None:
    """Close on the way to somewhere above the table, and open again on the way back."""
    rng = take.rng
    at = take.cube
    at[:2] += rng.uniform(-0.02, 0.02, 2)
    at[2] = rng.uniform(0.045, 0.08)
    jaw = float(rng.choice([SHUT, rng.uniform(-0.1, 0.7)]))
    take.go(take.pose(at, take.facing() + rng.uniform(-0.2, 0.2), jaw), rng.uniform(0.7, 1.2))
    take.wait(rng.uniform(0.4, 1.2))
    _hover(take, rng.uniform(0.8, 1.1))


def _push(take: Take) -> None:
    """Shut in the air, go down beside the cube and shove it."""
    rng, yaw = take.rng, take.facing()
    take.jaw(SHUT, rng.uniform(0.4, 0.7))
    direction = rng.choice([-1, 1]) * _aside(yaw + rng.uniform(-0.3, 0.3))
    touch = take.cube + 0.020 * _along(yaw)  # shut, the jaws meet at the fixed one
    before, after = touch - 0.036 * direction, touch + rng.uniform(-0.008, 0.012) * direction
    before[2] = after[2] = rng.uniform(0.011, 0.016)
    take.go(take.pose(before, yaw, SHUT), rng.uniform(0.9, 1.3))
    take.go(take.pose(after, yaw, SHUT), rng.uniform(0.6, 1.2))
    take.wait(rng.uniform(0.2, 0.8))
    take.go(take.pose(np.array([*before[:2], 0.06]), yaw, SHUT), 0.6)
    _release(take)


def _press(take: Take) -> None:
    """Shut in the air and press on the cube's top."""
    rng, yaw = take.rng, take.facing()
    take.jaw(SHUT, rng.uniform(0.4, 0.7))
    at = take.cube + 0.020 * _along(yaw) + [*rng.uniform(-0.006, 0.006, 2), 0.0]
    at[2] = 2 * take.cube[2] + rng.uniform(-0.004, 0.004)
    take.go(take.pose(at, yaw, SHUT), rng.uniform(0.8, 1.2))
    take.wait(rng.uniform(0.3, 1))
    _hover(take, rng.uniform(0.8, 1.2))


Attempt = Callable[[Take], None]
_FAILURES: tuple[Attempt, ...] = (_near_miss, _near_miss, _close_on_air, _close_on_air, _swoop, _push, _press)


def _fail_once(take: Take) -> None:
    _FAILURES[int(take.rng.integers(len(_FAILURES)))](take)


def _hold(take: Take) -> None:
    _grasp(take, take.length / FPS)


def _fail(take: Take) -> None:
    while True:
        _fail_once(take)


def _mixed(take: Take) -> None:
    """A failure or two, then a grasp; or a grasp that is let go, then a failure."""
    plan = [_fail_once, _grasp_and_release, _fail_once, _grasp_and_release]
    for attempt in plan[int(take.rng.integers(2)) :]:
        attempt(take)
    _fail(take)


def _several(take: Take) -> None:
    """Grasps and releases with a failure now and then; the last one is held."""
    for _ in range(2):
        _grasp_and_release(take)
        if take.rng.random() < 0.5:
            _fail_once(take)
    _hold(take)


@dataclass(frozen=True)
class Kind:
    """What an episode does, for how many frames, and whether it ends in a grasp at some time."""

    name: str
    act: Attempt
    length: int
    succeeds: bool


HOLD = Kind("hold", _hold, 80, True)
SEVERAL = Kind("several", _several, 200, True)
MIXED = Kind("mixed", _mixed, 100, True)
FAIL, FAIL_LONG = Kind("fail", _fail, 80, False), Kind("fail", _fail, 200, False)
_CYCLE = (HOLD, FAIL, HOLD, FAIL_LONG, MIXED, FAIL, HOLD, FAIL, HOLD, FAIL_LONG, SEVERAL, FAIL)
"""Half of the episodes fail, as in the recordings."""


def perform(arm: Arm, kind: Kind, look: Look, seed: int) -> Take:
    """Simulate one episode; again where a failure held the cube, a success did not, or it was lost."""
    for redraw in range(100):
        rng = np.random.default_rng([0x6265, seed, redraw])
        take = _begin(arm, kind.length, look, rng)
        try:
            take.wait(rng.uniform(0, 0.9))
            kind.act(take)
        except Over:
            if any(row["touching"] for row in take.rows) == kind.succeeds:
                return take
        except UserError:
            continue  # the cube was pushed to where the arm does not reach
    raise UserError(
        f"no episode of kind {kind.name} with seed {seed} came out as it should; choose another seed"
    )


def _begin(arm: Arm, length: int, look: Look, rng: np.random.Generator) -> Take:
    """The cube somewhere in the recordings' range, and the arm above it."""
    world = World()
    _resize(world, look.cube_half)
    x, y = rng.uniform(0.249, 0.304), rng.uniform(-0.062, 0.058)
    near = HOME.copy()
    near[0], near[4], near[5] = -np.arctan2(y, x - 0.04), rng.uniform(-2.0, 1.35), OPEN
    _, axes = arm.forward(near)
    yaw = float(np.arctan2(-axes[1, 0], -axes[0, 0]))
    world.reset(replace(world.scene, cube=(float(x), float(y), look.cube_half), cube_yaw=yaw % (np.pi / 2)))
    start = np.array([x, y, 0.0]) + rng.uniform([-0.01, -0.01, 0.068], [0.01, 0.01, 0.091])
    q = arm.reach(start, yaw + rng.uniform(-0.12, 0.12), near)
    world.place(q)
    world.step_for(0.5)  # the servos sag, the cube settles
    return Take(world, arm, rng, length, q)


def _resize(world: World, half: float) -> None:
    """Another cube, of the same stuff."""
    geom, body = world.model.geom("cube_geom"), world.model.body("cube")
    grown = half / geom.size[0]
    geom.size[:] = half
    geom.rbound[:] *= grown
    world.model.geom_aabb[geom.id, 3:] *= grown
    body.mass[:] *= grown**3
    body.inertia[:] *= grown**5
    mujoco.mj_setConst(world.model, mujoco.MjData(world.model))


# --- LeRobot v2.1 --------------------------------------------------------------------------------


def _write_video(path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """As the recordings' files say of themselves: x264's defaults, crf 23, a keyframe every second."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "23", "g": str(FPS)})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_rows(path: Path, take: Take, episode: int, first: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = take.length
    columns = {
        "observation.state": pa.array([row["state"] for row in take.rows], pa.list_(pa.float32())),
        "action": pa.array([[0.0, 0.0, 0.0, row["grip"]] for row in take.rows], pa.list_(pa.float32())),
        "next.reward": pa.array([float(row["touching"]) for row in take.rows], pa.float32()),
        "next.done": pa.array([i + 1 == n for i in range(n)]),
        "timestamp": pa.array(np.arange(n) / FPS, pa.float32()),
        "frame_index": pa.array(np.arange(n)),
        "episode_index": pa.array(np.full(n, episode)),
        "index": pa.array(np.arange(n) + first),
        "task_index": pa.array(np.zeros(n, dtype=np.int64)),
    }
    pq.write_table(pa.table(columns), path)


def _info(episodes: int, frames: int) -> dict[str, Any]:
    def feature(dtype: str, *shape: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": list(shape), "names": None}

    video = {
        "dtype": "video", "shape": [480, 640, 3], "names": ["height", "width", "channels"],
        "info": {
            "video.fps": float(FPS), "video.height": 480, "video.width": 640, "video.channels": 3,
            "video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False,
            "has_audio": False,
        },
    }  # fmt: skip
    numbers = ("frame_index", "episode_index", "index", "task_index")
    return {
        "codebase_version": "v2.1", "robot_type": "so101_follower_end_effector", "total_episodes": episodes,
        "total_frames": frames, "total_tasks": 1, "total_videos": episodes, "total_chunks": 1,
        "chunks_size": 1000,
        "fps": FPS, "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            KEY: video, "observation.state": feature("float32", 18), "action": feature("float32", 4),
            "next.reward": feature("float32", 1), "next.done": feature("bool", 1),
            "timestamp": feature("float32", 1), **{name: feature("int64", 1) for name in numbers},
        },
    }  # fmt: skip


def ranges(truth: list[bool]) -> list[list[int | None]]:
    """Runs of True, ends inclusive; one that lasts to the end is open (None)."""
    runs: list[list[int | None]] = []
    at = 0
    for value, group in groupby(truth):
        length = len(list(group))
        if value:
            runs.append([at, at + length - 1 if at + length < len(truth) else None])
        at += length
    return runs


def generate(out: Path, condition: str, episodes: int, seed: int) -> int:
    """Write the dataset, whole or not at all; the number of its frames.

    Raises:
        UserError: ``out`` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists; name another folder, or remove it first")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    data, videos, meta = aside / "data/chunk-000", aside / "videos/chunk-000" / KEY, aside / "meta"
    for folder in (data, videos, meta):
        folder.mkdir(parents=True)
    arm, studio, first, entries, labels = Arm(), None, 0, [], {}
    for episode in range(episodes):
        rng = np.random.default_rng([seed, episode])
        kind, look = _CYCLE[episode % len(_CYCLE)], CONDITIONS[condition](rng)
        take = perform(arm, kind, look, seed * 1000 + episode)
        if studio is None:
            studio = Studio(look, rng)
        studio.light(look)
        _write_video(videos / f"episode_{episode:06d}.mp4", [studio.photograph(qpos) for qpos in take.poses])
        _write_rows(data / f"episode_{episode:06d}.parquet", take, episode, first)
        runs = ranges([row["touching"] for row in take.rows])
        labels[str(episode)] = {"ranges": runs} if runs else None
        entries.append({"episode_index": episode, "tasks": ["grasp_only"], "length": take.length})
        first += take.length
        print(
            json.dumps({"episode": episode, "kind": kind.name, "frames": take.length, "grasped": runs}),
            flush=True,
        )
    (meta / "info.json").write_text(json.dumps(_info(episodes, first), indent=2))
    (meta / "episodes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (meta / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "grasp_only"}) + "\n")
    (aside / "labels.json").write_text(json.dumps({"dataset_path": ".", "episodes": labels}, indent=2) + "\n")
    aside.rename(out)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--condition", choices=sorted(CONDITIONS), default="nominal")
    parser.add_argument("--episodes", type=int, default=42)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        frames = generate(given.out, given.condition, given.episodes, given.seed)
    except UserError as e:
        sys.exit(f"error: {e}")
    print(json.dumps({"dataset": str(given.out), "condition": given.condition, "frames": frames}))


if __name__ == "__main__":
    main()
