"""LeRobot's SO-101 driver, imported in a second instead of six.

The driver itself needs neither PyTorch nor pandas: modules on the way to it name a few torch types in
annotations, and a helper of its bus looks whether pandas is there. Those two cost 6 of 7.5 seconds of
processor time and 500 MB. A robot service that is restarted with the arm in mid-air cannot wait for them, so
they are left out while the driver is imported. Whatever asks for more of torch than those types gets it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_TYPES = frozenset({"Tensor", "device", "dtype"})


class _LaterTorch(ModuleType):
    """Stands where `import torch` was executed; loads the real one when it is really used."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.__spec__ = importlib.util.find_spec("torch")  # LeRobot asks whether torch is installed

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
    absent = {"torch", "pandas"} - sys.modules.keys()
    if "torch" in absent:
        sys.modules["torch"] = _LaterTorch()
    if "pandas" in absent:
        sys.modules["pandas"] = None  # type: ignore[assignment]  # "not installed", says the import system
    try:
        from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
    finally:
        for name in absent:
            if sys.modules.get(name) is None or isinstance(sys.modules[name], _LaterTorch):
                sys.modules.pop(name, None)
    return SO101Follower, SO101FollowerConfig
