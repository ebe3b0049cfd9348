"""The virtual bench: a simulated SO-101 arm and camera that the product meets as devices, not as code."""

import ctypes
import os
import sys

__version__ = "0.1.0"


def _choose_opengl() -> str:
    """Without a display only EGL draws; mujoco does not even import where it was chosen and is missing."""
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "disable"
    return "egl"


if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
    os.environ["MUJOCO_GL"] = _choose_opengl()  # mujoco reads it when it is first imported
