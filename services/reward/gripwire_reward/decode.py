"""A camera message's payload to a picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire import jpeg
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
    if frame.encoding == "rgb8":
        if data.size != frame.height * frame.width * 3:
            raise UserError(
                f"frame {frame.seq} of camera {frame.camera}: {data.size} bytes are no "
                f"{frame.width}x{frame.height} picture; restart the camera service"
            )
        return data.reshape(frame.height, frame.width, 3)
    _check_size(frame, payload)
    image = cv2.imdecode(data, _FLAGS)
    if image is None:
        raise _not_a_jpeg(frame)
    return np.asarray(image, np.uint8)


def _check_size(frame: Frame, payload: Buffer) -> None:
    """Before it is decoded: a small file can hold a picture that fills the memory."""
    try:
        width, height = jpeg.size(bytes(payload))
    except ValueError as e:
        raise _not_a_jpeg(frame) from e
    if (width, height) != (frame.width, frame.height):
        raise UserError(
            f"frame {frame.seq} of camera {frame.camera} is {width}x{height}, its header says "
            f"{frame.width}x{frame.height}; restart the camera service"
        )


def _not_a_jpeg(frame: Frame) -> UserError:
    return UserError(f"frame {frame.seq} of camera {frame.camera} is not a JPEG; check cable and camera")
