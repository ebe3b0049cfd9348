"""`gripwire labels frames`: a person labels from what the model sees, and reads off true frame numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from gripwire.errors import UserError
from gripwire_trainer.labelling.cli import app
from gripwire_trainer.labelling.contact_sheet import MOST, TILE, Tile, contact_sheet
from tests.trainer import synthetic
from tests.trainer.synthetic import HEIGHT, KEY, WIDTH, read_number

GREEN = np.array([0, 150, 60])


def _frames(*args: Any) -> dict[str, Any]:
    command = ["frames", *map(str, args), "--json"]
    done = CliRunner().invoke(app, command, env={"GRIPWIRE_CONFIG": ""})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _read(file: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    assert image is not None, file
    return np.asarray(image, np.uint8)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_third_frame_is_written_under_its_true_index(counted: Path, tmp_path: Path) -> None:
    result = _frames(counted, "--out", tmp_path / "out", "--every", 3, "--episodes", "0,2", "--no-crop")
    assert (result["episodes"], result["frames"]) == (2, 15)
    folders = ["episode_000000", "episode_000000.jpg", "episode_000002", "episode_000002.jpg"]
    assert _names(tmp_path / "out") == folders
    files = sorted((tmp_path / "out/episode_000002").iterdir())
    assert [f.name for f in files] == [f"frame_{i:06d}.jpg" for i in range(0, 22, 3)]
    assert [read_number(_read(f)) for f in files] == [80 + i for i in range(0, 22, 3)]


def test_pictures_are_cropped_as_the_model_sees_them_at_their_own_resolution(
    counted: Path, tmp_path: Path
) -> None:
    _frames(counted, "--out", tmp_path / "whole", "--no-crop", "--episodes", 0)
    _frames(counted, "--out", tmp_path / "model", "--episodes", 0)
    _frames(counted, "--out", tmp_path / "own", "--episodes", 0, "--crop", 8, 0, 24, 40)
    _frames(counted, "--out", tmp_path / "small", "--episodes", 0, "--size", 16, 16)
    name = "episode_000000/frame_000005.jpg"
    whole = _read(tmp_path / "whole" / name).astype(int)
    assert whole.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(_read(tmp_path / "model" / name) - whole[:, 8:56]).max() < 40
    assert np.abs(_read(tmp_path / "own" / name) - whole[8:32, :40]).max() < 40
    assert _read(tmp_path / "small" / name).shape == (16, 16, 3)


def test_the_trainers_crop_in_the_settings_counts(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "gripwire.toml").write_text("[trainer]\ncrop = [0, 0, 20, 30]\n")
    _frames(counted, "--out", tmp_path / "out", "--episodes", 0, "--config", tmp_path / "gripwire.toml")
    assert _read(tmp_path / "out/episode_000000/frame_000000.jpg").shape == (20, 30, 3)


def test_a_label_file_marks_success_in_green_and_shows_labelled_episodes_only(
    counted: Path, tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path, counted, [6, None])
    _frames(file, "--out", tmp_path / "out", "--every", 3)
    assert [n for n in _names(tmp_path / "out") if n.endswith("jpg")] == [
        "episode_000000.jpg",
        "episode_000001.jpg",
    ]
    # Seven tiles of frames 0, 3 ... 18 in four columns: the third is the first of success.
    sheet = _read(tmp_path / "out/episode_000000.jpg").astype(int)
    step = TILE + 12
    strip = [np.abs(sheet[44, 100 + i * step] - GREEN).max() < 25 for i in range(4)]
    assert strip == [False, False, True, True]
    failed = _read(tmp_path / "out/episode_000001.jpg").astype(int)
    assert not (np.abs(failed - GREEN).max(-1) < 25).any()


def test_several_sources_have_folders_of_their_own(counted: Path, tmp_path: Path) -> None:
    other = shutil.copytree(counted, tmp_path / "other")
    synthetic.write_labels(tmp_path, counted, [6], "a")
    synthetic.write_labels(tmp_path, Path(other), [6], "b")
    merge = tmp_path / "all.json"
    merge.write_text(json.dumps({"sources": ["a", "b"], "output_repo_id": "me/all"}))
    _frames(merge, "--out", tmp_path / "out", "--every", 10)
    assert _names(tmp_path / "out") == ["a", "b"]
    assert _names(tmp_path / "out/b") == ["episode_000000", "episode_000000.jpg"]
    with pytest.raises(UserError, match="--episodes needs one dataset"):
        _frames(merge, "--out", tmp_path / "out2", "--episodes", 0)


def test_a_dataset_is_found_by_its_name_under_the_data_root(counted: Path, tmp_path: Path) -> None:
    shutil.copytree(counted, tmp_path / "data/datasets/me/grasp")
    result = _frames("me/grasp", "--out", tmp_path / "out", "--every", 10, "--data", tmp_path / "data")
    assert result["episodes"] == 3


# --- what is there already --------------------------------------------------------------------------------


def test_episodes_can_be_added_and_are_replaced_only_when_asked(counted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _frames(counted, "--out", out, "--every", 10, "--episodes", 0)
    _frames(counted, "--out", out, "--every", 10, "--episodes", 1)
    with pytest.raises(UserError, match=r"has episode_000000 and 1 more already; .*--replace"):
        _frames(counted, "--out", out, "--every", 5)
    assert len(_names(out / "episode_000000")) == 2 and not (out / "episode_000002").exists()
    _frames(counted, "--out", out, "--every", 5, "--replace")
    assert len(_names(out / "episode_000000")) == 4
    assert len(_names(out)) == 6


def test_a_folder_for_something_else_is_left_alone(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other things; choose a new or empty folder"):
        _frames(counted, "--out", tmp_path)
    assert _names(tmp_path) == ["thesis.tex"]


def test_notes_among_the_frames_are_never_deleted(counted: Path, tmp_path: Path) -> None:
    _frames(counted, "--out", tmp_path / "out", "--episodes", 0)
    notes = tmp_path / "out/episode_000000/notes.txt"
    notes.write_text("success from 12")
    with pytest.raises(UserError, match=r"notes\.txt is not a frame"):
        _frames(counted, "--out", tmp_path / "out", "--episodes", 0, "--replace")
    assert notes.read_text() == "success from 12"


def test_an_episode_whose_video_ends_early_is_not_half_written(counted: Path, tmp_path: Path) -> None:
    path = shutil.copytree(counted, tmp_path / "set")
    videos = Path(path) / f"videos/chunk-000/{KEY}"
    shutil.copy(videos / "episode_000000.mp4", videos / "episode_000002.mp4")
    with pytest.raises(UserError, match="episode 2: the video ends after 20 frames"):
        _frames(path, "--out", tmp_path / "out", "--episodes", "1-2")
    assert _names(tmp_path / "out") == ["episode_000001", "episode_000001.jpg"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--episodes", "0,x"], "numbers and ranges are due, such as 0,3,7-9"),
        (["--episodes", "2-1"], "numbers and ranges are due"),
        (["--episodes", "7"], r"no episode 7 .*there are 0 to 2"),
        (["--crop", "0", "0", "480", "480"], "within frames 48 high and 64 wide"),
        (["--size", "0", "8"], "--size 0 8: height and width from 1"),
        (["--crop", "0", "0", "8", "8", "--no-crop"], "exclude each other"),
        (["--camera", "wrist"], f"no camera 'wrist'; it has: {KEY}"),
    ],
)
def test_a_flag_that_does_not_fit_is_named_and_nothing_is_written(
    counted: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        _frames(counted, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


# --- the sheet --------------------------------------------------------------------------------------------


def test_a_sheet_of_a_very_long_episode_stays_a_picture_of_sensible_size() -> None:
    blank = np.full((48, 48, 3), 128, np.uint8)
    sheet = contact_sheet("long", [Tile(i, blank) for i in range(3 * MOST + 1)])
    assert sheet.shape[0] < 2**15 and sheet.shape[1] < 2200


def test_a_sheet_shows_each_picture_once_and_in_order() -> None:
    shades = [40, 90, 140, 190, 240]
    tiles = [Tile(i, np.full((48, 64, 3), shade, np.uint8)) for i, shade in enumerate(shades)]
    sheet = contact_sheet("short", tiles)
    for i, shade in enumerate(shades):
        rows, columns = np.nonzero(sheet[:, :, 0] == shade)
        assert TILE * 120 <= len(rows) < TILE * 125  # the letters' edges add a few
        assert (int(np.median(rows)) // 150, int(np.median(columns)) // 172) == (i // 3, i % 3)
