"""The virtual bench: a simulated SO-101 arm and camera that the product meets as devices, not as code."""

import os
import sys

__version__ = "0.1.0"

if sys.platform == "linux":
    # Without a display only EGL draws; it must be chosen before mujoco is first imported.
    os.environ.setdefault("MUJOCO_GL", "egl")
