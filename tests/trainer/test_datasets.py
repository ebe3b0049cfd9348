"""Datasets are read in place, v2.1 and v3.0 alike, and the built one is LeRobot's own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire_reward.datasets import columns, frames, open_dataset
from gripwire_trainer import labels
from gripwire_trainer.build import REWARD, build, sweep
from tests.trainer import synthetic
from tests.trainer.synthetic import KEY, read_number

STARTS = [5, None, 21]


@pytest.fixture(scope="session")
def built(counted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The v3.0 reward dataset that the trainer builds from the counted one."""
    folder = tmp_path_factory.mktemp("built")
    file = synthetic.write_labels(folder, counted, STARTS)
    summary = build(labels.read(file), folder / "datasets" / "me" / "reward")
    return Path(summary["dataset"]), summary


def _numbers(path: Path) -> list[list[int]]:
    dataset = open_dataset(path)
    return [[read_number(f) for f in frames(dataset, e, KEY)] for _, e in sorted(dataset.episodes.items())]


EXPECTED = [[40 * e + i for i in range(20 + e)] for e in range(3)]


def test_every_row_of_v2_1_shows_its_own_picture(counted: Path) -> None:
    assert open_dataset(counted).version == "v2.1"
    assert _numbers(counted) == EXPECTED


def test_every_row_of_the_v3_0_built_from_it_shows_the_same_picture(built: tuple[Path, Any]) -> None:
    assert open_dataset(built[0]).version == "v3.0"
    assert _numbers(built[0]) == EXPECTED


def test_av1_is_read_like_h264(tmp_path: Path) -> None:
    path = synthetic.write_v21(
        tmp_path / "av1", [[synthetic.numbered(i) for i in range(30)]], codec="libsvtav1"
    )
    assert _numbers(path) == [list(range(30))]


def test_the_built_dataset_has_the_rewards_and_the_original_actions(
    counted: Path, built: tuple[Path, Any]
) -> None:
    dataset, source = open_dataset(built[0]), open_dataset(counted)
    for number, start in enumerate(STARTS):
        rows = columns(dataset.episodes[number], [REWARD, "action"])
        expected = np.arange(20 + number) >= (start if start is not None else 99)
        assert np.array_equal(rows[REWARD].reshape(-1) > 0.5, expected)
        assert np.array_equal(rows["action"], columns(source.episodes[number], ["action"])["action"])
    assert built[1]["frames"] == 63 and built[1]["episodes"] == 3


def test_lerobot_itself_opens_what_was_built(built: tuple[Path, Any]) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("me/reward", root=built[0], video_backend="pyav")
    assert len(dataset) == 63
    for index, number in ((0, 0), (19, 19), (20, 40), (62, 101)):
        item = dataset[index]
        assert read_number((item[KEY].permute(1, 2, 0).numpy() * 255).astype(np.uint8)) == number
        assert item[REWARD].dtype.is_floating_point
    assert dataset.meta.features[REWARD]["shape"] == (1,)


def test_sources_are_left_as_they_were(counted: Path, built: tuple[Path, Any]) -> None:
    assert not [p for p in counted.rglob("*") if p.stat().st_mtime > built[0].stat().st_mtime]


def test_an_existing_dataset_is_never_overwritten_unasked(counted: Path, tmp_path: Path) -> None:
    file = synthetic.write_labels(tmp_path, counted, STARTS)
    precious = tmp_path / "datasets" / "mine"
    precious.mkdir(parents=True)
    (precious / "hours of work").touch()
    with pytest.raises(UserError, match="never overwritten unasked"):
        build(labels.read(file), precious)
    assert (precious / "hours of work").exists()
    build(labels.read(file), precious, replace=True)
    assert open_dataset(precious).version == "v3.0"
    assert [p.name for p in precious.parent.iterdir()] == ["mine"]


def test_a_build_that_fails_leaves_nothing_and_keeps_what_was_there(counted: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(counted, broken)
    video = broken / f"videos/chunk-000/{KEY}/episode_000002.mp4"
    shutil.copy(broken / f"videos/chunk-000/{KEY}/episode_000000.mp4", video)
    file = synthetic.write_labels(tmp_path, broken, STARTS)
    kept = tmp_path / "datasets" / "kept"
    kept.mkdir(parents=True)
    (kept / "old").touch()
    with pytest.raises(UserError, match=r"episode 2: the video ends after 20 frames, there are 22 rows"):
        build(labels.read(file), kept, replace=True)
    with pytest.raises(UserError, match="the video ends"):
        build(labels.read(file), tmp_path / "datasets" / "new")
    assert [p.name for p in (tmp_path / "datasets").iterdir()] == ["kept"] and (kept / "old").exists()


def test_what_a_killed_build_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f".set.{gone.pid}.tmp", f"me/.set.{gone.pid}.tmp", f".fresh.{gone.pid}.tmp",
             f".set.{os.getpid()}.tmp", "set", ".odd.tmp"]  # fmt: skip
    for name in names:
        (tmp_path / name / "data").mkdir(parents=True)
        for part in (tmp_path / name / "data", tmp_path / name):
            if "fresh" not in name:
                os.utime(part, (1, 1))
    sweep(tmp_path)
    assert [n for n in names if not (tmp_path / n).exists()] == names[:2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: shutil.rmtree(p / "meta"), "not a LeRobot dataset"),
        (lambda p: (p / "meta/info.json").write_text("{"), "damaged"),
        (lambda p: (p / "meta/info.json").write_text("{}"), "damaged"),
        (lambda p: (p / "meta/episodes.jsonl").unlink(), "damaged"),
        (lambda p: _set_version(p, "v1.6"), "v1.6"),
    ],
)
def test_a_folder_that_is_no_dataset_is_named(counted: Path, tmp_path: Path, damage: Any, said: str) -> None:
    shutil.copytree(counted, tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(UserError, match=said):
        open_dataset(tmp_path / "set")


def _set_version(path: Path, version: str) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"codebase_version": version}))


def test_a_missing_or_broken_video_is_named(counted: Path, tmp_path: Path) -> None:
    shutil.copytree(counted, tmp_path / "set")
    video = tmp_path / f"set/videos/chunk-000/{KEY}/episode_000001.mp4"
    os.truncate(video, 100)
    dataset = open_dataset(tmp_path / "set")
    with pytest.raises(UserError, match="episode 1: cannot be decoded"):
        list(frames(dataset, dataset.episodes[1], KEY))
    video.unlink()
    with pytest.raises(UserError, match="episode 1: its video is missing"):
        list(frames(dataset, dataset.episodes[1], KEY))


def test_rows_without_a_parquet_footer_are_named(counted: Path, tmp_path: Path) -> None:
    shutil.copytree(counted, tmp_path / "set")
    os.truncate(tmp_path / "set/data/chunk-000/episode_000000.parquet", 50)
    dataset = open_dataset(tmp_path / "set")
    with pytest.raises(UserError, match="rows of episode 0 cannot be read"):
        columns(dataset.episodes[0], ["action"])


def test_two_sources_of_different_rates_are_not_merged(counted: Path, tmp_path: Path) -> None:
    shutil.copytree(counted, tmp_path / "fast")
    info = json.loads((tmp_path / "fast/meta/info.json").read_text())
    (tmp_path / "fast/meta/info.json").write_text(json.dumps(info | {"fps": 30}))
    synthetic.write_labels(tmp_path, counted, STARTS, "a")
    synthetic.write_labels(tmp_path, tmp_path / "fast", STARTS, "b")
    merge = tmp_path / "merge.json"
    merge.write_text(json.dumps({"sources": ["a", "b"], "output_repo_id": "me/both"}))
    with pytest.raises(UserError, match=r"10 frames per second.*30"):
        build(labels.read(merge), tmp_path / "out")
