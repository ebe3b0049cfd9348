"""The disk that holds the data: room, rights, kind, quota and speed."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gripwire.doctor.finding import Finding, Here

MB = 2**20
ENOUGH_MB = 5000.0
PROBE_BYTES, SYNCS = 32 * MB, 5
QUOTA_BYTES = 1024 * MB
SLOW_MB_S, SLOW_SYNC_MS = 10.0, 100.0
"""A raw recording of one camera writes about 3 MB a second; a journal is synced every second."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs")
NO_UNIX = ("vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk")
VOLATILE = ("tmpfs", "ramfs", "overlay")


@dataclass(frozen=True)
class Disk:
    """What was measured. ``folder``: the data folder, or the nearest above it that exists."""

    folder: Path
    kind: str
    free_mb: float
    total_mb: float
    free_inodes: int | None
    writable: bool
    mb_s: float | None = None
    sync_ms: float | None = None
    quota: bool = False
    """The system refused to set aside what the disk says is free."""


def check(here: Here) -> Iterator[Finding]:
    """Room and speed where the data goes."""
    floor = here.value("recorder", "min_free_mb")
    yield from judge(measure(here.data, here), floor if isinstance(floor, int) else 500)


def judge(disk: Disk, floor_mb: float) -> Iterator[Finding]:
    """What to think of it. ``floor_mb``: what the recorder wants to be left free. Pure."""
    where = f"{disk.folder} ({disk.kind or 'unknown kind'})"
    if not disk.writable:
        yield Finding(
            "disk", "fail", f"{where} cannot be written by this user",
            f"`sudo chown -R $USER {disk.folder}`, or set `data` in gripwire.toml to another folder",
        )  # fmt: skip
        return
    yield _room(disk, where, floor_mb)
    if disk.quota:
        yield Finding(
            "disk", "fail",
            f"{where}: the system does not give {QUOTA_BYTES // MB} MB more, though they are free: a quota",
            "`quota -s` shows it; free some space of yours, or set `data` to another disk",
        )  # fmt: skip
    if disk.free_inodes is not None and disk.free_inodes < 10_000:
        yield Finding(
            "disk",
            "fail",
            f"{where} has room for {disk.free_inodes} more files only",
            "remove many small files",
        )
    if disk.kind in NETWORK + NO_UNIX + VOLATILE:
        yield _kind(disk, where)
    if disk.mb_s is not None and disk.sync_ms is not None:
        yield _speed(disk, where, disk.mb_s, disk.sync_ms)


def _room(disk: Disk, where: str, floor_mb: float) -> Finding:
    text = f"{where}: {disk.free_mb / 1e3:.1f} GB free of {disk.total_mb / 1e3:.0f}"
    remedy = "free some space, or set `data` in gripwire.toml to another disk"
    if disk.free_mb < floor_mb:
        return Finding(
            "disk", "fail", f"{text}: the recorder begins no episode below {floor_mb:g} MB", remedy
        )
    return Finding(
        "disk",
        "ok" if disk.free_mb >= ENOUGH_MB else "warn",
        text,
        "" if disk.free_mb >= ENOUGH_MB else remedy,
    )


def _kind(disk: Disk, where: str) -> Finding:
    remedy = "set `data` in gripwire.toml to a folder on a local disk (ext4, xfs, btrfs, APFS)"
    if disk.kind in NETWORK:
        return Finding(
            "disk", "warn", f"{where} is on another machine: a network that stalls, stalls saving", remedy
        )
    if disk.kind in NO_UNIX:
        return Finding(
            "disk", "warn", f"{where} keeps neither rights nor links: keys cannot be protected there", remedy
        )
    return Finding(
        "disk", "warn", f"{where} is gone when the machine or the container is",
        f"{remedy}; in compose it is a volume or a folder of the machine",
    )  # fmt: skip


def _speed(disk: Disk, where: str, mb_s: float, sync_ms: float) -> Finding:
    name = "fast" if mb_s > 200 and sync_ms < 10 else "good" if mb_s > 50 and sync_ms < 50 else "modest"
    text = f"{where} is {name}: {mb_s:.0f} MB/s, a sync takes {sync_ms:.1f} ms"
    if mb_s >= SLOW_MB_S and sync_ms <= SLOW_SYNC_MS:
        return Finding("disk", "ok", text)
    return Finding(
        "disk", "warn", text.replace("is modest", "is slow"),
        "saving will lag behind: set `data` to a faster disk, or see what else writes to this one (`iotop`)",
    )  # fmt: skip


def measure(data: Path, here: Here) -> Disk:
    """Look at the disk; writes and removes one file of 32 MB where there is ten times that room."""
    folder = next(p for p in (data, *data.parents) if p.is_dir())
    usage, stat = shutil.disk_usage(folder), os.statvfs(folder)
    writable = os.access(folder, os.W_OK | os.X_OK)
    mb_s = sync_ms = None
    quota = False
    kind = kind_of(folder, here.read("proc", "mounts"))
    if writable and usage.free > 10 * PROBE_BYTES:
        # Elsewhere space that is set aside takes memory, or is written.
        sets_aside = kind not in (*NETWORK, *NO_UNIX, *VOLATILE)
        mb_s, sync_ms, quota = _try(folder, sets_aside and usage.free > 4 * QUOTA_BYTES)
    return Disk(
        folder, kind, usage.free / 1e6, usage.total / 1e6,
        stat.f_favail if stat.f_files else None, writable, mb_s, sync_ms, quota,
    )  # fmt: skip


def kind_of(folder: Path, mounts: str) -> str:
    """The file system that ``folder`` is on, by the text of /proc/mounts; empty if it does not tell. Pure."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        place = Path(fields[1].replace("\\040", " "))
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), fields[2]
    return kind


def _try(folder: Path, ask_for_much: bool) -> tuple[float | None, float | None, bool]:
    """MB a second, milliseconds of a sync, and whether a quota is in the way."""
    block = os.urandom(MB)
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
            quota = ask_for_much and _quota(file.fileno())
            begun = time.perf_counter()
            for _ in range(PROBE_BYTES // MB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            mb_s = PROBE_BYTES / 1e6 / (time.perf_counter() - begun)
            syncs = []
            for _ in range(SYNCS):
                file.write(block[:4096])
                file.flush()
                begun = time.perf_counter()
                os.fsync(file.fileno())
                syncs.append((time.perf_counter() - begun) * 1e3)
            return mb_s, median(syncs), quota
    except OSError as e:
        return None, None, e.errno == errno.EDQUOT


def _quota(fd: int) -> bool:
    """Setting space aside writes nothing, but is counted."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(fd, 0, QUOTA_BYTES)
    except OSError as e:
        return e.errno in (errno.EDQUOT, errno.ENOSPC)
    with suppress(OSError):
        os.ftruncate(fd, 0)
    return False
