"""What tests of the reward service share."""

from collections.abc import Iterator

import pytest

from gripwire.settings import Settings
from tests.reward.bench import Bench


@pytest.fixture
def bench(stack: Settings) -> Iterator[Bench]:
    made = Bench(stack)
    yield made
    while made.started:
        made.stop()
    made.camera.close()
