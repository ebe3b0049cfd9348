"""A run that was recorded: judged again offline, and played back to the live service."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gripwire import bus
from gripwire.errors import UserError
from gripwire.messages import JOINTS, EpisodeState, Frame, Reward, RobotState
from gripwire.recording.file import Recording, RecordingFile
from gripwire.recording.record import Recorder
from gripwire.recording.replay import Replay
from gripwire_reward.decision import DecisionRule
from gripwire_reward.recordings import rescore
from gripwire_reward.scorer import Scorer
from tests.helpers import run_here
from tests.reward import tiny
from tests.reward.bench import Bench

FRAMES = 24


@pytest.fixture
def run(bench: Bench, tmp_path: Path) -> Iterator[tuple[Path, list[Reward]]]:
    """A recorded run, failure before success, and what was said live about each of its frames."""
    bench.serve()
    recorder = Recorder(tmp_path / "run.mcap", list(bench.settings.topics))
    assert bench.camera.wait_for_subscriber(20, count=2)
    assert bench.service._reward.wait_for_subscriber(20, count=2)
    # A frame alone, then the others: the first is late because it waits for the recorder's own start.
    live = [bench.verdict(bench.send(number > FRAMES // 2, number)) for number in range(FRAMES)]
    while recorder.file.counts.get("reward", 0) < FRAMES:
        recorder.take(0.05)
    recorder.close()
    yield tmp_path / "run.mcap", live


def _other(bench: Bench, **changes: Any) -> Scorer:
    return Scorer(tiny.make(bench.settings.data / "bundles", **changes))


def test_the_same_bundle_gives_the_same_logits_bit_for_bit(
    run: tuple[Path, list[Reward]], bench: Bench
) -> None:
    path, live = run
    done = rescore(Recording(path), _other(bench), path.with_suffix(".parquet"))
    rows = pq.read_table(path.with_suffix(".parquet")).to_pylist()
    assert [row["frame_seq"] for row in rows] == [r.frame_seq for r in live]
    assert (
        [row["logit"] for row in rows] == [r.logit for r in live] == [row["recorded_logit"] for row in rows]
    )
    assert [row["decision"] for row in rows] == [r.decision for r in live]
    assert {row["recorded_model"] for row in rows} == {live[0].model}
    assert (done.frames, done.not_valid, done.changed) == (FRAMES, 0, 0)
    assert any(r.decision for r in live) and not all(r.decision for r in live)


def test_another_bundle_changes_them_and_a_copy_of_the_recording_has_its_rewards(
    run: tuple[Path, list[Reward]], bench: Bench
) -> None:
    path, live = run
    scorer, out = _other(bench, gain=-8.0), path.with_name("again.mcap")
    done = rescore(Recording(path), scorer, out)
    before, after = list(Recording(path).messages()), list(Recording(out).messages())
    assert done.changed and done.changed > FRAMES // 3
    kept = [r for r in before if r.topic != "reward"]
    assert [r for r in after if r.topic != "reward"] == kept
    rewards = [r.message for r in after if isinstance(r.message, Reward)]
    assert [(r.frame_boot, r.frame_seq) for r in rewards] == [(r.frame_boot, r.frame_seq) for r in live]
    assert {r.model for r in rewards} == {scorer.bundle.id} != {live[0].model}
    assert [r.seq for r in rewards] == list(range(FRAMES)) and len({r.boot for r in rewards}) == 1
    assert rewards[0].logit == -(live[0].logit or 0)


def test_played_back_the_live_service_says_the_same_again(
    run: tuple[Path, list[Reward]], bench: Bench
) -> None:
    path, live = run
    bench.camera.close()
    bench.said.clear()
    player = Replay(Recording(path), bench.settings.topics, ["camera/gripper_cam"])
    thread = threading.Thread(target=lambda: (player.wait_for_readers(20), player.run(1.0, lambda: False)))
    thread.start()
    # Not ticked while it waits for its camera, the service has no silence to speak of.
    bench.until(lambda: sum(r.frame_seq >= 0 for r in bench.said) == FRAMES)
    thread.join()
    player.close()
    judged = [r for r in bench.said if r.frame_seq >= 0]
    assert [r.logit for r in judged] == [r.logit for r in live]
    assert [r.frame_seq for r in judged] == [r.frame_seq for r in live]
    assert len({r.frame_boot for r in judged}) == 1 != live[0].frame_boot
    bench.camera = bus.Publisher(bench.settings.topics["camera/gripper_cam"])


class Tape:
    """Writes a recording by hand, at 30 frames a second."""

    def __init__(self, path: Path) -> None:
        self.file, self.now = RecordingFile(path), 10**18

    def state(self, gripper: float) -> None:
        position = dict.fromkeys(JOINTS, 0.0) | {"gripper": gripper}
        self.file.append("robot/state", self.now, RobotState(valid=True, position=position), None)

    def episode(self, state: Any) -> None:
        self.file.append("episode", self.now, EpisodeState(state=state), None)

    def frame(self, seq: int, camera: str = "gripper_cam", **changes: Any) -> None:
        self.now += 33_333_333
        header = {"valid": True, "camera": camera, "width": tiny.WIDTH, "height": tiny.HEIGHT,
                  "encoding": "jpeg", "seq": seq, "boot": "c", "t_capture": self.now}  # fmt: skip
        self.file.append(
            f"camera/{camera}", self.now, Frame(**(header | changes)), tiny.jpeg(tiny.picture(True, seq))
        )


def _judged(path: Path, scorer: Scorer) -> list[dict[str, Any]]:
    out = path.with_suffix(".parquet")
    rescore(Recording(path), scorer, out)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_the_gate_is_judged_by_the_recorded_state_and_its_absence_is_told(
    bench: Bench, tmp_path: Path
) -> None:
    tape = Tape(tmp_path / "run.mcap")
    tape.frame(0)
    tape.state(gripper=20)
    for seq in range(1, 6):
        tape.frame(seq)
    tape.state(gripper=80)
    for seq in range(6, 30):
        tape.frame(seq)
    tape.file.close()
    rule = tiny.RULE.model_copy(update={"gate": "gripper < 50"})
    rows = _judged(tmp_path / "run.mcap", _other(bench, rule=rule))
    assert "none has come" in rows[0]["reason"] and not rows[0]["valid"]
    assert [row["gate"] for row in rows[1:12]] == [True] * 5 + [False] * 6
    assert [row["decision"] for row in rows[1:8]] == [False, False, True, True, True, False, False]
    assert "s old" in rows[29]["reason"]  # half a second after the last state


def test_an_episode_that_begins_a_silence_and_a_loss_are_no_evidence(bench: Bench, tmp_path: Path) -> None:
    rule = DecisionRule(threshold=0.5, release=0.35, window_s=0.1, needed_s=0.1, min_steps_s=0.1)
    tape = Tape(tmp_path / "run.mcap")
    tape.episode("recording")
    for seq in range(5):
        tape.frame(seq)
    tape.episode("idle")
    tape.episode("recording")
    for seq in range(5, 10):
        tape.frame(seq)
    tape.now += 10**9
    for seq in range(10, 14):
        tape.frame(seq)
    for seq in range(15, 18):
        tape.frame(seq)
    tape.frame(18, valid=False, reason="the picture is frozen")
    tape.file.close()
    rows = _judged(tmp_path / "run.mcap", _other(bench, rule=rule))
    assert [row["step"] for row in rows[:10]] == [1, 2, 3, 4, 5] * 2
    no, yes = False, True
    assert [row["decision"] for row in rows] == [
        no, no, no, yes, yes, no, no, no, yes, yes, no, no, yes, yes, no, no, yes, no
    ]  # fmt: skip
    assert rows[-1]["reason"] == "camera gripper_cam: the picture is frozen"


def test_the_only_camera_of_a_recording_is_taken_and_of_several_the_models_own(
    bench: Bench, tmp_path: Path
) -> None:
    one = Tape(tmp_path / "one.mcap")
    one.frame(0, "wrist")
    one.file.close()
    assert _judged(tmp_path / "one.mcap", _other(bench))[0]["valid"]
    two = Tape(tmp_path / "two.mcap")
    two.frame(0, "wrist")
    two.frame(0, "top")
    two.file.close()
    with pytest.raises(UserError, match=r"two\.mcap: the model was trained on camera `gripper_cam`; the rec"):
        _judged(tmp_path / "two.mcap", _other(bench))


def test_the_command_says_what_it_did(
    run: tuple[Path, list[Reward]], bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    path, live = run
    environment = {"GRIPWIRE_DATA": str(bench.settings.data)}

    def command(*arguments: str) -> Any:
        return run_here(["reward", "rescore", *arguments], environment, capsys)

    done = command(str(path), live[0].model, "--out", str(path.with_name("a.mcap")), "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["frames"], summary["changed"], summary["not_valid"]) == (FRAMES, 0, 0)
    again = command(str(path), live[0].model, "--out", str(path.with_name("a.mcap")))
    assert again.returncode == 1 and "never overwritten" in again.stderr
    for out, said in (("b", ".mcap or a .parquet"), ("b.csv", ".mcap or a .parquet")):
        refused = command(str(path), live[0].model, "--out", out)
        assert refused.returncode == 1 and said in refused.stderr
    torn = path.with_name("torn.mcap")
    torn.write_bytes(path.read_bytes()[:-200])
    told = command(str(torn), live[0].model, "--out", str(path.with_name("b.parquet")))
    assert told.returncode == 0 and "ends in the middle" in told.stderr
    assert f"{FRAMES} rewards, 0 changed, 0 not valid" in told.stdout
