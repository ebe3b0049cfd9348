"""All frames of an episode on one picture, each under its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 160
"""Width of a tile in pixels."""

MOST = 1000
"""Tiles on a sheet; of more, every second, third ... is shown."""

_COLUMNS = 12
_STRIP, _FRAME, _GAP, _TITLE = 20, 3, 6, 34
_BACK, _PLAIN, _SUCCESS = (24, 24, 24), (70, 70, 70), (0, 150, 60)
_INK = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Tile:
    """One frame: its 0-based index in the episode, its picture, and whether it is labelled success."""

    index: int
    picture: NDArray[np.uint8]
    success: bool = False


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at a tile's width: sheets of long episodes need not hold it whole."""
    height, width = picture.shape[:2]
    how = cv2.INTER_AREA if width > TILE else cv2.INTER_NEAREST
    size = (TILE, max(1, round(height * TILE / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def contact_sheet(title: str, tiles: Sequence[Tile]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Tiles are of one size; those of success are framed in green."""
    tiles = tiles[:: ceil(len(tiles) / MOST)]
    columns = min(_COLUMNS, ceil(sqrt(1.6 * len(tiles))))
    rows = ceil(len(tiles) / columns)
    cells = [_cell(tile) for tile in tiles]
    height, width = cells[0].shape[0] + _GAP, cells[0].shape[1] + _GAP
    title = title.encode("ascii", "replace").decode()
    (text_width, _), _ = cv2.getTextSize(title, _FONT, 0.55, 1)
    shape = (_TITLE + rows * height, max(columns * width, text_width) + _GAP, 3)
    sheet = np.full(shape, _BACK, np.uint8)
    cv2.putText(sheet, title, (_GAP, 23), _FONT, 0.55, _INK, 1, cv2.LINE_AA)
    for i, cell in enumerate(cells):
        top, left = _TITLE + i // columns * height, _GAP + i % columns * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _cell(tile: Tile) -> NDArray[np.uint8]:
    """A tile in its frame, its number on a strip above."""
    colour = _SUCCESS if tile.success else _PLAIN
    picture = small(tile.picture)
    height, width = picture.shape[:2]
    cell = np.full((_STRIP + height + _FRAME, width + 2 * _FRAME, 3), colour, np.uint8)
    cell[_STRIP : _STRIP + height, _FRAME : _FRAME + width] = picture
    cv2.putText(cell, str(tile.index), (_FRAME + 2, 15), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return cell
