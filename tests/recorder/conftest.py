"""Fixtures around the rig, and LeRobot imported while other tests run."""

import atexit
import multiprocessing.forkserver
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gripwire.settings import Settings
from tests.recorder.rig import Bench, Opened, Rig, forkserver, make_rigs, make_settings, open_with_lerobot


@pytest.fixture(scope="session", name="open_with_lerobot")
def _open_with_lerobot() -> Callable[[Path], Opened]:
    return open_with_lerobot


_QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Import LeRobot (30 s) while tests that do without it run, those of other folders too."""
    if any("open_with_lerobot" in getattr(item, "fixturenames", ()) for item in session.items):
        cache = tempfile.mkdtemp(prefix="gripwire-test-")
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (_QUIET | {"HF_DATASETS_CACHE": cache}).items():
                patch.setenv(name, value)
            capture = session.config.pluginmanager.getplugin("capturemanager")
            capture.resume_global_capture()
            forkserver()
            multiprocessing.forkserver.ensure_running()
            capture.suspend_global_capture()


@pytest.fixture(scope="session", autouse=True)
def _quiet_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _QUIET.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(name="make_settings")
def _make_settings() -> Callable[..., Settings]:
    return make_settings


@pytest.fixture
def make_bench() -> Iterator[Callable[[Settings], Bench]]:
    opened: list[Bench] = []

    def make(settings: Settings) -> Bench:
        opened.append(Bench(settings))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Callable[..., tuple[Rig, Bench]]]:
    """Makes a recorder and its bench, with [recorder] settings given by name."""
    yield from make_rigs(tmp_path)


@pytest.fixture(scope="module")
def module_rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[Rig, Bench]]]:
    """The same, for what several tests look at."""
    yield from make_rigs(tmp_path_factory.mktemp("recorded"))
