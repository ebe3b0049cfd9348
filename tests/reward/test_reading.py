"""Datasets are read in place, whatever wrote them, and what is wrong with one is told by file and episode."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gripwire.errors import UserError
from gripwire_reward.datasets import columns, frames, open_dataset, rows
from tests.trainer import synthetic
from tests.trainer.synthetic import KEY, read_number

EXPECTED = [[40 * e + i for i in range(20 + e)] for e in range(3)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v2.1 dataset of three episodes whose pictures carry their own number."""
    shown = [[synthetic.numbered(number) for number in numbers] for numbers in EXPECTED]
    return synthetic.write_v21(tmp_path_factory.mktemp("source") / "set", shown)


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(source, tmp_path / "set"))


def _change_info(path: Path, **changes: Any) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | changes))


def _numbers(path: Path) -> list[list[int]]:
    dataset = open_dataset(path)
    return [[read_number(f) for f in frames(dataset, e, KEY)] for _, e in sorted(dataset.episodes.items())]


def test_every_row_of_v2_1_shows_its_own_picture(source: Path) -> None:
    dataset = open_dataset(source)
    assert (dataset.version, dataset.fps, dataset.robot) == ("v2.1", 10, "so101_follower")
    assert dataset.lengths == {0: 20, 1: 21, 2: 22}
    assert _numbers(source) == EXPECTED


def test_av1_is_read_like_h264(tmp_path: Path) -> None:
    shown = [[synthetic.numbered(i) for i in range(30)]]
    assert _numbers(synthetic.write_v21(tmp_path / "av1", shown, codec="libsvtav1")) == [list(range(30))]


def test_rows_are_those_of_the_episode(source: Path) -> None:
    episode = open_dataset(source).episodes[2]
    found = columns(episode, ["action", "frame_index"])
    assert found["action"].shape == (22, 2) and found["frame_index"].tolist() == list(range(22))
    assert rows(episode, ["episode_index"])["episode_index"].to_pylist() == [2] * 22


@pytest.mark.parametrize("channels", ["channel", "channels"])
def test_pictures_may_be_described_with_their_channels_first(copied: Path, channels: str) -> None:
    features = json.loads((copied / "meta/info.json").read_text())["features"]
    features[KEY] |= {"shape": [3, 48, 64], "names": [channels, "height", "width"]}
    _change_info(copied, features=features)
    assert open_dataset(copied).cameras == {KEY: (48, 64)}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: shutil.rmtree(p / "meta"), "not a LeRobot dataset"),
        (lambda p: (p / "meta/info.json").write_text("{"), "damaged"),
        (lambda p: (p / "meta/info.json").write_text("{}"), "damaged"),
        (lambda p: (p / "meta/info.json").write_text("[]"), "damaged"),
        (lambda p: (p / "meta/episodes.jsonl").unlink(), "damaged"),
        (lambda p: (p / "meta/episodes.jsonl").write_text("[1]\n"), "damaged"),
        (lambda p: _change_info(p, codebase_version="v1.6"), "v1.6"),
        (lambda p: _change_info(p, features=[]), "damaged"),
        (lambda p: _change_info(p, features={KEY: {"dtype": "video", "shape": [48]}}), "damaged"),
        (lambda p: _change_info(p, data_path="data/{}.parquet"), "damaged"),
        (lambda p: _change_info(p, fps=0), "damaged.*not positive"),
    ],
)
def test_a_folder_that_is_no_dataset_is_named(copied: Path, damage: Any, said: str) -> None:
    damage(copied)
    with pytest.raises(UserError, match=said) as error:
        open_dataset(copied)
    assert str(copied) in str(error.value)


def test_a_missing_or_broken_video_is_named(copied: Path) -> None:
    video = copied / f"videos/chunk-000/{KEY}/episode_000001.mp4"
    os.truncate(video, 100)
    dataset = open_dataset(copied)
    with pytest.raises(UserError, match="episode 1: cannot be decoded"):
        list(frames(dataset, dataset.episodes[1], KEY))
    video.unlink()
    with pytest.raises(UserError, match="episode 1: its video is missing"):
        list(frames(dataset, dataset.episodes[1], KEY))


def test_a_video_that_is_shorter_than_its_rows_is_named(copied: Path) -> None:
    folder = copied / f"videos/chunk-000/{KEY}"
    shutil.copy(folder / "episode_000000.mp4", folder / "episode_000002.mp4")
    dataset = open_dataset(copied)
    with pytest.raises(UserError, match="episode 2: the video ends after 20 frames, there are 22 rows"):
        list(frames(dataset, dataset.episodes[2], KEY))


def test_rows_that_cannot_be_read_or_are_too_few_are_named(copied: Path) -> None:
    folder = copied / "data/chunk-000"
    os.truncate(folder / "episode_000000.parquet", 50)
    shutil.copy(folder / "episode_000001.parquet", folder / "episode_000002.parquet")
    dataset = open_dataset(copied)
    with pytest.raises(UserError, match="rows of episode 0 cannot be read"):
        columns(dataset.episodes[0], ["action"])
    with pytest.raises(UserError, match="episode 2 has 0 rows, its description says 22"):
        columns(dataset.episodes[2], ["action"])
    with pytest.raises(UserError, match="rows of episode 1 cannot be read"):
        columns(dataset.episodes[1], ["no such column"])


def test_the_only_camera_needs_no_name(source: Path) -> None:
    dataset = open_dataset(source)
    assert dataset.camera() == dataset.camera(KEY) == KEY
    with pytest.raises(UserError, match=f"no camera 'top'; it has: {re.escape(KEY)}"):
        dataset.camera("top")
