"""What was left behind: journals never saved, files written aside by processes that died, old logs."""

import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from gripwire.doctor.finding import Finding, Here

_ASIDE = re.compile(r"^\..+\.(\d+)\.tmp$")
_LOOK_IN = (
    "",
    "datasets",
    "bundles",
    "labels",
    "cache",
    "runs",
    "runs/reward",
    "journals",
    "capsules",
    "keys",
)
MANY_LOGS = 1e9
_YOUNG_S = 60.0


def check(here: Here) -> Iterator[Finding]:
    """Below the data folder."""
    if not here.data.is_dir():
        yield Finding("leftovers", "ok", f"{here.data} does not exist yet; the first service makes it")
        return
    found = [f for f in (journals(here), aside(here.data), logs(here.data)) if f]
    yield from found or [
        Finding("leftovers", "ok", "no episode waits to be saved, nothing was left half written")
    ]


def journals(here: Here) -> Finding | None:
    """Episodes whose recorder was killed; one that runs is at them already."""
    folder = here.data / "journals"
    waiting = sorted(folder.glob("*.mcap")) if folder.is_dir() else []
    if not waiting or "recorder" in here.beats:
        return None
    size = sum(path.stat().st_size for path in waiting) / 1e6
    return Finding(
        "leftovers", "warn",
        f"{len(waiting)} journals ({size:.0f} MB) in {folder}: episodes that were not saved yet",
        "start the recorder (`gripwire up`, or `gripwire recorder run`): it makes episodes of them",
    )  # fmt: skip


def aside(data: Path) -> Finding | None:
    """Temporary names that carry the id of a process that is gone."""
    found = [
        entry
        for place in _LOOK_IN
        if (data / place).is_dir()
        for entry in (data / place).iterdir()
        if (name := _ASIDE.match(entry.name)) and not _runs(int(name[1])) and _age_s(entry) > _YOUNG_S
    ]
    if not found:
        return None
    return Finding(
        "leftovers", "warn", f"{len(found)} half-written files or folders of processes that were killed",
        f"nobody needs them: `rm -r {' '.join(shlex.quote(str(path)) for path in found[:5])}`"
        + (f" and {len(found) - 5} more like them" if len(found) > 5 else ""),
    )  # fmt: skip


def logs(data: Path) -> Finding | None:
    """The logs of `gripwire up`, which nobody removes."""
    folders = sorted((data / "runs").glob("up-*"))
    size = sum(f.stat().st_size for folder in folders for f in folder.glob("*.log"))
    if size < MANY_LOGS:
        return None
    return Finding(
        "leftovers", "warn", f"{size / 1e9:.1f} GB of logs in {len(folders)} folders {data / 'runs'}/up-*",
        "remove those you do not need",
    )  # fmt: skip


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
