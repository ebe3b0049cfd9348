"""What was recorded is what LeRobot opens."""

import pytest


@pytest.fixture
def tools(request):
    return request.config.pluginmanager


def test_smoke(rigs):
    rig, bench = rigs()
    a = rig.record(1.5)
    print(a)
    b = rig.record(2.0)
    print(b)
    print(rig.notes())
