"""The disk fills up while a classifier is trained: the job says so, and what served serves on.

What a full disk does to the recorder is in test_recorder_beside_faults.py.
"""

import json
import sys
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.train_on_full_disk import ROOM
from tests.helpers import on_small_disk
from tests.trainer import synthetic


@pytest.mark.timeout(300)
def test_a_training_that_finds_the_disk_full_says_so_and_the_old_bundle_serves_on(
    tmp_path: Path, port_base: int
) -> None:
    made = synthetic.episodes(8)
    dataset = synthetic.write_v21(tmp_path / "set", [shown for shown, _ in made])
    data, starts = tmp_path / "data", json.dumps([start for _, start in made])
    data.mkdir()
    script = [sys.executable, "-m", "tests.faults.train_on_full_disk", str(data), str(dataset), starts]
    done = on_small_disk(data / "bundles", ROOM, *script, str(port_base))
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[0])
    assert "is full" in told["error"] and str(data / "bundles") in told["error"]
    assert told["health"][0] == "degraded"
    assert told["serves"] and told["valid"]
    assert told["left"] == [told["served"]] and told["used"] <= 0, "something half-written was left behind"
    table.note(
        "disk full while a classifier is trained",
        "the job fails and says so, nothing half-written is left, the bundle that served serves on",
        "`trainer` and its heartbeat name the disk; no file was left; every reward valid, by the same bundle",
    )
