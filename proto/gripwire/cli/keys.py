"""Single keys from a terminal, without waiting for Enter."""

import select
import sys
import termios
import tty
from typing import Any, Self


class Keys:
    """Within it keys are read one by one; afterwards the terminal is as it was. Where standard input is no
    terminal there are none."""

    def __init__(self) -> None:
        self.there = sys.stdin.isatty()
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if self.there:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self.there:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, wait_s: float = 0.0) -> str:
        """The key that was pressed meanwhile, or is within ``wait_s``; empty for none."""
        if self.there and select.select([sys.stdin], [], [], wait_s)[0]:
            return sys.stdin.read(1)
        return ""
