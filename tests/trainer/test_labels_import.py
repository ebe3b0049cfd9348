"""The older text form becomes JSON that means the same, or an error with file and line and no file at all."""

import json
import os
import re
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gripwire.errors import UserError
from gripwire_trainer import labels
from gripwire_trainer.labelling import write_together
from gripwire_trainer.labelling.cli import app
from gripwire_trainer.labelling.importing import import_text

TEXT = """\
# labelled by hand

# dataset path: ../sets/grasp
00: 34-
01: all fail
# 02 was bad
14: 40-48, 60-     # let go and grasped again

# Dataset path: ../sets/misses
3: all fail
0:7-7
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "notes" / "labels.txt"
    file.parent.mkdir()
    file.write_text(TEXT)
    return file


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_text_form_means_the_same_as_json(text: Path, tmp_path: Path) -> None:
    done = import_text(text, tmp_path / "labels" / "all.json")
    read = labels.read(done.merge)
    assert read.name == "local/all"
    assert [source.dataset for source in read.sources] == [tmp_path / "sets/grasp", tmp_path / "sets/misses"]
    grasp, misses = (source.episodes for source in read.sources)
    assert grasp == {0: [(33, None)], 1: [], 14: [(39, 47), (59, None)]}
    assert misses == {3: [], 0: [(6, 6)]}


def test_sources_lie_beside_the_merge_file_under_their_datasets_names(text: Path, tmp_path: Path) -> None:
    import_text(text, tmp_path / "labels" / "all.json")
    assert _names(tmp_path / "labels") == ["all.json", "grasp.json", "misses.json"]
    written = json.loads((tmp_path / "labels/grasp.json").read_text())
    assert written["dataset_path"] == "../sets/grasp"
    assert written["episodes"]["0"] == {"success_start": 33}


def test_numbers_counted_on_every_third_frame_are_turned_into_frames(text: Path, tmp_path: Path) -> None:
    read = labels.read(import_text(text, tmp_path / "all.json", every=3).merge)
    assert read.sources[0].episodes == {0: [(99, None)], 1: [], 14: [(117, 141), (177, None)]}


def test_one_dataset_makes_a_merge_file_and_one_source(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("# dataset path: set\n0: 3-\n")
    done = import_text(tmp_path / "labels.txt", tmp_path / "set.json")
    assert [path.name for path in done.sources] != ["set.json"]
    assert labels.read(done.merge).sources[0].dataset == tmp_path / "set"


def test_datasets_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    paths = ("monday/grasp", "tuesday/grasp", "grip")
    (tmp_path / "labels.txt").write_text("\n".join(f"# dataset path: {path}\n0: 3-" for path in paths))
    done = import_text(tmp_path / "labels.txt", tmp_path / "all.json")
    assert [path.name for path in done.sources] == ["monday_grasp.json", "tuesday_grasp.json", "grip.json"]
    read = labels.read(done.merge).sources
    assert [source.dataset for source in read] == done.datasets


def test_an_absolute_path_stays_absolute(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(f"# dataset path: {tmp_path}/set\n0: 3-\n")
    done = import_text(tmp_path / "labels.txt", tmp_path / "out" / "all.json")
    assert json.loads(done.sources[0].read_text())["dataset_path"] == f"{tmp_path}/set"


def test_a_folder_that_is_a_link_still_leads_to_the_dataset(text: Path, tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep/er")
    done = import_text(text, tmp_path / "link" / "all.json")
    assert labels.read(done.merge).sources[0].dataset == tmp_path / "sets/grasp"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("00: 3x-", "3: episode 00: `3x-` is no range"),
        ("00: 40", r"3: episode 00: `40` is no range; write 40- \(to the end\) or 40-40"),
        ("00:", "3: episode 00: `` is no range"),
        ("00: 0-", "3: episode 00: `0-`: frames are counted from 1"),
        ("00: 48-40", "3: episode 00: `48-40` ends before it starts"),
        ("00: 40-48, 48-50", "3: episode 00: 40-48 and 48-50 overlap"),
        ("00: 40-, 50-60", "3: episode 00: 40- and 50-60 overlap"),
        ("00: 12345678901-", "3: episode 00: .* no episode has so many frames"),
        ("00: 3-\n0: all fail", "4: episode 0 of ../a stands here twice"),
        ("all fail", "3: `all fail` is no label"),
        ("x: 3-", "3: `x: 3-` is no label"),
        ("00: 3-\n# dataset path: ../a\n00: 4-", "4: ../a has a header at line 2 already"),
        ("00: 3-\n# dataset path: ../b/../a\n00: 4-", "4: ../b/../a is the same dataset as ../a"),
        ("00: 3-\n# dataset paht: ../b\n01: 4-", "4: `# dataset paht: ../b` looks like a header"),
        ("00: 3-\n# dataset path ../b\n01: 4-", "4: `# dataset path ../b` looks like a header"),
        ("00: 3-\n# dataset path:\n01: 4-", "4: the dataset's path is missing"),
        ("00: 3-\n# dataset path: ../b\n", "4: no episode follows for ../b"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_text(f"\n# dataset path: ../a\n{lines}")
    with pytest.raises(UserError, match=rf"labels\.txt:{said}"):
        import_text(file, tmp_path / "out" / "all.json")
    assert _names(tmp_path) == ["labels.txt"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"00: 3-", r"labels\.txt:1: episode 00 before any `# dataset path: PATH`"),
        (b"# nothing", r"labels\.txt: no labels in it"),
        (b"\xff", r"labels\.txt: not a text file in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_text_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        import_text(tmp_path / "labels.txt", tmp_path / "all.json")


def test_files_that_are_there_are_kept_unless_they_are_named(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels" / "all.json"
    out.parent.mkdir()
    (out.parent / "misses.json").write_text("hours of work")
    with pytest.raises(UserError, match=r"misses\.json: already there .*--replace misses\.json"):
        import_text(text, out)
    assert _names(out.parent) == ["misses.json"]
    with pytest.raises(UserError, match=r"--replace missed\.json: that file is not written"):
        import_text(text, out, replace=["missed.json"])
    import_text(text, out, replace=["misses.json"])
    assert len(labels.read(out).sources) == 2
    assert _names(out.parent) == ["all.json", "grasp.json", "misses.json"]


def test_when_one_file_cannot_be_written_what_was_there_is_there_again(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "folder").mkdir()  # no file can take its place
    files = {tmp_path / name: "new" for name in ("fresh", "old", "folder")}
    with pytest.raises(UserError, match="folder: cannot be written"):
        write_together.write_together(files)
    assert _names(tmp_path) == ["folder", "old"] and (tmp_path / "old").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f".b.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match="is full; nothing half-written"):
        write_together.write_together({tmp_path / "a.json": "{}", tmp_path / "b.json": "{}"})
    assert _names(tmp_path) == []


def test_the_command_says_what_it_wrote_and_what_is_missing(text: Path, tmp_path: Path) -> None:
    (tmp_path / "sets/grasp").mkdir(parents=True)
    out = tmp_path / "all.json"
    done = CliRunner().invoke(app, ["import", str(text), "--out", str(out), "--json"])
    assert done.exit_code == 0 and f"note: {tmp_path}/sets/misses is not there" in done.stderr
    result = json.loads(done.stdout)
    assert (result["episodes"], result["merge"]) == (5, str(out)) and len(result["sources"]) == 2


def test_the_examples_of_the_page_are_real(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/labels.md").read_text()
    source, merge = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "labels/monday").mkdir(parents=True)
    for name in ("grasp", "misses", "monday/more"):
        other = json.dumps(json.loads(source) | {"dataset_path": f"/sets/{name}"})
        (tmp_path / f"labels/{name}.json").write_text(other)
    (tmp_path / "labels/one.json").write_text(source)
    (tmp_path / "labels/all.json").write_text(merge)
    (one,) = labels.read(tmp_path / "labels/one.json").sources
    assert one.dataset == tmp_path / "datasets/grasp" and sorted(one.episodes) == [0, 1, 2]
    assert len(labels.read(tmp_path / "labels/all.json").sources) == 3
    older = page.split("## Import")[1].split("\n\nFrames count")[0]
    (tmp_path / "labels.txt").write_text(textwrap.dedent(older.partition("\n\n")[2]))
    read = labels.read(import_text(tmp_path / "labels.txt", tmp_path / "new/all.json").merge).sources
    assert [s.episodes for s in read] == [
        {n: one.episodes[n] for n in (0, 1)} | {14: one.episodes[2]},
        {0: []},
    ]
