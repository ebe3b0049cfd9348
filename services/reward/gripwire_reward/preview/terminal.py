"""The preview in a terminal: the model's input in half blocks, and a line of figures."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire.cli.keys import Keys
from gripwire_reward.preview.feed import Shown

COLUMNS = 64


def blocks(picture: NDArray[np.uint8], columns: int = COLUMNS) -> list[str]:
    """The picture (h, w, 3) RGB in lines of 24-bit colour, two pixels to a character."""
    rows = max(2, round(columns * picture.shape[0] / picture.shape[1] / 2) * 2)
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = [
            f"\x1b[38;2;{a};{b};{c}m\x1b[48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper.tolist(), lower.tolist(), strict=True)
        ]
        lines.append("".join(cells) + "\x1b[0m")
    return lines


def figures(shown: Shown, threshold: float) -> list[str]:
    """What the picture of the preview says, in lines of plain text."""
    reward = shown.reward
    said = "NOT VALID" if not reward.valid else "SUCCESS" if reward.decision else "no success"
    probability = "   -  " if reward.probability is None else f"{reward.probability:6.3f}"
    filled = round(40 * (reward.probability or 0.0))
    bar = "".join("|" if i == round(40 * threshold) else "#" if i < filled else "." for i in range(41))
    return [
        f"{said:<10}  probability {probability}  [{bar}]  threshold {threshold:.2f}",
        f"model {reward.model[:12] or 'none'}  epoch {reward.epoch}  frame {reward.frame_seq}  "
        f"{shown.age_ms:.0f} ms old",
        shown.problem or reward.reason,
    ]


class Terminal:
    """Draws over itself on ``out``."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._keys = Keys()

    def show(self, shown: Shown, threshold: float, said: str) -> None:
        picture = shown.picture if shown.sees is None else shown.sees
        lines = [*blocks(picture), *figures(shown, threshold), said]
        text = "\r\n".join(f"{line}\x1b[K" for line in lines)
        self._out.write(f"\x1b[H{text}\x1b[J")
        self._out.flush()

    @contextmanager
    def keys(self) -> Iterator["Terminal"]:
        """Read keys one by one, and leave the terminal as it was."""
        with self._keys:
            if self._keys.there:
                self._out.write("\x1b[2J")
            yield self
        if self._keys.there:
            self._out.write("\x1b[0m\r\n")

    def pressed(self) -> str:
        """The key that was pressed meanwhile; empty for none."""
        return self._keys.pressed()
