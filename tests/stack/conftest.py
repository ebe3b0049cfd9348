"""The sim profile, built and up, for all tests of this folder; nothing of it is left at the end."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import _is_free
from tests.stack.base_image import base_image
from tests.stack.engine import engine
from tests.stack.project import UID, Project, build, need_compose, variables


@pytest.fixture(scope="session")
def docker() -> Iterator[dict[str, str]]:
    """The environment of an engine with compose."""
    folder = Path(tempfile.mkdtemp(prefix="gripwire-engine-"))
    try:
        with engine(folder) as environment:
            yield need_compose(environment, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def project(docker: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Images built, data folder made, nothing up yet; at the end everything down."""
    folder = tmp_path_factory.mktemp("stack")
    data = folder / "data"
    data.mkdir()
    shutil.chown(data, UID, UID)
    base = base_image(docker, folder)
    environment = variables(docker, base, data, _free_hundred())
    seconds = build(environment)
    print(f"images built in {seconds:.0f} s (TORCH={environment['TORCH']}, from {base})")
    project = Project(
        environment, data, int(environment["PORTS"]) * 100, f"gripwire-test-{environment['PORTS']}"
    )
    yield project
    project.compose("down", "--volumes", "--timeout", "30", check=False)


def _free_hundred() -> int:
    """The first of a hundred ports that nothing listens on."""
    while True:
        base = 100 * random.SystemRandom().randrange(110, 310)
        if all(_is_free(base + offset) for offset in range(100)):
            return base
