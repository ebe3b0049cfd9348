"""`gripwire labels check`: figures, what is wrong with labels or datasets, and what is worth a look."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from gripwire_reward.datasets import open_dataset
from gripwire_trainer.labelling.check import check
from gripwire_trainer.labelling.cli import app
from gripwire_trainer.labelling.damage import damage
from tests.trainer import synthetic
from tests.trainer.synthetic import FPS, KEY

VIDEO = f"videos/chunk-000/{KEY}/episode_{{:06d}}.mp4"
ROWS = "data/chunk-000/episode_{:06d}.parquet"


def _run(*args: str) -> Result:
    return CliRunner().invoke(app, ["check", *args], env={"COLUMNS": "80", "GRIPWIRE_CONFIG": ""})


def _labels(folder: Path, dataset: Path, episodes: dict[str, Any], name: str = "grasps") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"dataset_path": str(dataset), "episodes": episodes}))
    return file


def _merge(folder: Path, *names: str) -> Path:
    file = folder / "all.json"
    file.write_text(json.dumps({"sources": names, "output_repo_id": "me/all"}))
    return file


@pytest.fixture
def broken(counted: Path, tmp_path: Path) -> Path:
    """A dataset of episodes of 20, 21 and 22 frames that a test may damage."""
    return Path(shutil.copytree(counted, tmp_path / "set"))


# --- figures ----------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_source_and_a_total(counted: Path, broken: Path, tmp_path: Path) -> None:
    _labels(tmp_path, counted, {"0": {"success_start": 15}, "1": None}, "grasps_of_monday")
    _labels(tmp_path, broken, {"2": {"ranges": [[3, 5]]}}, "grasps_of_tuesday")
    done = _run(str(_merge(tmp_path, "grasps_of_monday", "grasps_of_tuesday")))
    rows = [line.split() for line in done.stdout.splitlines()[:4]]
    assert rows == [
        ["labels", "episodes", "skipped", "frames", "success", "share"],
        ["grasps_of_monday", "2", "1", "41", "5", "12.2%"],
        ["grasps_of_tuesday", "1", "2", "22", "3", "13.6%"],
        ["total", "3", "3", "63", "8", "12.7%"],
    ]
    assert done.exit_code == 0 and max(map(len, done.stdout.splitlines()[:4])) <= 80


def test_a_label_file_is_found_by_its_name_under_the_data_root(counted: Path, tmp_path: Path) -> None:
    _labels(tmp_path / "labels", counted, {"0": {"success_start": 15}})
    done = _run("grasps", "--data", str(tmp_path), "--json")
    result = json.loads(done.stdout)
    assert done.exit_code == 0 and result["ok"] is True
    assert result["total"] == {"episodes": 1, "skipped": 2, "frames": 20, "success_frames": 5}


# --- doubtful places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"ranges": [[4, 4]]}, "episode 0, frame 4: success in one frame alone"),
        ({"ranges": [[2, 4], [6, 8]]}, "episode 0, frame 5: failure in one frame alone, between two ranges"),
        ({"ranges": [[2, 4], [5, 8]]}, "episode 0, frames 4 to 5: one range of success ends where the next"),
        ({"ranges": [[0, 4]]}, "episode 0, frames 0 to 4: success from the first frame on"),
        ({"success_start": 19}, "episode 0, frame 19: success begins on the last frame"),
        ({"success_start": 0}, "episode 0, frames 0 to 19: every frame is success"),
    ],
)
def test_a_doubtful_place_is_shown_and_the_labels_are_still_right(
    counted: Path, tmp_path: Path, label: Any, said: str
) -> None:
    done = _run(str(_labels(tmp_path, counted, {"0": label, "1": {"ranges": [[5, 9]]}})))
    assert done.exit_code == 0
    (line,) = done.stdout.split("worth a look:\n")[1].splitlines()
    assert line.startswith(f"  grasps.json: {said}")


def test_labels_without_oddities_have_no_doubtful_places(counted: Path, tmp_path: Path) -> None:
    file = _labels(tmp_path, counted, {"0": {"success_start": 7}, "1": {"ranges": [[5, 9], [13, 16]]}})
    assert check(file).doubtful == []


def test_of_labels_read_off_every_third_frame_places_seen_once_are_doubtful(
    counted: Path, tmp_path: Path
) -> None:
    episodes = {
        "0": {"ranges": [[3, 9], [15, None]]},  # 12 alone was read as failure
        "1": {"ranges": [[6, 12], [15, 18]]},  # nothing was read between
        "2": {"ranges": [[3, 3], [12, 18]]},  # 3 alone was read as success
    }
    report = check(_labels(tmp_path, counted, episodes))
    assert report.reading_step == 3
    whole, *places = report.doubtful
    assert "every 3rd frame was read: uncertain by 2 frames" in whole.why and whole.episode is None
    assert [(d.episode, d.frames, d.why) for d in places] == [
        (0, (10, 14), "failure seen once, reading every 3rd frame, between two ranges of success"),
        (1, (13, 14), "no 3rd frame between two ranges of success: are they one?"),
        (2, (3, 3), "success seen once, reading every 3rd frame"),
    ]


@pytest.mark.parametrize(("label", "missing"), [(None, "success"), ({"success_start": 0}, "failure")])
def test_labels_of_one_kind_only_are_doubtful(
    counted: Path, broken: Path, tmp_path: Path, label: Any, missing: str
) -> None:
    _labels(tmp_path, counted, {"0": label}, "one")
    _labels(tmp_path, broken, {"0": label}, "other")
    report = check(_merge(tmp_path, "one", "other"))
    said = [(d.file.name, d.why) for d in report.doubtful if d.episode is None]
    assert said[0] == ("all.json", f"no {missing} at all: training will refuse it")
    assert [name for name, why in said if why.startswith(f"no {missing} in any")] == [
        "one.json",
        "other.json",
    ]
    assert not report.errors


# --- errors -----------------------------------------------------------------------------------------------


def test_all_errors_are_told_at_once_and_the_exit_code_is_1(broken: Path, tmp_path: Path) -> None:
    (broken / VIDEO.format(0)).unlink()
    episodes = {"0": None, "1": {"success_start": 21}, "7": None, "2": {"success_start": 9}}
    done = _run(str(_labels(tmp_path, broken, episodes)), "--json")
    result = json.loads(done.stdout)
    beyond, unknown, video = result["errors"]
    assert done.exit_code == 1 and result["ok"] is False
    assert "grasps.json: episode 1: [21, null] goes beyond" in beyond
    assert "grasps.json: episode 7: the dataset" in unknown
    assert "episode_000000.mp4: the video of episode 0 is missing" in video
    assert done.stderr.count("error: ") == 3 and done.stderr.count("\n") == 3


def test_a_dataset_that_is_not_there_is_told_with_the_label_file(tmp_path: Path) -> None:
    (error,) = check(_labels(tmp_path, tmp_path / "gone", {"0": None})).errors
    assert "grasps.json: `dataset_path`: " in error and "not a LeRobot dataset" in error


def test_sources_of_different_rates_or_cameras_do_not_go_together(
    counted: Path, broken: Path, tmp_path: Path
) -> None:
    info = json.loads((broken / "meta/info.json").read_text())
    info["fps"] = 30
    info["features"][KEY]["shape"] = [96, 128, 3]
    (broken / "meta/info.json").write_text(json.dumps(info))
    _labels(tmp_path, counted, {"0": None}, "one")
    _labels(tmp_path, broken, {}, "other")
    rate, cameras = check(_merge(tmp_path, "one", "other")).errors
    assert "30 frames per second" in rate and "128x96" in cameras


def _drop_rows(path: Path) -> None:
    table = pq.read_table(path / ROWS.format(1))
    pq.write_table(table.slice(0, 15), path / ROWS.format(1))


def _longer_video(path: Path) -> None:
    """Episode 2 has 22 rows; the video of episode 0 has 20 frames."""
    shutil.copy(path / VIDEO.format(0), path / VIDEO.format(2))


def _set_info(path: Path, **values: Any) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | values))


def _set_shape(path: Path) -> None:
    features = open_dataset(path).features
    _set_info(path, features=features | {KEY: features[KEY] | {"shape": [480, 640, 3]}})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / VIDEO.format(1)).unlink(), "the video of episode 1 is missing"),
        (lambda p: (p / VIDEO.format(1)).write_bytes(b"no video"), "the video of episode 1 cannot be opened"),
        (lambda p: os.truncate(p / VIDEO.format(1), 900), "the video of episode 1 cannot be opened"),
        (_longer_video, "episode 2: the video has 20 frames for 22 rows"),
        (lambda p: (p / ROWS.format(1)).unlink(), "the rows of episode 1 are missing"),
        (lambda p: os.truncate(p / ROWS.format(1), 300), "the rows of episode 1 cannot be read"),
        (lambda p: shutil.copy(p / ROWS.format(0), p / ROWS.format(1)), "episode 1 has 0 rows"),
        (_drop_rows, "episode 1 has 15 rows, its description says 21"),
        (_set_shape, "a video of 64x48, the description says 640x480"),
        (lambda p: _set_info(p, fps=20), "a video of 10 frames per second beside rows at 20"),
    ],
)
def test_damaged_files_are_found_without_decoding(broken: Path, harm: Any, said: str) -> None:
    assert damage(open_dataset(broken), [0, 1, 2]) == []
    harm(broken)
    found = damage(open_dataset(broken), [0, 1, 2])
    assert said in found[0]
    assert all("; " in line and "\n" not in line for line in found)


def test_what_is_wrong_with_a_skipped_episode_does_not_matter(broken: Path, tmp_path: Path) -> None:
    (broken / VIDEO.format(1)).unlink()
    assert check(_labels(tmp_path, broken, {"0": None, "2": {"success_start": 9}})).errors == []


def _remux(video: Path, without: int | None = None) -> None:
    """Write the file anew, its index in front as after a download; ``without``: that packet is dropped."""
    front = video.with_name("front.mp4")
    with av.open(str(video)) as read, av.open(str(front), "w", options={"movflags": "faststart"}) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.dts is not None and number != without:
                packet.stream = stream
                write.mux(packet)
    front.replace(video)


def test_a_copy_that_broke_off_is_found_although_its_header_promises_all_frames(broken: Path) -> None:
    video = broken / VIDEO.format(1)
    _remux(video)
    assert damage(open_dataset(broken), [1]) == []
    os.truncate(video, video.stat().st_size - 400)
    (said,) = damage(open_dataset(broken), [1])
    assert "episode 1: the video has" in said and "for 21 rows" in said


def test_a_frame_lost_in_the_middle_is_found_although_the_end_is_there(broken: Path) -> None:
    _remux(broken / VIDEO.format(2), without=11)
    (said,) = damage(open_dataset(broken), [2])
    assert "episode 2: the video has 21 frames for 22 rows" in said


@pytest.fixture
def packed(broken: Path) -> Path:
    """A v3.0 dataset: episodes 0 (20 frames) and 1 (21 frames) in one video and one parquet file."""
    shown = [synthetic.numbered(i) for i in range(41)]
    synthetic.write_v21(broken.parent / "long", [shown])
    path = broken.parent / "packed"
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{KEY}/chunk-000"):
        (path / folder).mkdir(parents=True)
    shutil.copy(broken.parent / "long" / VIDEO.format(0), path / f"videos/{KEY}/chunk-000/file-000.mp4")
    pq.write_table(pa.table({"episode_index": [0] * 20 + [1] * 21}), path / "data/chunk-000/file-000.parquet")
    zero = [0, 0]
    rows = {
        "episode_index": [0, 1], "length": [20, 21], "tasks": [["grasp"]] * 2,
        "data/chunk_index": zero, "data/file_index": zero,
        f"videos/{KEY}/chunk_index": zero, f"videos/{KEY}/file_index": zero,
        f"videos/{KEY}/from_timestamp": [0.0, float(Fraction(20, FPS))],
    }  # fmt: skip
    pq.write_table(pa.table(rows), path / "meta/episodes/chunk-000/file-000.parquet")
    shutil.copy(broken / "meta/info.json", path / "meta/info.json")
    _set_info(
        path,
        codebase_version="v3.0",
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )
    return path


def test_of_episodes_packed_into_one_file_the_short_one_is_named(packed: Path) -> None:
    assert damage(open_dataset(packed), [0, 1]) == []
    shorter = [synthetic.numbered(i) for i in range(33)]
    synthetic.write_v21(packed.parent / "shorter", [shorter])
    shutil.copy(packed.parent / "shorter" / VIDEO.format(0), packed / f"videos/{KEY}/chunk-000/file-000.mp4")
    (said,) = damage(open_dataset(packed), [0, 1])
    assert "episode 1: the video has 13 frames for 21 rows" in said
    assert damage(open_dataset(packed), [0]) == []


def test_a_file_that_holds_several_episodes_is_named_once(packed: Path) -> None:
    (packed / f"videos/{KEY}/chunk-000/file-000.mp4").unlink()
    os.truncate(packed / "data/chunk-000/file-000.parquet", 60)
    rows, video = damage(open_dataset(packed), [0, 1])
    assert "the rows of episodes 0, 1 cannot be read" in rows
    assert "the video of episodes 0, 1 is missing" in video
