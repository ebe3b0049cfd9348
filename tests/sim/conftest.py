"""One model for all tests: compiling it takes half a second."""

import pytest

from gripwire_sim.kinematics import Arm
from gripwire_sim.world import World


@pytest.fixture(scope="package")
def arm_model() -> Arm:
    return Arm()


@pytest.fixture(scope="package")
def world() -> World:
    """A world that stands still unless a test steps it. Tests lay out their own scene."""
    return World()
