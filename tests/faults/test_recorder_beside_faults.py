"""Something breaks while an episode is recorded: what was saved is not touched, and the episode says it."""

import hashlib
import math
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gripwire.messages import StopEpisode
from tests.faults import table
from tests.recorder.rig import Bench, Opened, Rig, make_rigs, open_with_lerobot

CAMERA, ARM = "camera/gripper_cam was silent for", "robot/state was silent for"
LONGER_S = 1.0


@dataclass
class Fault:
    """How it is broken and mended, and what the episode then says."""

    name: str
    begin: Callable[[Rig, Bench], object]
    end: Callable[[Rig, Bench], object]
    says: str


def _limit(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


STREAMS = [
    Fault("camera unplugged for a second", lambda _, b: b.blind.set(), lambda _, b: b.blind.clear(), CAMERA),
    Fault(
        "camera frozen for a second",
        lambda _, b: setattr(b, "valid", False), lambda _, b: setattr(b, "valid", True), CAMERA,
    ),
    Fault(
        "camera swapped for another (of another size) for a second",
        lambda _, b: setattr(b, "size", (640, 480)), lambda _, b: setattr(b, "size", (320, 240)), CAMERA,
    ),
    Fault(
        "a servo silent for a second",
        lambda _, b: setattr(b, "arm_valid", False), lambda _, b: setattr(b, "arm_valid", True), ARM,
    ),
    Fault(
        "a servo that gives no numbers for a second",
        lambda _, b: setattr(b, "arm_reads", math.nan), lambda _, b: setattr(b, "arm_reads", 1.0), ARM,
    ),
    Fault("serial port gone for a second", lambda _, b: b.numb.set(), lambda _, b: b.numb.clear(), ARM),
]  # fmt: skip
DISKS = [
    Fault(
        "disk full while an episode is recorded",
        lambda r, _: _limit(r.process.pid, 20_000),
        lambda r, _: _limit(r.process.pid, resource.RLIM_INFINITY),
        "ended by itself: the disk that holds",
    ),
    Fault(
        "disk full while an episode is saved",
        lambda r, _: _limit(r.worker(), 20_000),
        lambda r, _: _limit(r.worker(), resource.RLIM_INFINITY),
        "",
    ),
]


# The others have tests of their own in tests/recorder; here they fill the table.
SOME = slice(None) if table.IN_FULL else slice(0, None, 3)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Bench]]:
    makers = make_rigs(tmp_path_factory.mktemp("faults"))
    rig, bench = next(makers)()
    rig.record(0.5)
    yield rig, bench
    next(makers, None)


def written(dataset: Path) -> dict[str, str]:
    """What is in the files of rows and pictures that are there by now."""
    files = [path for path in dataset.rglob("*") if path.suffix in (".parquet", ".mp4")]
    kept = [path for path in files if path.name != "tasks.parquet"]
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def last_episode(opened: Opened) -> dict[str, np.ndarray]:
    mine = opened.columns["episode_index"] == len(opened.lengths) - 1
    return {name: values[mine] for name, values in opened.columns.items()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", STREAMS[SOME], ids=lambda fault: fault.name)
def test_a_stream_that_breaks_marks_the_episode(rig: tuple[Rig, Bench], fault: Fault) -> None:
    recorder, bench = rig
    before = written(recorder.datasets / "grasps")
    recorder.start(1.0)
    fault.begin(recorder, bench)
    topic = fault.says.split()[0]
    recorder.until_health(lambda h: f"{topic} is silent while an episode is recorded" in h.problem)
    fault.end(recorder, bench)
    rows = recorder.until(lambda e: e.rows > 0 and fault.says in e.problem).rows
    recorder.until(lambda e: e.rows > rows + 5)
    state = recorder.stop()
    assert fault.says in state.problem
    note = recorder.notes()[-1]
    assert note["hole"] is True and note["problem"] == state.problem
    assert before.items() <= written(recorder.datasets / "grasps").items()
    opened = open_with_lerobot(recorder.datasets / "grasps")
    assert opened.numbers == opened.columns["gripwire.gripper_cam.seq"].tolist()
    row = last_episode(opened)
    assert np.allclose(np.diff(row["timestamp"]), 0.1, atol=1e-3)  # LeRobot's grid, not stretched
    where = "gripper_cam" if fault.says == CAMERA else "state"
    gap_s = float(row[f"gripwire.{where}.gap_ms"].max()) / 1e3
    assert gap_s > LONGER_S
    table.note(
        fault.name,
        "nothing saved is touched; the episode is marked; its rows say where the hole is; no wrong picture",
        f"{len(opened.lengths) - 1} earlier episodes unchanged; marked, with a hole of {gap_s:.1f} s; "
        f"{len(row['timestamp'])} rows, each with the picture that it names",
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", DISKS[SOME], ids=lambda fault: fault.name)
def test_a_full_disk_loses_nothing_that_was_recorded(rig: tuple[Rig, Bench], fault: Fault) -> None:
    recorder, bench = rig
    before = written(recorder.datasets / "grasps")
    saved = recorder.episode.get().message.saved
    recorder.start(1.5)
    fault.begin(recorder, bench)
    if fault.says:
        rows = recorder.until(lambda e: e.state != "recording").rows
    else:
        rows = recorder.until(lambda e: e.rows >= 20).rows
        recorder.ask(StopEpisode())
        recorder.until(lambda e: e.state == "saving" and "is full" in e.problem)
    assert before == written(recorder.datasets / "grasps")
    fault.end(recorder, bench)
    state = recorder.until(lambda e: e.state == "idle" and e.saved == saved + 1)
    assert fault.says in state.problem
    assert before.items() <= written(recorder.datasets / "grasps").items()
    opened = open_with_lerobot(recorder.datasets / "grasps")
    assert opened.numbers == opened.columns["gripwire.gripper_cam.seq"].tolist()
    assert state.rows >= 10
    table.note(
        fault.name,
        "nothing saved is touched; what was recorded is kept and saved when there is room",
        f"{len(opened.lengths) - 1} earlier episodes unchanged; {state.rows} rows of the open one saved "
        f"({max(rows, state.rows)} had been recorded)",
    )
