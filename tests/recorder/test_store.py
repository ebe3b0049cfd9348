"""Dataset folders are whole at every moment. (No LeRobot here: files are files.)"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gripwire.errors import UserError
from gripwire_recorder import store
from gripwire_recorder.store import Staging, Store

OLD = {"data/chunk-000/file-000.parquet": "rows 0", "videos/cam/chunk-000/file-000.mp4": "pictures 0"}
NEW = {"data/chunk-000/file-001.parquet": "rows 1", "videos/cam/chunk-000/file-001.mp4": "pictures 1"}


def info(episodes: int) -> str:
    return json.dumps({"total_episodes": episodes})


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path / "grasps", OLD | {"meta/info.json": info(1)})
    return tmp_path / "grasps"


def save_an_episode(dataset: Path) -> None:
    staging = Staging(dataset)
    staging.prepare()
    write(staging.path, NEW | {"meta/info.json": info(2)})
    assert staging.publish()


BEFORE, AFTER = OLD | {"meta/info.json": info(1)}, OLD | NEW | {"meta/info.json": info(2)}


def test_an_episode_is_added_and_nothing_is_left_beside_the_dataset(dataset):
    save_an_episode(dataset)
    assert read(dataset) == AFTER
    assert [path.name for path in dataset.parent.iterdir()] == ["grasps"]


def test_a_new_dataset_appears_at_once(tmp_path):
    staging = Staging(tmp_path / "grasps")
    staging.prepare()
    write(staging.path, BEFORE)
    assert not (tmp_path / "grasps").exists()
    staging.publish()
    assert read(tmp_path / "grasps") == BEFORE


@pytest.mark.parametrize("exchange", [True, False], ids=["atomic exchange", "two renames"])
def test_killed_at_any_step_the_dataset_is_the_old_one_or_the_new_one(tmp_path, exchange):
    (tmp_path / "case.json").write_text(
        json.dumps({"before": BEFORE, "written": NEW | {"meta/info.json": info(2)}})
    )
    script = Path(__file__).parent / "killed_while_publishing.py"
    command = [sys.executable, str(script), str(tmp_path), "exchange" if exchange else "rename"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    for number, step in enumerate(steps):
        if exchange:  # no moment without a whole dataset, even before any recovery
            assert step["killed"] in (BEFORE, AFTER), number
        assert step["recovered"] in (BEFORE, AFTER), number
        assert step["beside"] == [".recorder.lock", "grasps"], number
    assert steps[0]["recovered"] == BEFORE and steps[-1]["recovered"] == AFTER
    assert len(steps) > 16, "the kills must hit between the steps of saving"


def test_writing_into_the_copy_in_place_leaves_the_dataset_alone(dataset):
    staging = Staging(dataset)
    staging.prepare()
    with open(staging.path / "meta" / "info.json", "r+") as file:
        file.write("{")
    assert read(dataset) == BEFORE
    staging.discard()


def test_a_dataset_that_someone_else_appends_to_is_noticed(dataset):
    staging = Staging(dataset)
    staging.prepare()
    write(dataset, {"meta/info.json": info(1) + " "})
    assert staging.changed_meanwhile()


def test_a_file_put_beside_the_data_while_an_episode_is_saved_is_kept(dataset):
    staging = Staging(dataset)
    staging.prepare()
    write(staging.path, NEW | {"meta/info.json": info(2)})
    write(dataset, {"labels.json": "mine"})
    assert staging.publish()
    assert read(dataset) == AFTER | {"labels.json": "mine"}


def test_what_someone_else_has_written_while_the_copy_was_brought_to_the_disk_stays(dataset, monkeypatch):
    staging = Staging(dataset)
    staging.prepare()
    write(staging.path, NEW | {"meta/info.json": info(2)})
    theirs = {path: "theirs" for path in NEW} | {"meta/info.json": info(7)}
    monkeypatch.setattr(staging, "_sync", lambda: write(dataset, theirs))
    assert not staging.publish()
    assert read(dataset) == OLD | theirs


def test_what_another_recorder_is_saving_on_a_shared_disk_is_left_alone(tmp_path):
    disk, data = tmp_path / "disk", tmp_path / "data"
    write(disk / "ours", BEFORE)
    data.mkdir()
    (data / "ours").symlink_to(disk / "ours")
    for name in (f".ours.7{store._ASIDE}", f".theirs.8{store._ASIDE}", f".theirs{store._OLD}"):
        write(disk / name, BEFORE)
    kept = Store(data)
    kept.recover()
    kept.close()
    left = sorted(path.name for path in disk.iterdir())
    assert left == [f".theirs.8{store._ASIDE}", f".theirs{store._OLD}", "ours"]


def test_a_dataset_on_another_disk_stays_a_link(tmp_path):
    write(tmp_path / "disk" / "far", BEFORE)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "grasps").symlink_to(tmp_path / "disk" / "far")
    kept = Store(tmp_path / "datasets")
    save_an_episode(kept.path("grasps"))
    kept.close()
    assert (tmp_path / "datasets" / "grasps").is_symlink()
    assert read(tmp_path / "disk" / "far") == AFTER


def test_two_recorders_do_not_share_a_folder(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(UserError, match="another recorder writes into"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "-x", "a" * 101])
def test_a_dataset_name_that_could_be_a_path_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="dataset name"):
        Store(tmp_path).path(name)


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path):
    write(tmp_path / "photos", {"cat.jpg": "meow"})
    with pytest.raises(UserError, match="is not a LeRobot dataset; name another"):
        Store(tmp_path).info("photos")


def test_a_dataset_without_an_episode_is_refused(tmp_path):
    write(tmp_path / "empty", {"meta/info.json": info(0)})
    with pytest.raises(UserError, match="without a saved episode"):
        Store(tmp_path).info("empty")


def test_a_folder_that_was_removed_meanwhile_is_made_again_and_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PATIENCE_S", 0.1)
    kept = Store(tmp_path / "datasets")
    assert not kept.ensure()
    shutil.rmtree(tmp_path / "datasets")
    assert kept.ensure()
    with pytest.raises(UserError, match="another recorder writes into"):
        Store(tmp_path / "datasets")
    shutil.rmtree(tmp_path / "datasets")
    second = Store(tmp_path / "datasets")
    with pytest.raises(UserError, match="another recorder writes into"):
        kept.ensure()
    second.close()
    assert kept.ensure()
    shutil.rmtree(tmp_path / "datasets")
    (tmp_path / "datasets").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        kept.ensure()
