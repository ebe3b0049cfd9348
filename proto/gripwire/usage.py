"""What a process uses of the machine: read from Linux's /proc, of itself where there is none."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Memory in MB (2^20), the share of one core in per cent since the reading before, and threads."""

    rss_mb: float
    cpu_percent: float
    threads: int


class UsageMeter:
    """Reads this process and those that it started: a recorder's worker counts as the recorder."""

    def __init__(self) -> None:
        self._before = time.monotonic()
        self._cpu_s = {pid: cpu for pid, cpu, _, _ in _family(os.getpid())}

    def read(self) -> Usage:
        """What is used now; per cent since the last call. Takes a fraction of a millisecond."""
        now, family = time.monotonic(), _family(os.getpid())
        if not family:  # no /proc here
            return Usage(0.0, 0.0, threading.active_count())
        # A child that is new has worked since it began; one that ended takes its last moments with it.
        spent = sum(cpu - self._cpu_s.get(pid, 0.0) for pid, cpu, _, _ in family)
        seconds, self._before = max(now - self._before, 1e-3), now
        self._cpu_s = {pid: cpu for pid, cpu, _, _ in family}
        rss = sum(rss for _, _, rss, _ in family) / 2**20
        return Usage(round(rss, 1), round(100 * spent / seconds, 1), sum(n for *_, n in family))


def _family(pid: int) -> list[tuple[int, float, int, int]]:
    """Process id, seconds of CPU, bytes in memory and threads of a process and all below it (proc(5))."""
    try:
        # The command's name stands in parentheses and may hold any character: all else comes behind it.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        cpu_s, threads = (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[17])
        found = [(pid, cpu_s, int(fields[21]) * _PAGE, threads)]
        tasks = sorted((_PROC / str(pid) / "task").iterdir())
    except OSError:  # gone meanwhile
        return []
    children: list[str] = []
    for task in tasks:
        with suppress(OSError):  # this thread alone is gone
            children += (task / "children").read_text().split()
    for child in children:
        found += _family(int(child))
    return found
