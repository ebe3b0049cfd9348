"""Importing OpenCV, which is slow to load and talkative: only where a picture is opened, coded or decoded."""

import os
from typing import Any


def load() -> Any:
    """The module ``cv2``, quiet, on one thread, and not waiting 10 s for a picture from V4L2."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
    import cv2

    cv2.setNumThreads(1)
    return cv2
