"""The built dataset is LeRobot's own, shows the sources' pictures, and a second build costs what changed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import columns, frames, open_dataset
from gripwire_trainer.datasets.build import PROVENANCE, Summary
from gripwire_trainer.datasets.parts import Parts
from tests.trainer import synthetic
from tests.trainer.building import STARTS, build, contents, merged, names, opened
from tests.trainer.synthetic import KEY, numbered, read_number

pytestmark = pytest.mark.usefixtures("lerobot_asks_nobody")

EXPECTED = [[40 * e + i for i in range(20 + e)] for e in range(3)]
VIDEOS = f"videos/{KEY}/chunk-000"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v3.0 dataset as LeRobot writes it: three episodes in one video and one file of rows."""
    root = tmp_path_factory.mktemp("packed") / "set"
    features = {
        KEY: {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    }
    made = LeRobotDataset.create(
        "me/packed", 10, features, root=root, robot_type="so101_follower", streaming_encoding=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=10), encoder_queue_maxsize=99,
    )  # fmt: skip
    for episode in range(3):
        for i in range(10 + episode):
            pair = np.array([i, -i], np.float32)
            row = {KEY: numbered(128 + 30 * episode + i), "observation.state": pair, "action": pair + 100}
            made.add_frame(row | {"task": f"grasp {episode}"})
        made.save_episode()
    made.finalize()
    return root


@pytest.fixture(scope="module")
def built(counted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """The v3.0 reward dataset of the counted one, and what was said of it."""
    folder = tmp_path_factory.mktemp("built")
    summary = build(folder, synthetic.write_labels(folder, counted, STARTS))
    return Path(summary.dataset), summary


def _shown(item: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(item[KEY].permute(1, 2, 0))


# --- what is built ----------------------------------------------------------------------------------------


def test_lerobot_opens_it_and_every_row_shows_its_own_picture(
    counted: Path, built: tuple[Path, Summary]
) -> None:
    dataset, source = opened(built[0]), open_dataset(counted)
    row = 0
    for number, episode in source.episodes.items():
        action = columns(episode, ["action"])["action"]
        for i, picture in enumerate(frames(source, episode, KEY)):
            item = dataset[row]
            assert np.array_equal(_shown(item), picture) and read_number(picture) == EXPECTED[number][i]
            assert item["timestamp"].item() == pytest.approx(i / 10)
            stands = (number, i, row, 0)
            assert (
                tuple(item[key].item() for key in ("episode_index", "frame_index", "index", "task_index"))
                == stands
            )
            assert np.array_equal(item["action"], action[i]) and item["task"] == "grasp"
            start = STARTS[number]
            assert item["next.reward"].item() == float(start is not None and i >= start)
            row += 1
    assert len(dataset) == row == built[1].frames == 63 and dataset.num_episodes == built[1].episodes == 3
    assert dataset.meta.robot_type == "so101_follower"
    reward = dataset.meta.features["next.reward"]
    assert (reward["dtype"], reward["shape"]) == ("float32", (1,)) and dataset[0]["next.reward"].shape == ()


def test_its_videos_are_the_sources_own_but_not_the_sources_files(
    counted: Path, built: tuple[Path, Summary]
) -> None:
    for number in range(3):
        source = counted / f"videos/chunk-000/{KEY}/episode_{number:06d}.mp4"
        video = built[0] / VIDEOS / f"file-{number:03d}.mp4"
        assert video.read_bytes() == source.read_bytes()
        assert source.stat().st_nlink == 1 and not video.samefile(source)
    assert (built[1].videos_copied, built[1].videos_restamped, built[1].videos_encoded) == (3, [], [])
    assert built[1].codecs == {KEY: ["h264"]}


def test_statistics_are_those_of_all_its_rows(counted: Path, built: tuple[Path, Summary]) -> None:
    stats, source = opened(built[0]).meta.stats, open_dataset(counted)
    rewards = np.concatenate([np.arange(20) >= 5, np.zeros(21), np.arange(22) >= 21])
    assert stats["next.reward"]["mean"] == pytest.approx([rewards.mean()])
    assert stats["next.reward"]["std"] == pytest.approx([rewards.std()])
    seen = np.concatenate([list(frames(source, e, KEY)) for e in source.episodes.values()]) / 255
    assert stats[KEY]["mean"].ravel() == pytest.approx(seen.mean((0, 1, 2)), abs=1e-5)
    assert stats[KEY]["std"].ravel() == pytest.approx(seen.std((0, 1, 2)), abs=1e-5)
    assert stats[KEY]["mean"].shape == (3, 1, 1) and "q99" in stats[KEY] and "q99" in stats["action"]


def test_statistics_of_pictures_are_taken_from_a_source_that_has_them(counted: Path, tmp_path: Path) -> None:
    source = shutil.copytree(counted, tmp_path / "set")
    told = {"min": 0.0, "max": 1.0, "mean": 0.123, "std": 0.0}
    lines = [
        {"episode_index": e, "stats": {KEY: {k: [[[v]]] * 3 for k, v in told.items()} | {"count": [9]}}}
        for e in range(3)
    ]
    (source / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary = build(tmp_path, synthetic.write_labels(tmp_path, source, STARTS))
    stats = opened(Path(summary.dataset)).meta.stats
    assert stats[KEY]["mean"].ravel() == pytest.approx([0.123] * 3) and stats[KEY]["count"] == [27]


def test_sources_of_both_versions_and_codecs_make_one_dataset(
    counted: Path, packed: Path, tmp_path: Path
) -> None:
    shown = [[numbered(7 * i) for i in range(12)]]
    av1 = synthetic.write_v21(tmp_path / "av1", shown, codec="libsvtav1")
    before = {source: contents(source) for source in (av1, packed)}
    merge = merged(
        tmp_path,
        synthetic.write_labels(tmp_path, counted, [5], "h264"),
        synthetic.write_labels(tmp_path, packed, [4, None, 6], "packed"),
        synthetic.write_labels(tmp_path, av1, [3], "av1"),
    )
    summary = build(tmp_path, merge)
    root = Path(summary.dataset)
    assert names(root / VIDEOS) == ["file-000.mp4", "file-001.mp4", "file-002.mp4"]  # one for all of packed
    assert (root / VIDEOS / "file-001.mp4").read_bytes() == next(packed.rglob("*.mp4")).read_bytes()
    assert (summary.codecs[KEY], summary.videos_restamped, summary.videos_encoded) == (
        ["av1", "h264"],
        [],
        [],
    )
    dataset, row = opened(root), 0
    assert dataset.meta.features[KEY]["info"]["video.codec"] is None  # LeRobot has one for all, or none
    for path, numbers in ((counted, [0]), (packed, [0, 1, 2]), (av1, [0])):
        source = open_dataset(path)
        for number in numbers:
            for picture in frames(source, source.episodes[number], KEY):
                assert np.array_equal(_shown(dataset[row]), picture)
                row += 1
    assert len(dataset) == row
    assert [t[0] for t in dataset.meta.episodes["tasks"]] == [
        "grasp",
        "grasp 0",
        "grasp 1",
        "grasp 2",
        "grasp",
    ]
    assert [dataset[i]["task"] for i in (19, 20, 30)] == ["grasp", "grasp 0", "grasp 1"]
    assert before == {source: contents(source) for source in (av1, packed)}


def test_what_was_built_can_be_built_upon(built: tuple[Path, Summary], tmp_path: Path) -> None:
    root = Path(build(tmp_path, synthetic.write_labels(tmp_path, built[0], [None, 3])).dataset)
    dataset = open_dataset(root)
    assert (dataset.version, dataset.lengths) == ("v3.0", {0: 20, 1: 21})
    assert [read_number(f) for f in frames(dataset, dataset.episodes[1], KEY)] == EXPECTED[1]
    assert columns(dataset.episodes[1], ["next.reward"])["next.reward"].sum() == 18


def test_columns_that_differ_between_sources_are_left_out_and_told(counted: Path, tmp_path: Path) -> None:
    other = shutil.copytree(counted, tmp_path / "other")
    info = json.loads((other / "meta/info.json").read_text())
    info["features"]["action"]["names"] = ["b", "a"]  # the same numbers, another meaning
    (other / "meta/info.json").write_text(json.dumps(info))
    first = synthetic.write_labels(tmp_path, counted, STARTS, "a")
    summary = build(tmp_path, merged(tmp_path, first, synthetic.write_labels(tmp_path, other, STARTS, "b")))
    assert summary.left_out == ["action"] and "left out: action" in summary.as_text()
    assert "action" not in opened(Path(summary.dataset)).meta.features
    assert summary.videos_copied == 3  # the same pictures are there once


def test_numbers_in_brackets_are_read_and_other_types_are_named(counted: Path, tmp_path: Path) -> None:
    source = shutil.copytree(counted, tmp_path / "set")
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["grip"] = {"dtype": "float32", "shape": [1], "names": None}
    (source / "meta/info.json").write_text(json.dumps(info))
    file = source / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(file)
    labelled = synthetic.write_labels(tmp_path, source, [5])
    pq.write_table(table.append_column("grip", pa.array([[float(i)] for i in range(20)])), file)
    root = Path(build(tmp_path, labelled).dataset)
    assert opened(root)[7]["grip"].item() == 7
    pq.write_table(table.append_column("grip", pa.array(["open"] * 20)), file)
    with pytest.raises(UserError, match=r"episode_000000.parquet: episode 0: the column grip cannot be read"):
        build(tmp_path, labelled)


def test_pictures_that_came_when_they_came_are_found_by_lerobot(tmp_path: Path) -> None:
    path = synthetic.write_v21(tmp_path / "set", [[numbered(5 * i) for i in range(20)]])
    video = path / f"videos/chunk-000/{KEY}/episode_000000.mp4"
    _stamp_unevenly(video)
    source = open_dataset(path)
    before = list(frames(source, source.episodes[0], KEY))
    assert len(before) == 20
    summary = build(tmp_path, synthetic.write_labels(tmp_path, path, [5]))
    dataset = opened(Path(summary.dataset))
    assert all(np.array_equal(_shown(dataset[i]), picture) for i, picture in enumerate(before))
    (why,) = summary.videos_restamped
    assert str(video) in why and "not encoded again" in why and why in summary.as_text()
    again = build(tmp_path, synthetic.write_labels(tmp_path, path, [6]))
    assert (again.videos_linked, again.videos_restamped) == (1, [])


def _stamp_unevenly(video: Path) -> None:
    """Shift every picture by up to a third of a frame, as a camera does that is read when it can."""
    away = video.with_name("away.mp4")
    rng = np.random.default_rng(1)
    with av.open(str(video)) as container, av.open(str(away), "w") as out:
        stream = container.streams.video[0]
        target = out.add_stream_from_template(stream)
        step = round(1 / (10 * stream.time_base))
        late = {i: int(rng.integers(0, step // 3)) for i in range(99)}
        for packet in container.demux(stream):
            if packet.size:
                packet.pts += late[packet.pts // step]
                packet.stream = target
                out.mux(packet)
    away.replace(video)


def test_a_merge_without_success_is_built_with_a_warning(counted: Path, tmp_path: Path) -> None:
    summary = build(tmp_path, synthetic.write_labels(tmp_path, counted, [None, None]))
    assert "no frame is labelled success" in summary.warnings[0]
    summary = build(tmp_path, synthetic.write_labels(tmp_path, counted, [0, 0]))
    assert "every frame is labelled success" in summary.warnings[0]


# --- what a second build costs -----------------------------------------------------------------------------


def test_the_same_content_is_found_and_a_changed_label_touches_its_own_rows(
    counted: Path, tmp_path: Path
) -> None:
    first = build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS))
    assert (first.rows_made, first.found) == (3, False)
    again = build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS))
    assert again.found and again.dataset == first.dataset
    second = build(tmp_path, synthetic.write_labels(tmp_path, counted, [5, 7, 21]))
    assert second.dataset != first.dataset
    assert (second.rows_made, second.videos_linked, second.videos_copied) == (1, 3, 0)
    old, new = contents(Path(first.dataset)), contents(Path(second.dataset))
    changed = {name for name in new if not name.startswith("meta/") and new[name] != old[name]}
    assert changed == {"data/chunk-000/file-001.parquet"}
    for name in names(Path(first.dataset) / VIDEOS):
        assert (Path(first.dataset) / VIDEOS / name).samefile(Path(second.dataset) / VIDEOS / name)
    assert opened(Path(second.dataset)).meta.stats["next.reward"]["mean"] == pytest.approx([30 / 63])


def test_an_episode_more_links_all_the_videos_there_were(counted: Path, tmp_path: Path) -> None:
    source = synthetic.write_labels(tmp_path, counted, STARTS)
    source.write_text(source.read_text().replace('"0": {"success_start": 5}, ', ""))
    assert build(tmp_path, source).videos_copied == 2
    summary = build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS))
    assert (summary.videos_copied, summary.videos_linked) == (1, 2)
    dataset = open_dataset(Path(summary.dataset))
    assert [[read_number(f) for f in frames(dataset, e, KEY)] for e in dataset.episodes.values()] == EXPECTED


def test_a_built_dataset_changed_in_place_changes_no_source_and_no_later_build(
    counted: Path, tmp_path: Path
) -> None:
    before = contents(counted)
    first = Path(build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS)).dataset)
    kept = contents(first)
    for name in (f"{VIDEOS}/file-000.mp4", "data/chunk-000/file-002.parquet"):
        with (first / name).open("r+b") as file:  # the very file, as pandas and an editor open it
            file.write(b"ruined")
    assert contents(counted) == before
    second = build(tmp_path, synthetic.write_labels(tmp_path, counted, [6, None, 21]))
    assert (second.videos_copied, second.videos_linked, second.rows_made) == (1, 2, 1)
    third = Path(build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS), "third").dataset)
    assert {n: c for n, c in contents(third).items() if n.endswith((".mp4", ".parquet"))} == {
        n: c for n, c in kept.items() if n.endswith((".mp4", ".parquet"))
    }


def test_what_was_built_and_changed_since_is_not_taken_for_what_was_built(
    counted: Path, tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path, counted, STARTS)
    root = Path(build(tmp_path, file).dataset)
    (root / "meta/README").touch()
    with pytest.raises(UserError, match="changed since"):
        build(tmp_path, file)
    (root / "meta/README").unlink()
    assert build(tmp_path, file).found


def test_videos_that_no_dataset_holds_any_more_are_dropped(counted: Path, tmp_path: Path) -> None:
    parts = tmp_path / "cache/datasets/videos"
    gone = build(tmp_path, synthetic.write_labels(tmp_path, counted, [5, None]))
    kept = len([*parts.glob("*/*")])
    shutil.rmtree(gone.dataset)
    build(tmp_path, synthetic.write_labels(tmp_path, counted, [5]))
    assert (kept, len([*parts.glob("*/*")])) == (2, 1)


def test_what_is_kept_takes_little_room_and_can_be_dropped(counted: Path, tmp_path: Path) -> None:
    summary = build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS))
    parts = Parts(tmp_path / "cache/datasets")
    rows = sum(p.stat().st_size for p in Path(summary.dataset).rglob("file-*.parquet") if "data" in p.parts)
    files, size = parts.usage()
    assert files == 3 * 2 + 6 and rows < size < rows + 60_000  # rows and records; videos are the dataset's
    before = contents(Path(summary.dataset))
    assert parts.clear() == size and parts.usage() == (0, 0)
    assert contents(Path(summary.dataset)) == before


def test_a_disk_without_hard_links_gets_copies(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    build(tmp_path, synthetic.write_labels(tmp_path, counted, STARTS))
    summary = build(tmp_path, synthetic.write_labels(tmp_path, counted, [5, 7, 21]))
    assert (summary.videos_copied, summary.videos_linked, summary.rows_made) == (3, 0, 1)
    assert len(opened(Path(summary.dataset))) == 63


def test_it_says_of_what_it_was_built(counted: Path, built: tuple[Path, Summary]) -> None:
    told = json.loads((built[0] / "meta" / PROVENANCE).read_text())
    taken = [{"dataset": str(counted), "episode": e, "frames": 20 + e} for e in range(3)]
    assert told["episodes"] == taken and told["id"] == built[1].id in built[0].name
