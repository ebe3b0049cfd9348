"""What several trainer tests share: sources made once."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer import synthetic


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int | None]]:
    """A v2.1 dataset of twelve short episodes with success shown in red, and where success begins."""
    made = synthetic.episodes(12)
    path = synthetic.write_v21(tmp_path_factory.mktemp("coloured") / "set", [shown for shown, _ in made])
    return path, [start for _, start in made]


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v2.1 dataset of three episodes whose pictures carry their own number."""
    shown = [[synthetic.numbered(40 * e + i) for i in range(20 + e)] for e in range(3)]
    return synthetic.write_v21(tmp_path_factory.mktemp("counted") / "set", shown)


@pytest.fixture(scope="module")
def lerobot_asks_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """LeRobot keeps what it reads in a folder of the test, and looks no address up."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(socket, "getaddrinfo", lambda *where, **_: pytest.fail(f"asked for {where}"))
        yield
