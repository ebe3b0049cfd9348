"""Progress of a job on a terminal."""

import sys
import time


class Progress:
    """One line per stage, rewritten in place on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._stage = ""

    def __call__(self, stage: str, part: float, metrics: dict[str, float]) -> None:
        if stage != self._stage:
            self._stage, self._start, self._told = stage, time.monotonic(), False
        spent = time.monotonic() - self._start
        left = f", {spent / part - spent:.0f} s left" if 0.02 < part < 1 else ""
        line = f"{stage:<9} {part:4.0%}  {spent:5.1f} s{left}"
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="\n" if part >= 1 else "", file=sys.stderr, flush=True)
        elif part >= 1 and not self._told:
            print(line, file=sys.stderr, flush=True)
        self._told = part >= 1


def quiet(stage: str, part: float, metrics: dict[str, float]) -> None:
    """No progress at all: for programs."""
