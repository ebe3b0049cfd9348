"""Files are whole or absent, whatever happens in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gripwire.errors import UserError
from gripwire.files import folder_whole, write_whole

FULL = Path("/dev/full")  # every write to it fails with ENOSPC, as on a full disk
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this kernel has no /dev/full")


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_written_file_holds_all_of_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "labels.json"
    write_whole(path, "grün")
    write_whole(path, b"\x00second")
    assert path.read_bytes() == b"\x00second"
    assert _names(path.parent) == ["labels.json"]


@needs_full
def test_a_full_disk_leaves_the_old_file_and_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_whole(path, "old")
    # Where the new content is written before it takes the old one's place.
    (tmp_path / f".labels.json.{os.getpid()}.tmp").symlink_to(FULL)
    with pytest.raises(UserError, match=r"the disk that holds .*labels\.json is full.*free some space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and _names(tmp_path) == ["labels.json"]


LIMITED = """
import resource, sys
from pathlib import Path
from gripwire.errors import UserError
from gripwire.files import folder_whole, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
try:
    if path.suffix:
        write_whole(path, b"n" * 100_000)
    else:
        with folder_whole(path) as aside:
            (aside / "small").write_bytes(b"s")
            (aside / "large").write_bytes(b"n" * 100_000)
except (UserError, OSError) as e:
    print(type(e).__name__, e)
"""


@pytest.mark.parametrize("name", ["file.bin", "folder"])
def test_a_write_that_breaks_off_half_way_leaves_no_half(tmp_path: Path, name: str) -> None:
    if name == "file.bin":
        (tmp_path / name).write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / name], capture_output=True, text=True, timeout=30
    )
    assert "File too large" in done.stdout, done.stderr
    if name == "file.bin":
        assert (tmp_path / name).read_text() == "old" and _names(tmp_path) == [name]
    else:
        assert _names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    for write in (lambda p: write_whole(p, "x"), lambda p: folder_whole(p).__enter__()):
        with pytest.raises(UserError, match=r"cannot be created: (Not a directory|File exists)"):
            write(tmp_path / "data" / "labels" / "a.json")


def test_a_folder_appears_whole_under_its_name(tmp_path: Path) -> None:
    with folder_whole(tmp_path / "bundles" / "b1") as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "model.onnx").write_text("weights")
        assert not (tmp_path / "bundles" / "b1").exists()
    assert (tmp_path / "bundles" / "b1" / "deep" / "model.onnx").read_text() == "weights"
    assert _names(tmp_path / "bundles") == ["b1"]


@pytest.mark.parametrize("failure", [ValueError("wrong"), KeyboardInterrupt(), UserError("stop")])
def test_after_an_exception_of_any_kind_no_folder_is_left(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), folder_whole(tmp_path / "b1") as aside:
        (aside / "model.onnx").write_text("half")
        raise failure
    assert _names(tmp_path) == []


@needs_full
def test_a_disk_that_fills_up_inside_a_folder_leaves_none_and_names_the_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"the disk that holds .*b1 is full"),
        folder_whole(tmp_path / "b1") as aside,
    ):
        (aside / "model.onnx").write_text("half")
        FULL.write_text("the rest")
    assert _names(tmp_path) == []


def test_an_existing_folder_is_never_overwritten_not_even_one_that_came_meanwhile(tmp_path: Path) -> None:
    taken = tmp_path / "b1"
    taken.mkdir()
    with pytest.raises(UserError, match=r"b1 exists already and is never overwritten"), folder_whole(taken):
        pytest.fail("the block must not run")
    with pytest.raises(UserError, match="exists already"), folder_whole(tmp_path / "b2") as aside:
        (aside / "mine").write_text("mine")
        (tmp_path / "b2").mkdir()
        (tmp_path / "b2" / "theirs").write_text("theirs")
    assert _names(tmp_path) == ["b1", "b2"] and _names(tmp_path / "b2") == ["theirs"]


def test_what_a_killed_process_left_aside_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / f".b1.{os.getpid()}.tmp").mkdir()
    (tmp_path / f".b1.{os.getpid()}.tmp" / "stale").write_text("x")
    with folder_whole(tmp_path / "b1") as aside:
        (aside / "fresh").write_text("y")
    assert _names(tmp_path / "b1") == ["fresh"]
