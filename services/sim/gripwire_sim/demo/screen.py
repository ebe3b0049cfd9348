"""What the demo shows while it works: a line per stage on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Screen:
    """Stages in order, each with a bar and a word on what happens now. Keeps the wall time of each."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.wall_s: dict[str, float] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<24}"),
            BarColumn(24),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._progress.start()
        self._task: TaskID | None = None
        self._began = 0.0
        self._said = ""

    @contextmanager
    def stage(self, key: str, title: str, total: float) -> Iterator[None]:
        """One stage; its wall time is kept under ``key``."""
        self._task = self._progress.add_task(title, total=total, now="")
        self._began, self._said = time.monotonic(), ""
        if not self.console.is_terminal:
            self.console.print(f"== {title}")
        yield
        self.wall_s[key] = round(time.monotonic() - self._began, 2)
        self._progress.update(self._task, completed=total)

    def show(self, now: str, done: float | None = None) -> None:
        """What happens now, and how far the stage is."""
        if self._task is not None:
            self._progress.update(self._task, now=now, **({} if done is None else {"completed": done}))
        if not self.console.is_terminal and now != self._said:
            self._said = now
            self.console.print(f"   {time.monotonic() - self._began:5.1f} s  {now}")

    def close(self) -> None:
        self._progress.stop()
