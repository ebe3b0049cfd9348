"""What was recorded is what LeRobot itself opens, and every row's picture is the right one."""

import hashlib
import re
import signal

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire.messages import DiscardEpisode, MarkEpisode, StartEpisode, StartSession, StopEpisode
from tests.helpers import until

CAMERA = "gripwire.gripper_cam."
IN_TIME_NS = 100_000_000  # rows are settled 0.2 s behind: what was sent by then has long arrived


@pytest.fixture(scope="module")
def recorded(module_rigs, open_with_lerobot):
    """Three episodes of one dataset: two back to back, one after the recorder was restarted."""
    rig, bench = module_rigs()
    rig.start(2.0)
    rig.ask(StopEpisode())
    rig.ask(StartEpisode(task="push the cube", dataset="grasps"))  # while the first is being saved
    rig.until(lambda e: e.state == "recording" and e.saved == 1 and e.rows >= 10)
    rig.stop()
    rig.end()
    rig.start_process()
    last = rig.record(1.0)
    return rig, bench, open_with_lerobot(rig.datasets / "grasps"), last


@pytest.fixture(scope="module")
def rows(recorded):
    """All columns, and the time that each row stands for."""
    columns = recorded[2].columns
    return columns | {"time": columns[CAMERA + "t_capture"] - columns[CAMERA + "skew_ms"].astype(float) * 1e6}


def test_lerobot_opens_every_episode(recorded):
    rig, _, dataset, last = recorded
    assert [note["episode"] for note in rig.notes()] == [0, 1, 2]
    assert [note["rows"] for note in rig.notes()] == dataset.lengths
    assert last.episode == 2 and last.rows == dataset.lengths[2]
    assert last.saved == 1 and last.problem == "" and last.drops == {}


def test_every_row_shows_the_picture_that_its_columns_name(recorded, rows):
    assert len(recorded[2].numbers) > 40
    assert recorded[2].numbers == rows[CAMERA + "seq"].tolist()


def test_the_picture_is_the_one_taken_nearest_to_its_row(recorded, rows):
    for note in recorded[0].notes():
        mine = rows["episode_index"] == note["episode"]
        skew, time = np.abs(rows[CAMERA + "skew_ms"][mine]), rows["time"][mine]
        assert np.allclose(np.diff(time), 1e8, atol=1e4)
        assert abs(time[0] - note["t_start"]) < 1e4
        assert note["worst_skew_ms"] == pytest.approx(skew.max(), abs=1e-2)
        taken, sent = np.array(recorded[1].frames).T
        for row, off in zip(time, skew, strict=True):
            in_time = taken[sent < row + IN_TIME_NS]
            assert off <= np.abs(in_time - row).min() / 1e6 + 1e-2


def test_true_capture_times_and_exposures_are_kept(recorded, rows):
    taken = {taken for taken, _ in recorded[1].frames}
    assert set(rows[CAMERA + "t_capture"].tolist()) <= taken
    assert (np.diff(rows[CAMERA + "t_capture"][rows["episode_index"] == 0]) >= 0).all()
    assert (rows[CAMERA + "exposure"] % 7 == 0).all() and (rows[CAMERA + "exposure"] > 0).all()


def test_the_state_is_that_of_the_rows_own_time(recorded, rows):
    expected = (rows["time"] - recorded[1].t0) / 1e9
    assert np.allclose(rows["observation.state"], expected[:, None] + np.arange(6), atol=2e-3)


def test_the_action_is_the_last_one_sent_before_the_row(recorded, rows):
    sent, goal = np.array(recorded[1].goals).T
    # A time in a row is good to some microseconds (float32): a goal sent that close to it may be either.
    before, after = (np.searchsorted(sent, rows["time"] + d, side="right") - 1 for d in (-2e4, 2e4))
    told = rows["action"][:, 0]
    assert (np.isclose(told, goal[before], atol=1e-3) | np.isclose(told, goal[after], atol=1e-3)).all()


def test_columns_are_lerobots_own_and_named_as_it_names_them(recorded):
    features = recorded[2].features
    assert features["observation.state"]["names"] == features["action"]["names"]
    assert features["action"]["names"][0] == "shoulder_pan.pos" and features["action"]["shape"] == (6,)
    assert features["observation.images.gripper_cam"]["dtype"] == "video"
    assert recorded[2].fps == 10 and recorded[2].robot_type == "so_follower"


def test_the_reward_of_a_row_is_that_of_its_own_picture(recorded, rows):
    seq = rows[CAMERA + "seq"]
    assert (rows["next.reward"] == seq % 2).all()
    assert (rows["gripwire.reward.logit"] == seq).all() and (rows["gripwire.reward.epoch"] == 3).all()
    assert np.allclose(rows["gripwire.reward.probability"], np.where(seq % 2, 0.75, 0.25))
    assert [note["models"] for note in recorded[0].notes()] == [{"3": "a-bundle"}] * 3


def test_only_the_last_row_of_an_episode_is_done(recorded, rows):
    assert np.flatnonzero(rows["next.done"]).tolist() == (np.cumsum(recorded[2].lengths) - 1).tolist()


def test_each_row_says_how_far_apart_the_messages_beside_it_are(recorded, rows):
    taken = np.array([taken for taken, _ in recorded[1].frames])
    right = np.searchsorted(taken, rows["time"].astype(np.int64))
    gap = (taken[right.clip(0, len(taken) - 1)] - taken[right - 1]) / 1e6
    told, known = rows[CAMERA + "gap_ms"], np.isclose(rows[CAMERA + "gap_ms"], gap, atol=0.1)
    assert known.mean() > 0.9 and (told >= 0).all()  # of the first and last rows one side is missing
    for note in recorded[0].notes():
        mine = rows["episode_index"] == note["episode"]
        assert note["worst_gap_ms"]["gripper_cam"] == pytest.approx(told[mine].max(), abs=1e-2)
        assert note["hole"] is False


def test_each_episode_has_its_task_and_its_session(recorded):
    rig, _, dataset, _ = recorded
    assert dataset.tasks == [["grasp the cube"], ["push the cube"], ["grasp the cube"]]
    first, second, third = (note["session"] for note in rig.notes())
    assert first == second != third


def test_a_saved_episode_is_never_written_again(recorded):
    rig, *_ = recorded
    rig.record(0.5, "kept")

    def sums():
        files = [p for p in (rig.datasets / "kept").rglob("*") if p.suffix in (".parquet", ".mp4")]
        kept = [p for p in files if p.name != "tasks.parquet"]
        return {
            p.relative_to(rig.datasets): (p.stat().st_ino, hashlib.sha256(p.read_bytes()).digest())
            for p in kept
        }

    before = sums()
    rig.record(0.5, "kept", task="another task")
    after = sums()
    assert len(before) == 3 and len(after) == 6
    assert before.items() <= after.items()


def test_a_discarded_episode_leaves_no_trace(recorded, open_with_lerobot):
    rig, *_ = recorded
    rig.record(0.5, "thrown")
    rig.start(0.5, "thrown")
    assert "thrown away" in rig.ask(DiscardEpisode())
    rig.until(lambda e: e.state == "idle")
    assert rig.record(0.5, "thrown").episode == 1
    assert len(open_with_lerobot(rig.datasets / "thrown").lengths) == 2
    assert not list(rig.datasets.glob(".*saving")) and not list((rig.settings.data / "journals").iterdir())


def test_verdicts_and_interventions_stand_in_the_rows_from_their_moment_on(recorded, open_with_lerobot):
    rig, bench, *_ = recorded
    rig.start(0.5, "marked")
    assert rig.ask(MarkEpisode(success=True, by="me")) == "success from now on"
    bench.intervention = True
    rows = rig.until(lambda e: e.verdict == "success").rows
    rig.until(lambda e: e.rows >= rows + 5)
    bench.intervention = False
    rig.ask(MarkEpisode(success=False))
    rows = rig.until(lambda e: e.verdict == "failure").rows
    rig.until(lambda e: e.rows >= rows + 5)
    rig.stop()
    columns = open_with_lerobot(rig.datasets / "marked").columns
    runs = [int(value) for value in columns["gripwire.verdict"]]
    assert list(dict.fromkeys(runs)) == [-1, 1, 0] == sorted(set(runs), key=runs.index)
    taken_over = np.flatnonzero(columns["gripwire.intervention"])
    assert 3 <= len(taken_over) == taken_over[-1] - taken_over[0] + 1
    assert [said["success"] for said in rig.notes("marked")[0]["verdicts"]] == [True, False]


def test_a_session_records_its_episodes_by_itself_and_each_has_its_verdict(recorded):
    rig, *_ = recorded
    plan = StartSession(
        task="grasp", dataset="held", episodes=2, seconds=1.0, reset_seconds=0.5, success=True
    )  # fmt: skip
    saved = rig.episode.get().message.saved
    rig.ask(plan)
    with pytest.raises(UserError, match="a session is under way"):
        rig.ask(StartEpisode(task="grasp", dataset="held"))
    rig.until(lambda e: e.session_phase == "recording" and e.session_done == 0)
    rig.until(lambda e: e.session_phase == "reset" and e.session_done == 1)
    state = rig.until(lambda e: e.state == "idle" and e.saved == saved + 2 and e.session_episodes == 0)
    assert state.verdict == "success" and state.problem == ""
    lengths = [note["rows"] for note in rig.notes("held")]
    assert all(9 <= rows <= 20 for rows in lengths)  # a busy machine adds some


def test_lost_and_broken_pictures_are_counted_and_the_rows_still_show_the_right_ones(
    recorded, open_with_lerobot
):
    rig, bench, *_ = recorded
    rig.start(0.5, "broken")
    bench.skip.set()
    rig.until(lambda e: e.drops == {"camera/gripper_cam": 1})
    rows = rig.episode.get().message.rows
    # Longer than the distance of two rows: the picture before stands in for what does not decode.
    bench.corrupt = set(range(bench.camera.sent + 3, bench.camera.sent + 9))
    rig.until(lambda e: e.rows >= rows + 7)
    state = rig.stop()
    assert state.drops == {"camera/gripper_cam": 1} == rig.notes("broken")[0]["drops"]
    assert "could not be decoded" in state.problem
    rig.until_health(lambda h: h.counts.get("lost camera/gripper_cam", 0) >= 1)
    dataset = open_with_lerobot(rig.datasets / "broken")
    assert dataset.numbers == dataset.columns[CAMERA + "seq"].tolist()


def test_a_stalled_camera_marks_the_episode_and_degrades_health(recorded):
    rig, bench, *_ = recorded
    rig.start(0.5, "stalled")
    bench.blind.set()
    rig.until_health(lambda h: h.state == "degraded" and "camera/gripper_cam is silent" in h.problem)
    bench.blind.clear()
    rig.until_health(lambda h: h.state == "ready")
    state = rig.stop()
    assert re.search(r"camera/gripper_cam was silent for [1-9]\.\d s", state.problem)
    assert rig.notes("stalled")[0]["problem"] == state.problem


def test_a_camera_that_stays_away_ends_the_episode(rigs):
    rig, bench = rigs(give_up_s=3.0)
    rig.start(0.5)
    bench.blind.set()
    state = rig.until(lambda e: e.state == "idle" and e.saved == 1)
    assert "ended by itself: camera/gripper_cam was silent for 3 s" in state.problem


def test_a_recorder_that_was_held_up_for_long_goes_on_with_its_episode(rigs):
    rig, bench = rigs(give_up_s=1.0)
    rig.start(0.5)
    rig.process.send_signal(signal.SIGSTOP)
    taken = len(bench.frames)
    until(lambda: len(bench.frames) > taken + 60)  # two seconds
    rig.process.send_signal(signal.SIGCONT)
    rows = rig.until(lambda e: e.state == "recording" and e.rows > 30).rows
    rig.until(lambda e: e.rows > rows + 10)
    assert rig.stop().problem == ""


def test_an_episode_ends_by_itself_at_the_longest_allowed(rigs):
    rig, _ = rigs(max_episode_s=1.0)
    rig.ask(StartEpisode(task="grasp", dataset="grasps"))
    state = rig.until(lambda e: e.state == "idle" and e.saved == 1)
    # An episode begins with its first row and ends a second later, give or take what a busy machine adds.
    assert 9 <= state.rows <= 20 and "max_episode_s = 1 s" in state.problem


def test_ending_the_recorder_saves_the_open_episode(rigs, open_with_lerobot):
    rig, _ = rigs()
    rig.start(0.7)
    rig.end()
    assert len(open_with_lerobot(rig.datasets / "grasps").lengths) == 1
    assert "the recorder was stopped during the episode" in rig.notes()[0]["problem"]
