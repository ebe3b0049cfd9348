"""Pictures in a terminal."""

import re
import sys

import cv2
import numpy as np
import pytest

from gripwire.cli import pictures
from gripwire.errors import UserError
from gripwire.messages import Frame

HALVES = np.zeros((48, 64, 3), np.uint8)  # red above, white below
HALVES[:24] = (200, 0, 0)
HALVES[24:] = 255


def _frame(encoding: str) -> Frame:
    return Frame(camera="c", width=64, height=48, encoding=encoding)  # type: ignore[arg-type]


def test_half_blocks_have_the_colours_of_two_pixels_each() -> None:
    lines = pictures.half_blocks(HALVES, 3, 1)
    assert lines == ["\x1b[38;2;200;0;0;48;2;255;255;255m▀" * 3 + "\x1b[0m"]


def test_without_colour_brighter_is_denser() -> None:
    dark, bright = pictures.shades(HALVES, 4, 2)
    assert set(bright) == {"@"} and len(set(dark)) == 1 and dark[0] not in "@ "


def test_a_picture_keeps_its_proportions_within_the_terminal() -> None:
    assert pictures.fit(640, 480, 80, 22) == (59, 22)
    assert pictures.fit(640, 480, 40, 22) == (40, 15)
    assert pictures.fit(10, 4000, 80, 22) == (1, 22)


def test_a_picture_smaller_than_the_terminal_is_made_larger() -> None:
    assert pictures.shrink(HALVES[22:26, :2], 6, 8)[:, 0].tolist() == [[200, 0, 0]] * 4 + [[255] * 3] * 4


@pytest.mark.parametrize("columns", [4, 20, 60, 200])
def test_jpeg_and_raw_show_the_same(columns: int) -> None:
    jpeg = cv2.imencode(".jpg", HALVES[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    raw = pictures.decode(_frame("rgb8"), HALVES.tobytes(), columns)
    decoded = pictures.decode(_frame("jpeg"), jpeg, columns)
    difference = np.abs(pictures.shrink(decoded, 4, 2).astype(int) - pictures.shrink(raw, 4, 2))
    assert difference.max() < 8 and decoded.shape[1] >= min(columns, 64)


def test_without_opencv_pillow_does_it_and_without_both_it_says_what_to_install(monkeypatch) -> None:
    jpeg = cv2.imencode(".jpg", HALVES[:, :, ::-1])[1].tobytes()
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert np.abs(pictures.decode(_frame("jpeg"), jpeg, 60)[5, 5].astype(int) - [200, 0, 0]).max() < 12
    with pytest.raises(ValueError, match="cannot be decoded"):
        pictures.decode(_frame("jpeg"), b"no picture", 60)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=re.escape("pip install opencv-python-headless")):
        pictures.decode(_frame("jpeg"), jpeg, 60)


def test_broken_bytes_are_no_picture() -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        pictures.decode(_frame("jpeg"), b"no picture", 60)
    with pytest.raises(ValueError):
        pictures.decode(_frame("rgb8"), b"too short", 60)
