"""What people said while they recorded becomes a label file."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gripwire.errors import UserError
from gripwire.messages import Label, MarkEpisode
from gripwire_recorder import verdicts

SUCCESS, FAILURE = MarkEpisode(success=True, by="me"), MarkEpisode(success=False)


@pytest.fixture
def dataset(tmp_path):
    """Makes a recorded dataset: by episode its rows' verdicts, and those that its notes tell."""
    folder, labels = tmp_path / "datasets" / "grasps", tmp_path / "labels"

    def make(*episodes):
        (folder / "meta").mkdir(parents=True)
        (folder / "data").mkdir()
        rows = [(e, f, v) for e, (values, _) in enumerate(episodes) for f, v in enumerate(values)]
        columns = zip(*rows, strict=True)
        names = ("episode_index", "frame_index", "gripwire.verdict")
        pq.write_table(
            pa.table(dict(zip(names, map(list, columns), strict=True))), folder / "data" / "0.parquet"
        )
        notes = [json.dumps({"episode": e, "verdicts": said}) + "\n" for e, (_, said) in enumerate(episodes)]
        (folder / "meta" / "gripwire.jsonl").write_text("".join(notes))
        return folder, labels

    return make


def entries(folder, labels):
    out = labels / "grasps.json"
    count, left = verdicts.label_file(folder, labels, out)
    content = json.loads(out.read_text())
    assert (out.parent / content["dataset_path"]).resolve() == folder and count == len(content["episodes"])
    return content["episodes"], content.get("exclude", []), left


def test_success_from_a_moment_on_until_it_was_taken_back(dataset):
    yes, no = verdicts.verdict(SUCCESS), verdicts.verdict(FAILURE)
    folder, labels = dataset(
        ([-1, -1, 1, 1], [yes]), ([1, 1, 0, 1], [yes, no, yes]), ([-1, 0, 0, 0], [no]), ([-1] * 4, [])
    )
    assert entries(folder, labels) == (
        {"0": {"ranges": [[2, 3]]}, "1": {"ranges": [[0, 1], [3, 3]]}, "2": None}, [], [3],
    )  # fmt: skip


def test_what_was_said_afterwards_is_about_the_whole_episode(dataset):
    folder, labels = dataset(([-1] * 4, []), ([-1, 1, 1, 1], []), ([-1] * 4, []), ([-1] * 4, []))
    verdicts.keep(labels, "grasps", 0, verdicts.verdict(FAILURE))
    verdicts.keep(labels, "grasps", 1, verdicts.verdict(FAILURE))
    verdicts.keep(labels, "grasps", 2, verdicts.verdict(SUCCESS))
    verdicts.keep(labels, "grasps", 3, verdicts.verdict(MarkEpisode(reject=True)))
    assert entries(folder, labels) == ({"0": None, "1": None}, [3], [2])


def test_of_labelled_ranges_the_later_word_wins(dataset):
    folder, labels = dataset(
        ([-1] * 10, []),
    )
    for success, start, end in ((True, 2, 8), (False, 4, 5), (True, 9, None)):
        label = Label(success=success, start=start, end=end)
        verdicts.keep(labels, "grasps", 0, verdicts.of_label(label))
    assert entries(folder, labels)[0] == {"0": {"ranges": [[2, 3], [6, None]]}}


def test_a_file_that_exists_is_kept_and_nothing_said_is_no_label_file(dataset):
    folder, labels = dataset(
        ([-1] * 4, []),
    )
    with pytest.raises(UserError, match="nobody has said"):
        verdicts.label_file(folder, labels, labels / "grasps.json")
    labels.mkdir()
    (labels / "grasps.json").write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        verdicts.label_file(folder, labels, labels / "grasps.json")
    with pytest.raises(UserError, match=re.escape("was not recorded by gripwire")):
        verdicts.label_file(folder.parent, labels, labels / "new.json")
