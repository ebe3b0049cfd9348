"""What the system lets a process have: open files, memory, shared memory."""

import os
import resource
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from gripwire.doctor.finding import Finding, Here

FILES = 1024
"""A service with eight cameras and their monitors takes some 200."""
MEMORY_MB = 4000.0
SHARED_MB = 256.0
CORES = 2


def check(here: Here) -> Iterator[Finding]:
    """Limits of this process and of the container it is in."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = here.read("sys", "fs", "cgroup", "memory.max")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = here.read("sys", "fs", "cgroup", "cpu.max")
    shared = shutil.disk_usage("/dev/shm").total / 1e6 if os.path.isdir("/dev/shm") else None
    training = find_spec("torch") is not None
    yield from judge(files, _mb(limit), min(cores, _cores(quota) or cores), shared, training)


def judge(
    files: int, memory_mb: float | None, cores: float, shared_mb: float | None, training: bool
) -> Iterator[Finding]:
    """``memory_mb``: None without a limit; ``training``: whether torch is installed here. Pure."""
    found = []
    if 0 <= files < FILES:
        found.append(
            Finding(
                "limits", "warn", f"a process may open {files} files only", f"`ulimit -n {FILES}` or more"
            )
        )
    if memory_mb is not None and memory_mb < MEMORY_MB and training:
        found.append(
            Finding(
                "limits", "warn",
                f"this container may use {memory_mb:.0f} MB of memory; training takes about 3 GB",
                "raise `mem_limit` of the trainer in docker-compose.yml",
            )
        )  # fmt: skip
    if cores < CORES:
        found.append(
            Finding(
                "limits", "warn", f"{cores:g} CPU core for the whole stack: rates will not hold",
                "give it two at least",
            )
        )  # fmt: skip
    if shared_mb is not None and shared_mb < SHARED_MB and training:
        found.append(
            Finding(
                "limits", "warn", f"/dev/shm has {shared_mb:.0f} MB: LeRobot's own loaders need more",
                "`shm_size: 1gb` of the service in docker-compose.yml",
            )
        )  # fmt: skip
    limit = "no memory limit" if memory_mb is None else f"{memory_mb:.0f} MB of memory"
    yield from found or [Finding("limits", "ok", f"{files} open files, {limit}, {cores:g} cores")]


def _mb(text: str) -> float | None:
    return int(text) / 1e6 if text.isdigit() else None


def _cores(text: str) -> float | None:
    """cpu.max: microseconds that may be used, of a period's; `max` for all."""
    used, _, period = text.partition(" ")
    return int(used) / int(period) if used.isdigit() and period.isdigit() else None
