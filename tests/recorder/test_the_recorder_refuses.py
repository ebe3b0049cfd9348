"""Bad input and a full disk: one plain sentence, and nothing saved is harmed."""

import contextlib
import json
import resource
import shutil
import subprocess
import threading

import pytest

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import DiscardEpisode, MarkEpisode, StartEpisode, StopEpisode
from tests.helpers import until


@pytest.fixture(scope="module")
def shared(module_rigs):
    """One recorder and its bench for all tests that leave both as they found them."""
    return module_rigs()


def refused(rig, **args):
    with pytest.raises(UserError) as error:
        rig.ask(StartEpisode(**({"task": "grasp", "dataset": "grasps"} | args)))
    text = str(error.value)
    assert "\n" not in text and "Error" not in text and "Traceback" not in text
    return text


def test_what_cannot_begin_is_refused_with_a_sentence(shared):
    rig, _ = shared
    assert "needs its task" in refused(rig, task=" ")
    assert "dataset name `../x`" in refused(rig, dataset="../x")
    (rig.datasets / "photos").mkdir()
    assert "is not a LeRobot dataset" in refused(rig, dataset="photos")
    with pytest.raises(UserError, match="no episode is being recorded"):
        rig.ask(StopEpisode())
    with pytest.raises(UserError, match="no episode is being recorded"):
        rig.ask(DiscardEpisode())
    rig.start(0.2, "begins")
    assert "is being recorded: stop or discard it first" in refused(rig, dataset="begins")
    rig.stop()


def test_a_camera_that_says_nothing_for_a_moment_is_waited_for(shared):
    rig, bench = shared
    bench.blind.set()
    until(lambda: clock.monotonic_ns() - bench.frames[-1][1] > 1.2e9, "the camera is silent")
    threading.Timer(0.3, bench.blind.clear).start()
    rig.start(0.2, "patient")
    assert not rig.stop().problem


def test_a_datasets_folder_that_was_removed_is_made_again(rigs, open_with_lerobot):
    rig, _ = rigs()
    shutil.rmtree(rig.datasets)
    rig.datasets.write_text("not a folder")
    assert "cannot be written" in refused(rig)
    rig.datasets.unlink()
    assert rig.record(0.3).episode == 0
    assert len(open_with_lerobot(rig.datasets / "grasps").lengths) == 1


def test_an_episode_of_another_kind_is_not_mixed_into_a_dataset(shared):
    rig, _ = shared
    rig.record(0.3, "kinds")
    path = rig.datasets / "kinds" / "meta" / "info.json"
    info = json.loads(path.read_text())

    def with_change(change):
        changed = json.loads(json.dumps(info))
        change(changed)
        path.write_text(json.dumps(changed))
        return refused(rig, dataset="kinds")

    assert "it has 30 rows a second" in with_change(lambda i: i.update(fps=30))
    assert "its format is v2.1" in with_change(lambda i: i.update(codebase_version="v2.1"))
    assert "it has `extra`" in with_change(lambda i: i["features"].update(extra=i["features"]["action"]))
    assert "it has no `action`" in with_change(lambda i: i["features"].pop("action"))
    wide = with_change(lambda i: i["features"]["observation.images.gripper_cam"].update(shape=[480, 640, 3]))
    assert "is video 480x640x3, now it is video 240x320x3; name another dataset" in wide
    path.write_text(json.dumps(info))
    assert rig.record(0.3, "kinds").episode == 1


def test_streams_that_cannot_be_trusted_are_refused_by_name(shared):
    rig, bench = shared
    rig.until_health(lambda h: h.rates.get("camera/gripper_cam", 0) > 0)
    bench.valid = False
    rig.until_health(lambda h: "the picture is frozen" in h.problem)
    assert "without camera/gripper_cam: the picture is frozen" in refused(rig, dataset="streams")
    bench.valid = True
    bench.host = "another kernel"
    rig.until_health(lambda h: "another machine" in h.problem)
    assert "capture times cannot be compared" in refused(rig, dataset="streams")
    bench.host = None
    rig.until_health(lambda h: h.state == "ready")
    bench.blind.set()
    rig.until_health(lambda h: h.rates.get("camera/gripper_cam") == 0)
    rig.until_health(lambda h: h.rates.get("camera/gripper_cam") == 0)
    assert "nothing arrives on it; does `gripwire camera run` run?" in refused(rig, dataset="streams")
    bench.blind.clear()
    rig.until_health(lambda h: h.rates.get("camera/gripper_cam", 0) > 20)


def test_too_little_free_disk_is_refused_before_recording(rigs):
    rig, _ = rigs(min_free_mb=10**9)
    assert "min_free_mb is 1000000000: free some space first" in refused(rig)


def test_a_dataset_that_was_there_before_is_only_added_to_when_that_is_asked_for(rigs):
    rig, _ = rigs()
    rig.record(0.3)
    rig.ask(StartEpisode(task="grasp", dataset="grasps"))  # begun by this recorder: it goes on
    rig.ask(DiscardEpisode())
    rig.end()
    rig.start_process()
    assert "exists already: add to it with --append, or name another" in refused(rig)
    assert rig.record(0.3).episode == 1


def test_while_the_disk_has_no_room_for_an_episode_it_waits_in_its_journal(shared, open_with_lerobot):
    rig, _ = shared
    rig.record(0.5, "waits")
    limit, worker = resource.RLIMIT_FSIZE, rig.worker()
    unlimited = resource.prlimit(worker, limit)
    rig.start(0.5, "waits")
    resource.prlimit(worker, limit, (20_000, unlimited[1]))
    _stuck_and_freed(rig, "waits", open_with_lerobot, lambda: resource.prlimit(worker, limit, unlimited))


def test_when_the_disk_is_full_the_episode_ends_with_what_was_recorded(shared, open_with_lerobot):
    rig, _ = shared
    rig.record(0.5, "ends")
    saved = rig.episode.get().message.saved
    limit, recorder = resource.RLIMIT_FSIZE, rig.process.pid
    unlimited = resource.prlimit(recorder, limit)
    rig.start(0.5, "ends")
    resource.prlimit(recorder, limit, (20_000, unlimited[1]))
    state = rig.until(lambda e: e.state == "idle" and e.saved == saved + 1)
    assert "ended by itself: the disk that holds" in state.problem
    resource.prlimit(recorder, limit, unlimited)
    assert state.rows >= 4
    assert rig.notes("ends")[1]["recovered"] is False
    dataset = open_with_lerobot(rig.datasets / "ends")
    assert dataset.numbers == dataset.columns["gripwire.gripper_cam.seq"].tolist()


def test_on_a_full_disk_nothing_that_was_recorded_is_lost(rigs, open_with_lerobot, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "gripwire-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    rig = None
    try:
        rig, _ = rigs(data=disk, min_free_mb=0)
        rig.record(0.5)
        rig.start(1.0)
        with Filler(disk) as filler:
            _stuck_and_freed(rig, "grasps", open_with_lerobot, filler.close)
    finally:
        if rig:
            rig.end()
        subprocess.run(["umount", str(disk)], check=False)


class Filler:
    """Takes whatever room there is on ``disk``, also what becomes free, until closed."""

    def __init__(self, disk):
        self._path = disk / "filler"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._fill)
        self._thread.start()

    def _fill(self):
        with open(self._path, "wb", buffering=0) as file:
            while not self._end.wait(0.005):
                with contextlib.suppress(OSError):
                    while not self._end.is_set():
                        file.write(bytes(4096))

    def close(self):
        self._end.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _stuck_and_freed(rig, dataset, open_with_lerobot, free):
    """The episode under way cannot be saved; see it said, make room, see it saved."""
    saved = rig.episode.get().message.saved
    with contextlib.suppress(UserError):  # it may have ended by itself
        rig.ask(StopEpisode())
    stuck = rig.until(lambda e: e.state == "saving" and e.problem != "")
    assert "is full: the episode is kept in its journal" in stuck.problem
    rig.until_health(lambda h: h.state == "degraded" and "is full" in h.problem)
    assert len(open_with_lerobot(rig.datasets / dataset).lengths) == 1
    assert "is full" in refused(rig)
    free()
    state = rig.until(lambda e: e.state == "idle" and e.saved == saved + 1)
    assert state.episode == 1 and state.rows >= 4
    rig.until_health(lambda h: h.state == "ready")
    opened = open_with_lerobot(rig.datasets / dataset)
    assert len(opened.lengths) == 2
    assert opened.numbers == opened.columns["gripwire.gripper_cam.seq"].tolist()
    assert list((rig.settings.data / "journals").iterdir()) == []


def test_an_episode_stuck_on_a_full_disk_can_be_given_up(shared):
    rig, _ = shared
    rig.record(0.3, "given")
    worker = rig.worker()
    rig.start(0.5, "given")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    saved = rig.episode.get().message.saved
    rig.ask(StopEpisode())
    rig.until(lambda e: e.state == "saving" and "is full" in e.problem)
    assert "thrown away" in rig.ask(DiscardEpisode())
    assert list((rig.settings.data / "journals").glob("*.mcap")) == []  # also should it be killed now
    assert rig.until(lambda e: e.state == "idle").saved == saved
    assert list((rig.settings.data / "journals").iterdir()) == []
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert rig.record(0.3, "given").episode == 1


def test_an_episode_that_cannot_be_saved_before_the_end_is_saved_by_the_next_recorder(
    rigs, tmp_path, open_with_lerobot
):
    log = tmp_path / "log"
    rig, _ = rigs(hurried_log=log)
    rig.record(0.3)
    rig.start(0.5)
    resource.prlimit(rig.worker(), resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    rig.ask(StopEpisode())
    rig.until(lambda e: e.state == "saving" and "is full" in e.problem)
    assert "episode 1 of dataset `grasps` is not to be used" in rig.ask(MarkEpisode(reject=True, by="ada"))
    rig.end()
    left = [line for line in log.read_text().splitlines() if "is not saved yet" in line]
    assert len(left) == 1 and "the next recorder makes it of" in left[0]
    rig.start_process()
    assert rig.until(lambda e: e.state == "idle" and e.saved == 1).rows >= 4
    assert len(open_with_lerobot(rig.datasets / "grasps").lengths) == 2
    (said,) = map(json.loads, (rig.settings.data / "labels/grasps.verdicts.jsonl").read_text().splitlines())
    assert (said["episode"], said["reject"], said["by"]) == (1, True, "ada")
    assert list((rig.settings.data / "journals").iterdir()) == []
