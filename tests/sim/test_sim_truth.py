"""Grasp truth: what the scripts do, and how the bench tells."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire_sim import demonstrator, joints, truth
from gripwire_sim.demonstrator import GRASPS, KINDS, Kind
from gripwire_sim.kinematics import Arm
from gripwire_sim.scene import Scene
from gripwire_sim.world import Snapshot, World

SEEDS = (101, 102, 103)


def rehearse(arm: Arm, world: World, kind: Kind, seed: int) -> list[Snapshot]:
    scene = Scene.draw(seed)
    script = demonstrator.script(arm, kind, scene.cube, scene.cube_yaw, seed)
    world.reset(scene)
    return [snapshot for _, snapshot in demonstrator.rehearse(world, script)]


def changes(snapshots: list[Snapshot]) -> int:
    return int(np.abs(np.diff([int(s.grasped) for s in snapshots])).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_grasp_and_hold_is_grasped_once_and_to_the_end(arm_model: Arm, world: World, seed: int) -> None:
    seen = rehearse(arm_model, world, "grasp_hold", seed)
    assert changes(seen) == 1
    assert seen[-1].grasped
    assert 0.4 < np.mean([s.grasped for s in seen]) < 0.6
    assert seen[-1].cube[2] > 0.03, "the cube hangs in the air"


@pytest.mark.parametrize("seed", SEEDS)
def test_grasp_and_release_ends_with_the_cube_let_go(arm_model: Arm, world: World, seed: int) -> None:
    seen = rehearse(arm_model, world, "grasp_release", seed)
    assert changes(seen) == 2
    assert not seen[-1].grasped
    assert 0.35 < np.mean([s.grasped for s in seen]) < 0.6
    assert seen[-1].cube[2] < 0.02, "the cube is back on the table"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in GRASPS])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_failure_is_never_a_grasp(arm_model: Arm, world: World, kind: Kind, seed: int) -> None:
    assert not any(s.grasped for s in rehearse(arm_model, world, kind, seed))


def test_truth_turns_when_the_jaw_has_stopped_on_the_cube(arm_model: Arm, world: World) -> None:
    seen = rehearse(arm_model, world, "grasp_hold", SEEDS[0])
    jaw = np.array([joints.to_lerobot(s.q)["gripper"] for s in seen])
    onset = int(np.argmax([s.grasped for s in seen]))
    assert abs(jaw[onset] - jaw[-1]) < 2.0, "already where it will stay"
    assert jaw[onset - 5] - jaw[onset] > 10.0, "a sixth of a second before it was plainly open"


def test_scripts_are_the_same_for_the_same_seed_and_differ_for_others(arm_model: Arm) -> None:
    def script(seed: int) -> demonstrator.Script:
        return demonstrator.script(arm_model, "near_miss", (0.25, 0.01, 0.0125), 0.1, seed)

    assert script(7) == script(7)
    assert script(7) != script(8)


@pytest.mark.parametrize("kind", KINDS)
def test_scripts_move_at_a_speed_that_a_careful_limit_lets_through(arm_model: Arm, kind: Kind) -> None:
    scene = Scene.draw(5)
    script = demonstrator.script(arm_model, kind, scene.cube, scene.cube_yaw, 5)
    poses = np.array([list(waypoint.position.values()) for waypoint in script.waypoints])
    assert np.abs(np.diff(poses, axis=0)).max() < 8.0  # LeRobot's units per 33 ms
    assert 5.0 <= script.seconds <= 6.0


def test_every_episode_starts_within_a_centimetre_of_the_start(arm_model: Arm) -> None:
    tips = []
    for seed in range(12):
        pose = demonstrator.start_pose(arm_model, seed)
        tips.append(arm_model.forward(joints.to_radians(pose))[0])
    off = np.array(tips) - demonstrator.START
    assert np.abs(off).max() < demonstrator.JITTER + 0.001
    assert (off.max(axis=0) - off.min(axis=0) > 0.008).all(), "jittered in x, y and z"


def test_a_script_starts_at_its_start_pose(arm_model: Arm) -> None:
    script = demonstrator.script(arm_model, "push", (0.25, 0.0, 0.0125), 0.0, 4)
    assert script.waypoints[0].position == demonstrator.start_pose(arm_model, 4)


def test_play_sends_every_waypoint_at_its_time(arm_model: Arm) -> None:
    script = demonstrator.Script(
        "push", 0, tuple(demonstrator.Waypoint(i / 30, {"gripper": i}) for i in range(10))
    )
    sent: list[dict[str, float]] = []
    demonstrator.play(script, sent.append)
    assert [position["gripper"] for position in sent] == list(range(10))


def test_play_ends_on_time_when_sending_is_slow(arm_model: Arm) -> None:
    import threading
    import time

    script = demonstrator.Script(
        "push", 0, tuple(demonstrator.Waypoint(i / 30, {"gripper": i}) for i in range(31))
    )
    sent: list[float] = []

    def send(position: dict[str, float]) -> None:
        sent.append(position["gripper"])
        threading.Event().wait(0.2)

    began = time.monotonic()
    demonstrator.play(script, send)
    assert time.monotonic() - began < 1.6
    assert sent[-1] == 30, "the last waypoint is never left out"
    assert len(sent) < 10


def test_play_stops_when_cancelled(arm_model: Arm) -> None:
    script = demonstrator.Script("push", 0, tuple(demonstrator.Waypoint(i * 10.0, {}) for i in range(3)))
    sent: list[object] = []
    demonstrator.play(script, sent.append, cancelled=lambda: bool(sent))
    assert len(sent) == 1


def test_an_unknown_kind_is_named_with_the_known_ones(arm_model: Arm) -> None:
    with pytest.raises(UserError, match=r"`juggle`.*grasp_hold"):
        demonstrator.script(arm_model, "juggle", (0.25, 0, 0.0125), 0, 0)  # type: ignore[arg-type]


def snapshot(grasped: bool) -> Snapshot:
    return Snapshot(123, np.zeros(6), np.zeros(6), np.zeros(6), np.arange(7.0), grasped, seed=9)


def test_truth_is_found_by_exposure_and_nothing_is_lost_between_two_questions() -> None:
    ledger = truth.Ledger(rate_hz=30)
    web = truth.serve(ledger, "127.0.0.1", 0)
    for seq in range(500, 500 + truth.PAGE + 50):  # more than one page
        ledger.record(seq, snapshot(grasped=seq % 2 == 0))
    everything = truth.fetch("127.0.0.1", web.port)
    assert [record.seq for record in everything] == list(range(500, 500 + truth.PAGE + 50))
    assert everything[1] == truth.Truth(501, 123, False, (0, 1, 2), (3, 4, 5, 6), everything[1].gripper, 9)
    assert truth.fetch("127.0.0.1", web.port, since=501 + truth.PAGE)[0].seq == 502 + truth.PAGE
    assert truth.fetch("127.0.0.1", web.port, since=everything[-1].seq) == []
    web.close()


def test_truth_is_kept_for_at_least_twenty_minutes() -> None:
    ledger = truth.Ledger(rate_hz=0.1)
    for seq in range(1000):
        ledger.record(seq, snapshot(grasped=False))
    assert len(ledger.since(-1)) >= 20 * 60 * 0.1
    assert ledger.since(-1)[-1].seq == 999


def test_a_bench_that_is_not_there_is_named() -> None:
    web = truth.serve(truth.Ledger(30), "127.0.0.1", 0)
    web.close()
    with pytest.raises(UserError, match="gripwire sim run"):
        truth.fetch("127.0.0.1", web.port, timeout_s=1)


def test_a_wrong_question_is_refused() -> None:
    web = truth.serve(truth.Ledger(30), "127.0.0.1", 0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        json.load(urllib.request.urlopen(f"{web.url}/truth?since=yesterday"))
    web.close()
