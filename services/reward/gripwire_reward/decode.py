"""A camera message's payload to a picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.messages import Frame
from gripwire.wire import Buffer

# Orientation tags are ignored: training pictures carry none, and a turned picture is another picture.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(frame: Frame, payload: Buffer | None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB.

    Raises:
        UserError: there is no payload, it does not decode, or its size is not what the header says.
    """
    if not payload:
        raise UserError(
            f"frame {frame.seq} of camera {frame.camera} has no picture; restart the camera service"
        )
    data = np.frombuffer(payload, np.uint8)
    if frame.encoding == "jpeg":
        image = cv2.imdecode(data, _FLAGS)
        if image is None:
            raise UserError(
                f"frame {frame.seq} of camera {frame.camera} is not a JPEG; check cable and camera"
            )
    elif data.size == frame.height * frame.width * 3:
        image = data.reshape(frame.height, frame.width, 3)
    else:
        raise UserError(
            f"frame {frame.seq} of camera {frame.camera}: {data.size} bytes are no "
            f"{frame.width}x{frame.height} "
            "picture; restart the camera service"
        )
    if image.shape != (frame.height, frame.width, 3):
        raise UserError(
            f"frame {frame.seq} of camera {frame.camera} is {image.shape[1]}x{image.shape[0]}, its "
            "header says "
            f"{frame.width}x{frame.height}; restart the camera service"
        )
    return np.asarray(image, np.uint8)
