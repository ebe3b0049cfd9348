"""A dataset is built whole or not at all, and what was there stays."""

import functools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from gripwire.errors import UserError
from gripwire_reward.datasets import open_dataset
from gripwire_trainer.datasets import publish
from gripwire_trainer.datasets.build import Summary
from tests.trainer import synthetic
from tests.trainer.building import STARTS, build, contents, merged, names, opened
from tests.trainer.synthetic import KEY, numbered

pytestmark = pytest.mark.usefixtures("lerobot_asks_nobody")


def test_an_existing_dataset_is_never_overwritten_unasked(counted: Path, tmp_path: Path) -> None:
    file = synthetic.write_labels(tmp_path, counted, STARTS)
    precious = tmp_path / "datasets" / "mine"
    precious.mkdir(parents=True)
    (precious / "hours of work").touch()
    with pytest.raises(UserError, match="never overwritten unasked"):
        build(tmp_path, file, "mine")
    assert (precious / "hours of work").exists()
    assert not build(tmp_path, file, "mine", replace=True).found
    assert open_dataset(precious).version == "v3.0" and names(precious.parent) == ["mine"]
    assert build(tmp_path, file, "mine", replace=True).found


def _damaged(damage: str, root: Path) -> None:
    video = root / f"videos/chunk-000/{KEY}/episode_000002.mp4"
    rows = root / "data/chunk-000/episode_000002.parquet"
    if damage == "short video":
        shutil.copy(video.with_name("episode_000000.mp4"), video)
    elif damage == "broken video":
        os.truncate(video, 500)
    elif damage == "no video":
        video.unlink()
    elif damage == "faster video":
        with av.open(str(video), "w") as out:
            stream = out.add_stream("libx264", rate=30)
            stream.width, stream.height = 64, 48
            for i in range(70):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(i))))
            out.mux(stream.encode())
    elif damage == "no footer":
        os.truncate(rows, 500)
    elif damage == "no rows":
        rows.unlink()
    elif damage == "other rows":
        shutil.copy(rows.with_name("episode_000001.parquet"), rows)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("short video", r"2\.mp4: episode 2: the video ends after 20 frames, there are 22 rows"),
        ("broken video", r"2\.mp4: episode 2: the video cannot be opened"),
        ("no video", r"2\.mp4: episode 2: its video is missing"),
        ("faster video", r"2\.mp4: episode 2: a video of 30 frames per second beside rows at 10"),
        ("no footer", r"2\.parquet: the rows of episode 2 cannot be read"),
        ("no rows", r"2\.parquet: episode 2: its rows are missing"),
        ("other rows", r"2\.parquet: episode 2 has 0 rows, its description says 22"),
    ],
)
def test_a_damaged_source_is_named_and_leaves_what_was_there(
    counted: Path, tmp_path: Path, damage: str, said: str
) -> None:
    broken = shutil.copytree(counted, tmp_path / "broken")
    _damaged(damage, broken)
    file = synthetic.write_labels(tmp_path, broken, STARTS)
    kept = tmp_path / "datasets" / "kept"
    kept.mkdir(parents=True)
    (kept / "old").touch()
    for name, replace in (("kept", True), (None, False)):
        with pytest.raises(UserError, match=said):
            build(tmp_path, file, name, replace=replace)
    assert names(tmp_path / "datasets") == ["kept"] and (kept / "old").exists()
    assert not [*(tmp_path / "cache/datasets/videos").glob("*/*")]  # no room is taken by what came to nothing


def test_sources_of_other_rates_or_cameras_are_not_merged(counted: Path, tmp_path: Path) -> None:
    first = synthetic.write_labels(tmp_path, counted, STARTS, "a")
    other = shutil.copytree(counted, tmp_path / "other")
    merge = merged(tmp_path, first, synthetic.write_labels(tmp_path, other, STARTS, "b"))
    info = json.loads((other / "meta/info.json").read_text())
    (other / "meta/info.json").write_text(json.dumps(info | {"fps": 30}))
    with pytest.raises(UserError, match=rf"{counted} has 10 frames per second, {other} 30"):
        build(tmp_path, merge)
    info["features"][f"{KEY}_2"] = info["features"].pop(KEY) | {"shape": [24, 32, 3]}
    (other / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=rf"gripper_cam \(64x48\), {other} has .*gripper_cam_2 \(32x24\)"):
        build(tmp_path, merge)
    assert not (tmp_path / "datasets").exists()


def test_a_build_that_is_given_up_leaves_nothing(counted: Path, tmp_path: Path) -> None:
    def give_up(part: float) -> None:
        raise KeyboardInterrupt

    file = synthetic.write_labels(tmp_path, counted, STARTS)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, file, progress=give_up)
    assert names(tmp_path / "datasets") == []


def _in_child(work: Callable[[], object], out: Path | None = None) -> int:
    """Run ``work`` in a fork of this process, which has LeRobot; its exit status, or minus a signal."""
    child = os.fork()
    if child == 0:
        try:
            said = work()
            if out:
                out.write_text(json.dumps(said))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _age(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1, 1))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("replace", [False, True])
def test_a_killed_build_leaves_what_was_there_and_the_next_one_clears_up(
    counted: Path, tmp_path: Path, replace: bool
) -> None:
    out = tmp_path / "datasets" / "mine"
    file = synthetic.write_labels(tmp_path, counted, [9, 9, 9])
    before = contents(Path(build(tmp_path, file, "mine").dataset)) if replace else {}
    file = synthetic.write_labels(tmp_path, counted, STARTS)

    def killed_at_half(part: float) -> None:
        if part > 0.5:
            _kill()

    again = functools.partial(build, tmp_path, file, "mine", replace=replace)
    assert _in_child(lambda: again(progress=killed_at_half)) == -signal.SIGKILL
    left = [name for name in names(out.parent) if name != "mine"]
    assert len(left) == 1 and left[0].startswith(".") and out.exists() == replace
    assert not replace or contents(out) == before
    _age(out.parent / left[0])
    assert len(opened(Path(again().dataset))) == 63
    assert names(out.parent) == ["mine"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("last", ["rename", "delete"])
def test_a_build_killed_while_it_replaces_loses_neither(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    out = tmp_path / "datasets" / "mine"
    before = contents(Path(build(tmp_path, synthetic.write_labels(tmp_path, counted, [9]), "mine").dataset))
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        return _kill() if target == out else rename(path, target)  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        if last == "rename":
            patch.setattr(Path, "rename", killed)
        else:
            patch.setattr(publish, "fsync_dir", _kill)
        file = synthetic.write_labels(tmp_path, counted, STARTS)
        assert _in_child(lambda: build(tmp_path, file, "mine", replace=True)) == -signal.SIGKILL
    build(tmp_path, file, "other")
    assert len(opened(out)) == (20 if last == "rename" else 63)
    assert last == "delete" or contents(out) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", [None, "mine"])
def test_two_builds_at_once_make_one_dataset(counted: Path, tmp_path: Path, name: str | None) -> None:
    file = synthetic.write_labels(tmp_path, counted, STARTS)
    met = [tmp_path / "met 0", tmp_path / "met 1"]

    def together(number: int) -> Summary:
        def meet(part: float) -> None:
            met[number].touch()
            while not met[1 - number].exists():
                os.sched_yield()

        return build(tmp_path, file, name, replace=bool(name), progress=meet)

    child = os.fork()
    if child == 0:
        try:
            together(1)
            os._exit(0)
        finally:
            os._exit(1)
    summary = together(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(opened(Path(summary.dataset))) == 63
    assert names(tmp_path / "datasets") == [Path(summary.dataset).name]


def _mounted(place: Path, room_kb: int) -> bool:
    """Give this process a small disk of its own, if the system lets it."""
    user, group = os.getuid(), os.getgid()
    try:
        os.unshare(os.CLONE_NEWNS | (os.CLONE_NEWUSER if user else 0))
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room_kb}k", "tmpfs", str(place)]
    return subprocess.run(mount, capture_output=True).returncode == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("room_kb", [8, 40, 72])
def test_a_full_disk_is_told_and_leaves_nothing(counted: Path, tmp_path: Path, room_kb: int) -> None:
    file = synthetic.write_labels(tmp_path, counted, STARTS)
    disk = tmp_path / "disk"
    disk.mkdir()

    def on_a_small_disk() -> list[str] | None:
        if not _mounted(disk, room_kb):
            return None
        try:
            build(disk, file)
        except UserError as e:
            return [str(e), *names(disk / "datasets")]
        return ["it was not full"]

    assert _in_child(on_a_small_disk, tmp_path / "said") == 0
    said = json.loads((tmp_path / "said").read_text())
    if said is None:
        pytest.skip("this system does not let a process mount a disk of its own")
    assert "is full; nothing half-written was left behind" in said[0] and said[1:] == []


def test_what_killed_builds_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f".set.{gone.pid}.tmp", f"me/.set.{gone.pid}.tmp", f".set.{gone.pid}.new",
             f".fresh.{gone.pid}.tmp", f".set.{os.getpid()}.tmp", "set", ".odd.tmp"]  # fmt: skip
    for name in names:
        (tmp_path / "sets" / name / "data").mkdir(parents=True)
        if "fresh" not in name:
            _age(tmp_path / "sets" / name)
    publish.sweep(tmp_path / "sets", tmp_path / "lock")
    assert [n for n in names if not (tmp_path / "sets" / n).exists()] == names[:3]
