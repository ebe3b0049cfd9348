"""A camera message's payload to pixels. No LeRobot here: this is cheap to import."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire import jpeg
from gripwire_recorder.take import Picture

Pixels = NDArray[np.uint8]

# A camera's orientation tag is ignored, as the reward does: what is trained on must be what is scored.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def decode(picture: Picture) -> Pixels | None:
    """The picture as uint8 RGB (height, width, 3); None when its bytes are not one."""
    shape = (picture.height, picture.width, 3)
    if picture.encoding == "rgb8":
        raw = np.frombuffer(picture.data, np.uint8)
        return raw.reshape(shape) if raw.size == math.prod(shape) else None
    try:
        if jpeg.size(picture.data) != (picture.width, picture.height):  # it could fill the memory
            return None
        bgr = cv2.imdecode(np.frombuffer(picture.data, np.uint8), _FLAGS)
    except (ValueError, cv2.error):
        return None
    if bgr is None or bgr.shape != shape:
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
