"""From a saved label to a bundle that serves, again and again, in a running watch."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire.bus import Latest
from gripwire.files import write_whole
from gripwire.messages import ModelState
from gripwire.settings import Settings
from gripwire_trainer import job
from gripwire_trainer.settings import TrainerSettings
from gripwire_trainer.watch import Watch
from tests.trainer import synthetic

QUICK = TrainerSettings(size=(64, 64), views=2, epochs=20, patience=20, build=False, threads=1)
WAIT_S = 60.0


class Watching:
    """A watch in a thread, and what it tells."""

    def __init__(self, file: Path, settings: Settings) -> None:
        self.file, self.events = file, queue.Queue[tuple[str, dict[str, Any]]]()
        self._stop = threading.Event()
        task = job.Task(file, settings.data, QUICK)
        watch = Watch(task, settings, self._tell, lambda *_: None, self._stop.is_set)
        self._thread = threading.Thread(target=watch.run)
        self._thread.start()

    def _tell(self, event: str, what: dict[str, Any]) -> None:
        self.events.put((event, what))

    def next(self, event: str) -> dict[str, Any]:
        """What is told with the next event of this kind."""
        while True:
            told, what = self.events.get(timeout=WAIT_S)
            if told == event:
                return what

    def save(self, starts: list[int | None]) -> None:
        """Save other labels, as an editor does."""
        episodes = {str(i): None if s is None else {"success_start": s} for i, s in enumerate(starts)}
        text = json.loads(self.file.read_text()) | {"episodes": episodes}
        write_whole(self.file, json.dumps(text))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)


@pytest.fixture
def file(coloured: tuple[Path, list[int | None]], tmp_path: Path) -> Path:
    return synthetic.write_labels(tmp_path / "labels", *coloured)


@pytest.fixture
def watching(file: Path, stack: Settings) -> Iterator[Watching]:
    watch = Watching(file, stack)
    yield watch
    watch.close()


@pytest.fixture
def serving(stack: Settings) -> Iterator[Latest[ModelState]]:
    """A real reward service, ready; its `model` topic."""
    command = [sys.executable, "-m", "gripwire", "reward", "run", "--data", str(stack.data)]
    process = subprocess.Popen([*command, "--port-base", str(stack.bus.port_base)], stderr=subprocess.DEVNULL)
    with Latest(stack.topics["model"], ModelState) as model:
        assert model.wait(WAIT_S)
        yield model
    process.kill()
    process.wait()


def test_every_saved_label_becomes_a_bundle_that_is_offered_unless_it_is_worse(
    serving: Latest[ModelState], watching: Watching, coloured: tuple[Path, list[int | None]]
) -> None:
    first = watching.next("decided")
    assert first["offered"] and first["why"] == "nothing serves yet"
    assert watching.next("waiting") == {}

    better = list(coloured[1])
    better[0] = 9 if better[0] == 8 else 8
    watching.save(better)
    assert watching.next("saved")["files"] == ["labels.json"]
    second = watching.next("decided")
    assert second["bundle"] != first["bundle"]
    assert second["why"].startswith(
        ("not worse than " if second["offered"] else "worse than ") + first["bundle"]
    )


def test_labels_in_error_are_told_and_the_next_saved_ones_are_learnt_from(
    watching: Watching, coloured: tuple[Path, list[int | None]]
) -> None:
    watching.next("waiting")
    watching.save([999, *coloured[1][1:]])
    assert "goes beyond the episode" in watching.next("refused")["why"]
    watching.save(coloured[1])
    assert watching.next("decided")["bundle"]


def test_a_source_that_is_broken_from_the_start_is_learnt_from_once_it_is_mended(
    coloured: tuple[Path, list[int | None]], stack: Settings, tmp_path: Path
) -> None:
    source = synthetic.write_labels(tmp_path / "labels", *coloured)
    whole = source.read_text()
    write_whole(source, "{")
    merge = tmp_path / "labels" / "all.json"
    merge.write_text(json.dumps({"output_repo_id": "a/all", "sources": ["labels"]}))
    watching = Watching(merge, stack)
    try:
        assert "not JSON" in watching.next("refused")["why"]
        write_whole(source, whole)
        assert watching.next("decided")["bundle"]
    finally:
        watching.close()


def test_without_a_service_the_bundle_is_there_and_the_reason_is_told(watching: Watching) -> None:
    told = watching.next("decided")
    assert not told["offered"] and f"gripwire reward swap {told['bundle']}" in told["failures"][0]
