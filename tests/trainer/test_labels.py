"""Label files: what is right is read exactly, what is odd is named with its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire_trainer import labels

LENGTHS = {0: 10, 1: 10, 2: 5}


def _source(folder: Path, episodes: Any, **more: Any) -> Path:
    file = folder / "grasps.json"
    file.write_text(json.dumps({"dataset_path": "../set", "episodes": episodes} | more))
    return file


def _truth(file: Path) -> dict[int, list[int]]:
    (source,) = labels.read(file).sources
    return {e: np.flatnonzero(s).tolist() for e, s in labels.truth(source, LENGTHS).items()}


def test_success_start_ranges_and_null_mean_what_they_say(tmp_path: Path) -> None:
    file = _source(tmp_path, {"0": {"success_start": 7}, "1": {"ranges": [[1, 2], [8, None]]}, "2": None})
    assert _truth(file) == {0: [7, 8, 9], 1: [1, 2, 8, 9], 2: []}


def test_an_episode_not_mentioned_is_skipped_and_an_excluded_one_too(tmp_path: Path) -> None:
    file = _source(tmp_path, {"0": None, "2": None}, exclude=[0])
    assert _truth(file) == {2: []}


def test_an_excluded_episode_may_keep_its_label(tmp_path: Path) -> None:
    file = _source(tmp_path, {"0": {"success_start": 7}, "1": None}, exclude=[0, 2])
    assert _truth(file) == {1: []}


@pytest.mark.parametrize("episodes", [{}, {"7": None}])
def test_an_excluded_episode_that_the_dataset_lacks_is_named(tmp_path: Path, episodes: Any) -> None:
    said = r"grasps\.json: episode 7 under `exclude`: .* no such episode \(it has 0 to 2\)"
    with pytest.raises(UserError, match=said):
        _truth(_source(tmp_path, episodes, exclude=[7]))


def test_a_range_end_is_inclusive_and_the_last_frame_may_be_it(tmp_path: Path) -> None:
    assert _truth(_source(tmp_path, {"2": {"ranges": [[4, 4]]}})) == {2: [4]}


def test_dataset_paths_are_relative_to_the_file_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    relative = labels.read(_source(tmp_path / "labels", {}))
    assert relative.sources[0].dataset == tmp_path / "set"
    file = tmp_path / "absolute.json"
    file.write_text(json.dumps({"dataset_path": str(tmp_path / "elsewhere"), "episodes": {}}))
    assert labels.read(file).sources[0].dataset == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ({"1": {"success_start": 10}}, r"episode 1: \[10, null\] goes beyond .* 0 to 9"),
        ({"2": {"ranges": [[0, 5]]}}, r"episode 2: \[0, 5\] goes beyond .* 0 to 4"),
        ({"7": None}, "episode 7: .* no such episode"),
        ({"0": {"ranges": [[3, 2]]}}, r"episode 0: .*\[3, 2\] ends before it starts"),
        ({"0": {"ranges": [[1, 4], [4, 6]]}}, r"episode 0: .*\[1, 4\] and \[4, 6\] overlap"),
        ({"0": {"ranges": [[1, None], [4, 6]]}}, "episode 0: .*overlap"),
        ({"0": {"ranges": []}}, "episode 0: .*ranges"),
        ({"0": {"success_strat": 3}}, "episode 0: .*success_strat"),
        ({"0": {"success_start": 3, "note": "good"}}, "episode 0: unknown key `note`"),
        ({"0": {"success_start": 3, "ranges": [[1, 2]]}}, "episode 0: .*ranges, success_start"),
        ({"0": {"success_start": -1}}, "episode 0: `success_start`"),
        ({"0": {"success_start": "3"}}, "episode 0: `success_start`"),
        ({"0": {"success_start": True}}, "episode 0: `success_start`"),
        ({"0": {"success_start": 2.0}}, "episode 0: `success_start`"),
        ({"0": {"ranges": [[1, 2, 3]]}}, r"episode 0: `ranges\[0\]"),
        ({"0": {"ranges": [[1]]}}, r"episode 0: `ranges\[0\]\[1\]` is missing"),
        ({"0": {"ranges": [[1, 2], [4, "5"]]}}, r'episode 0: `ranges\[1\]\[1\]` is "5"'),
        ({"0": {"success_start": 10**30}}, "episode 0: `success_start`"),
        ({"0": {}}, "episode 0: .* this has nothing"),
        ({"9" * 5000: None}, "not an episode number"),
        ({"\ud800": {"ranges": 4}}, "`ranges` is 4"),
        ({"0": False}, "episode 0: "),
        ({"0": []}, "episode 0: "),
        ({"one": None}, '"one" .* not an episode number'),
        ({"00": None}, '"00" .* not an episode number'),
    ],
)
def test_an_odd_label_names_file_episode_and_place(tmp_path: Path, episodes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        _truth(_source(tmp_path, episodes))
    assert "grasps.json" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_key_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key `episode`"):
        labels.read(_source(tmp_path, {}, episode={}))


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ('{"0": null, "0": {"success_start": 1}}', '"0" is given twice under `episodes`'),
        ('{"7": {"success_start": 1, "success_start": 2}}', '"success_start" is given twice in episode 7'),
        ('{}, "episodes": {"0": null}', '"episodes" is given twice'),
    ],
)
def test_a_key_given_twice_is_an_error_not_the_last_one_wins(
    tmp_path: Path, episodes: str, said: str
) -> None:
    file = tmp_path / "twice.json"
    file.write_text(f'{{"dataset_path": "x", "episodes": {episodes}}}')
    with pytest.raises(UserError, match=said):
        labels.read(file)


def test_a_misspelt_key_is_named_rather_than_called_missing(tmp_path: Path) -> None:
    file = tmp_path / "typo.json"
    file.write_text('{"dataset": "x", "episodes": {}}')
    with pytest.raises(UserError, match="unknown key `dataset`; known: dataset_path, episodes, exclude"):
        labels.read(file)


@pytest.mark.parametrize(
    ("exclude", "said"), [([1, 1], "episode 1 stands twice"), (["1"], r"`exclude\[0\]`"), (None, "`exclude`")]
)
def test_an_odd_exclude_is_an_error(tmp_path: Path, exclude: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        labels.read(_source(tmp_path, {}, exclude=exclude))


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = _source(tmp_path, {"0": {"success_start": 7}})
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert _truth(file) == {0: [7, 8, 9]}


def test_a_path_that_leads_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    file = tmp_path / "grasps.json"
    file.write_text('{"dataset_path": "round", "episodes": {}}')
    with pytest.raises(UserError, match=r"grasps\.json: the path `round` leads nowhere"):
        labels.read(file)


def test_bad_json_is_named_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{\n "dataset_path": "x",\n "episodes": {"0": nul}\n}')
    with pytest.raises(UserError, match=r"bad\.json:3:\d+"):
        labels.read(file)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"]
)
def test_what_is_no_label_file_is_one_plain_sentence(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "odd.json"
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"odd\.json"):
        labels.read(file)


def test_a_merge_names_its_sources_with_or_without_json(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"dataset_path": f"../{name}", "episodes": {"0": None}})
        )
    merge = tmp_path / "merge.json"
    merge.write_text(json.dumps({"sources": ["a", "b.json"], "output_repo_id": "me/all"}))
    read = labels.read(merge)
    assert read.name == "me/all"
    assert [s.file.name for s in read.sources] == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ({"sources": ["a", "c"], "output_repo_id": "me/all"}, "its source `c` is missing"),
        ({"sources": ["c" * 5000], "output_repo_id": "me/all"}, "its source `ccc.* is missing"),
        ({"sources": ["c\0"], "output_repo_id": "me/all"}, "sources"),
        ({"sources": ["a", "a.json"], "output_repo_id": "me/all"}, "named twice"),
        ({"sources": ["a", "again"], "output_repo_id": "me/all"}, "label the same dataset"),
        ({"sources": [], "output_repo_id": "me/all"}, "sources"),
        ({"sources": ["."], "output_repo_id": "me/all"}, "is missing"),
        (
            {"sources": ["merge"], "output_repo_id": "me/all"},
            "a merge file stands where a source file is due",
        ),
        ({"sources": ["a"]}, "`output_repo_id` is missing"),
        ({"sources": ["a"], "output_repo_id": "../out"}, "output_repo_id"),
        ({"sources": ["a"], "output_repo_id": "me/all", "outputs": 1}, "unknown key `outputs`"),
    ],
)
def test_an_odd_merge_says_what_is_wrong(tmp_path: Path, merge: dict[str, Any], said: str) -> None:
    for name in ("a", "again"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"dataset_path": "../set", "episodes": {}}))
    file = tmp_path / "merge.json"
    file.write_text(json.dumps(merge))
    with pytest.raises(UserError, match=said):
        labels.read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such label file"):
        labels.read(tmp_path / "none.json")


def test_labels_read_off_every_third_frame_leave_two_frames_open_at_each_edge() -> None:
    success = np.zeros(20, bool)
    success[6:13] = True
    assert np.flatnonzero(labels.uncertain(success, 3)).tolist() == [4, 5, 13, 14]
    assert not labels.uncertain(success, 1).any()


def _edges(folder: Path, *ranges: list[list[int | None]]) -> labels.Source:
    episodes = {str(i): {"ranges": r} for i, r in enumerate(ranges)}
    return labels.read(_source(folder, episodes)).sources[0]


def test_labels_read_off_every_third_frame_are_recognised(tmp_path: Path) -> None:
    source = _edges(tmp_path, [[21, 30], [42, 51]], [[0, 27], [33, 36], [60, None]])
    assert labels.reading_step([source]) == 3


def test_one_edge_that_does_not_fit_means_that_every_frame_was_read(tmp_path: Path) -> None:
    source = _edges(tmp_path, [[21, 30], [42, 51]], [[0, 27], [33, 36], [61, None]])
    assert labels.reading_step([source]) == 1


def test_few_edges_or_always_the_same_ones_are_no_sign(tmp_path: Path) -> None:
    few = _edges(tmp_path, [[21, 30], [42, 51]], [[0, 27], [33, None]], [[60, None]])
    assert labels.reading_step([few]) == 1
    scripted = _edges(tmp_path, *[[[20, 40]]] * 10)
    assert labels.reading_step([scripted]) == 1
    assert labels.reading_step([]) == 1


def test_several_sources_are_judged_together_and_no_step_is_above_ten(tmp_path: Path) -> None:
    one = _edges(tmp_path, [[12, 24], [48, 60]])
    other = _edges(tmp_path, [[36, 72], [84, 96]])
    assert labels.reading_step([one, other]) == 6
    assert labels.reading_step([one]) == 1
