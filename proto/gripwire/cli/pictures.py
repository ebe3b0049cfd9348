"""Pictures in a terminal: two pixels to a character by half blocks, or shades where there is no colour."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError

if TYPE_CHECKING:
    from gripwire.messages import Frame
    from gripwire.wire import Buffer

_SHADES = " .:-=+*#%@"
_CELL = 2.0
"""A terminal's character is about twice as high as it is wide."""


def decode(frame: "Frame", payload: "Buffer", columns: int) -> NDArray[np.uint8]:
    """The picture as RGB, (height, width, 3), no narrower than ``columns`` if it was not to begin with.

    Raises:
        UserError: no decoder for JPEG is installed.
        ValueError: these bytes are no such picture.
    """
    if frame.encoding == "rgb8":
        return np.frombuffer(payload, np.uint8).reshape(frame.height, frame.width, 3)
    try:
        import cv2
    except ImportError:
        return _with_pillow(payload, columns)
    # libjpeg leaves away what would be thrown away: an eighth of the picture costs an eighth of the time.
    reduced: Any = {
        8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2,
    }  # fmt: skip
    divisor = next((d for d in (8, 4, 2) if frame.width // d >= columns), 1)
    flags = reduced.get(divisor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image: Any = cv2.imdecode(np.frombuffer(payload, np.uint8), flags)
    if image is None:
        raise ValueError("the JPEG cannot be decoded")
    return np.ascontiguousarray(image[:, :, ::-1])


def _with_pillow(payload: "Buffer", columns: int) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError:
        raise UserError(
            "to show JPEG pictures, opencv-python-headless or pillow must be installed here: "
            "`pip install opencv-python-headless`; --no-picture prints the fields alone"
        ) from None
    import io

    try:
        with Image.open(io.BytesIO(bytes(payload))) as image:
            image.draft("RGB", (columns, columns))
            return np.asarray(image.convert("RGB"))
    except OSError as e:
        raise ValueError(f"the JPEG cannot be decoded: {e}") from e


def fit(width: int, height: int, columns: int, lines: int) -> tuple[int, int]:
    """Columns and lines for a picture of that size in at most ``columns`` by ``lines`` characters."""
    wide = max(1, min(columns, round(lines * _CELL * width / height)))
    return wide, max(1, min(lines, round(wide * height / width / _CELL)))


def shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture at ``width`` by ``height``, each pixel the mean of those that it stands for."""
    rows = np.linspace(0, image.shape[0], height + 1).astype(int)
    columns = np.linspace(0, image.shape[1], width + 1).astype(int)
    if height > image.shape[0] or width > image.shape[1]:  # larger than it is: repeat
        repeated: NDArray[np.uint8] = image[rows[:-1]][:, columns[:-1]]
        return repeated
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.uint32), rows[:-1], 0), columns[:-1], 1)
    counts = np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None]
    means: NDArray[np.uint8] = (sums // counts).astype(np.uint8)
    return means


def half_blocks(image: NDArray[np.uint8], columns: int, lines: int) -> list[str]:
    """RGB in lines of 24-bit colour: the upper half of a character is one pixel, its ground the other."""
    small = shrink(image, columns, lines * 2)
    out = []
    for upper, lower in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        cells = [
            f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        ]
        out.append("".join(cells) + "\x1b[0m")
    return out


def shades(image: NDArray[np.uint8], columns: int, lines: int) -> list[str]:
    """The picture in plain characters, by how much of their cell they fill."""
    luma = shrink(image, columns, lines).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    steps = np.minimum((luma / 256 * len(_SHADES)).astype(int), len(_SHADES) - 1)
    return ["".join(_SHADES[step] for step in row) for row in steps.tolist()]
