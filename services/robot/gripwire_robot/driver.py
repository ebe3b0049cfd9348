"""LeRobot's SO-101 driver, imported in a second instead of six.

The driver itself needs neither PyTorch nor pandas: modules on the way to it name a few torch types in
annotations, and a helper of its bus looks whether pandas is there. Those two cost 6 of 7.5 seconds of
processor time and 500 MB. A robot service that is restarted with the arm in mid-air cannot wait for them, so
they are left out while the driver is imported. Whatever asks for more of torch than those types gets it.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from gripwire.messages import JOINTS

MODEL = "sts3215"
_TYPES = frozenset({"Tensor", "device", "dtype"})


class _LaterTorch(ModuleType):
    """Stands where `import torch` was executed; loads the real one when it is really used."""

    def __init__(self) -> None:
        super().__init__("torch")
        # LeRobot asks whether torch is installed. It need not be: the robot's image goes without.
        self.__spec__ = importlib.util.find_spec("torch") or ModuleSpec("torch", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        standing_in = sys.modules.get("torch") is self
        if standing_in and name in _TYPES:
            return type(name, (), {})
        if standing_in:
            del sys.modules["torch"]
        return getattr(importlib.import_module("torch"), name)


def so101_follower() -> tuple[Any, Any]:
    """LeRobot's ``SO101Follower`` and ``SO101FollowerConfig``."""
    module = _without_torch("lerobot.robots.so_follower")
    return module.SO101Follower, module.SO101FollowerConfig


def so101_leader() -> tuple[Any, Any]:
    """LeRobot's ``SO101Leader`` and ``SO101LeaderConfig``."""
    module = _without_torch("lerobot.teleoperators.so_leader")
    return module.SO101Leader, module.SO101LeaderConfig


def so101_bus(port: str) -> Any:
    """LeRobot's bus with the six motors of an SO-101, follower or leader, and no calibration."""
    feetech, motors = _without_torch("lerobot.motors.feetech"), _without_torch("lerobot.motors")
    joints = {
        joint: motors.Motor(i, MODEL, motors.MotorNormMode.DEGREES) for i, joint in enumerate(JOINTS, 1)
    }
    return feetech.FeetechMotorsBus(port, joints)


def _without_torch(name: str) -> Any:
    absent = {"torch", "pandas"} - sys.modules.keys()
    if "torch" in absent:
        sys.modules["torch"] = _LaterTorch()
    if "pandas" in absent:
        sys.modules["pandas"] = None  # type: ignore[assignment]  # "not installed", says the import system
    try:
        return importlib.import_module(name)
    finally:
        for module in absent:
            if sys.modules.get(module) is None or isinstance(sys.modules[module], _LaterTorch):
                sys.modules.pop(module, None)
