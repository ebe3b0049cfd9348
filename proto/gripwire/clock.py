"""Times and identities that go into every header."""

import os
import time
import uuid
from functools import cache
from pathlib import Path


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds: comparable between processes of one kernel, immune to clock jumps."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@cache
def host_id() -> str:
    """The kernel's boot id: containers on one machine share it, and with it one CLOCK_MONOTONIC.

    Where the kernel offers none (macOS), the machine's address stands in for it.
    """
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else f"node-{uuid.getnode():012x}"


_boot: tuple[int, str] = (0, "")


def boot_id() -> str:
    """A random id of this process; a forked child gets its own."""
    global _boot
    if _boot[0] != os.getpid():
        _boot = (os.getpid(), uuid.uuid4().hex[:16])
    return _boot[1]
