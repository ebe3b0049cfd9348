"""Room, rights and speed where the data goes, and what was left there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gripwire.doctor import disk, leftovers
from gripwire.doctor.disk import Disk
from gripwire.messages import Health


def _disk(**changes: object) -> Disk:
    values = {"kind": "ext4", "free_mb": 90e3, "total_mb": 200e3, "free_inodes": 10**6, "writable": True}
    return Disk(Path("/data"), **(values | {"mb_s": 400.0, "sync_ms": 2.0} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({}, "ok", "is fast: 400 MB/s"),
        ({"free_mb": 300.0}, "fail", "begins no episode below 500 MB"),
        ({"free_mb": 2000.0}, "warn", "2.0 GB free"),
        ({"writable": False}, "fail", "cannot be written"),
        ({"quota": True}, "fail", "a quota"),
        ({"free_inodes": 12}, "fail", "12 more files"),
        ({"kind": "nfs4"}, "warn", "on another machine"),
        ({"kind": "tmpfs"}, "warn", "is gone when"),
        ({"kind": "exfat"}, "warn", "keys cannot be protected"),
        ({"mb_s": 4.0}, "warn", "is slow: 4 MB/s"),
        ({"sync_ms": 300.0}, "warn", "a sync takes 300.0 ms"),
    ],
)
def test_what_is_thought_of_a_disk(changes: dict, level: str, said: str) -> None:
    found = [f for f in disk.judge(_disk(**changes), 500) if said in f.text]
    assert [f.level for f in found] == [level] and (level == "ok" or found[0].remedy)


def test_the_disk_is_measured_and_left_as_it_was(here, tmp_path: Path) -> None:
    measured = disk.measure(tmp_path / "not" / "there" / "yet", here())
    assert measured.folder == tmp_path and measured.writable and list(tmp_path.iterdir()) == []
    assert measured.free_mb < 340 or (measured.mb_s and measured.sync_ms)


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = "/dev/sda1 / ext4 rw\nserver:/ /data nfs4 rw\ntmpfs /data/my\\040disk tmpfs rw\n"
    kinds = [disk.kind_of(Path(p), mounts) for p in ("/home/me", "/data/x", "/data/my disk/y", "/database")]
    assert kinds == ["ext4", "nfs4", "tmpfs", "ext4"]


def test_journals_wait_for_a_recorder_unless_one_is_at_them(here) -> None:
    place = here()
    (place.data / "journals").mkdir(parents=True)
    (place.data / "journals" / "grasp.mcap").write_bytes(b"x")
    (found,) = leftovers.check(place)
    assert found.level == "warn" and "1 journals" in found.text and "gripwire recorder run" in found.remedy
    place.beats = {"recorder": Health(service="recorder", state="ready")}
    assert [f.level for f in leftovers.check(place)] == ["ok"]


def test_what_a_process_that_died_was_writing_can_go_and_what_one_that_lives_writes_stays(here) -> None:
    place = here()
    (place.data / "bundles").mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = time.time() - 3600
    for pid in (dead.pid, os.getpid()):
        (place.data / "bundles" / f".abc.{pid}.tmp").mkdir()
        os.utime(place.data / "bundles" / f".abc.{pid}.tmp", (old, old))
    (found,) = leftovers.check(place)
    assert found.level == "warn" and f".abc.{dead.pid}.tmp" in found.remedy
    assert f".{os.getpid()}.tmp" not in found.remedy
