"""A camera message's payload as the recorder reads it."""

import cv2
import numpy as np
import pytest

from gripwire_recorder.picture import decode
from gripwire_recorder.take import Picture
from tests.helpers import with_orientation


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_jpeg_with_an_orientation_is_recorded_as_it_is(orientation):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30, 0] = 200  # BGR: the upper left quarter is blue
    jpeg = with_orientation(cv2.imencode(".jpg", image)[1].tobytes(), orientation)
    turned = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert turned[5, 5, 0] < 100, "the tag must be one that others obey"
    pixels = decode(Picture(0, "", 0, -1, 60, 40, "jpeg", jpeg))
    assert pixels.shape == (40, 60, 3)
    assert pixels[5, 5, 2] > 150 and pixels[35, 55, 2] < 50


def test_what_is_not_the_announced_picture_is_not_recorded():
    jpeg = cv2.imencode(".jpg", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    assert decode(Picture(0, "", 0, -1, 60, 40, "jpeg", jpeg[:100])) is None
    assert decode(Picture(0, "", 0, -1, 40, 60, "jpeg", jpeg)) is None
    assert decode(Picture(0, "", 0, -1, 60, 40, "rgb8", bytes(7199))) is None
    assert decode(Picture(0, "", 0, -1, 60, 40, "rgb8", bytes(7200))).shape == (40, 60, 3)
