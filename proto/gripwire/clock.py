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


_boot = ""


def _new_boot() -> None:
    global _boot
    _boot = uuid.uuid4().hex[:16]


# Not at the first question: two threads that ask at once would each get an id of their own.
_new_boot()
os.register_at_fork(after_in_child=_new_boot)


def boot_id() -> str:
    """A random id of this process; a forked child gets its own."""
    return _boot
