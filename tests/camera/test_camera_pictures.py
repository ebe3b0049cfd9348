"""What is known of a picture without decoding it, and whether the camera still looks."""

import types

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gripwire import jpeg
from gripwire_camera.frozen import Frozen
from gripwire_camera.service import encode
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture
from tests.helpers import with_orientation

SECOND = 1_000_000_000


@pytest.mark.parametrize("size", [(160, 120), (640, 480), (1280, 720)])
def test_the_size_is_read_from_the_frame_header(
    helpers: types.SimpleNamespace, size: tuple[int, int]
) -> None:
    assert jpeg.size(helpers.jpeg(helpers.numbered(5, size))) == size


def test_a_progressive_picture_has_a_size_too(helpers: types.SimpleNamespace) -> None:
    ok, data = cv2.imencode(".jpg", helpers.numbered(5), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert ok
    assert jpeg.size(data.tobytes()) == (160, 120)


@given(st.binary(max_size=200))
def test_what_is_no_jpeg_is_refused_and_never_crashes(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JPEG"):
        jpeg.size(b"\x00" + data)
    jpeg.end(data)
    jpeg.complete(data)


def test_padding_after_the_end_marker_is_still_a_whole_picture(helpers: types.SimpleNamespace) -> None:
    picture = helpers.jpeg(helpers.numbered(1))
    assert jpeg.complete(picture + b"\0" * 20)
    assert not jpeg.complete(picture[:-2])


def test_the_same_bytes_for_a_second_are_a_frozen_picture() -> None:
    frozen = Frozen()
    assert [frozen.see(b"same", t * SECOND // 4) for t in range(6)] == [False] * 4 + [True] * 2


def test_one_different_picture_thaws_it() -> None:
    frozen = Frozen()
    frozen.see(b"a", 0)
    assert frozen.see(b"a", 2 * SECOND)
    assert not frozen.see(b"b", 3 * SECOND)
    assert not frozen.see(b"b", 3 * SECOND + SECOND // 2)


def test_a_lively_camera_is_never_frozen() -> None:
    frozen = Frozen()
    assert not any(frozen.see(b"%d" % t, t * SECOND // 30) for t in range(300))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_raw_frame_is_not_turned_by_the_jpegs_orientation(orientation: int) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30, 0] = 200  # BGR: the upper left quarter is blue
    jpeg = with_orientation(cv2.imencode(".jpg", image)[1].tobytes(), orientation)
    encoding, payload = encode(Picture(jpeg, 60, 40, 0), Camera(encoding="raw"))
    pixels = np.frombuffer(payload, np.uint8).reshape(40, 60, 3)
    assert encoding == "rgb8"
    assert pixels[5, 5, 2] > 150
    assert pixels[35, 55, 2] < 50
    assert encode(Picture(jpeg, 60, 40, 0), Camera()) == ("jpeg", jpeg)
