"""For containers: a process that ends only when all that its command started has ended.

A container ends with its first process, and the kernel then kills whatever else runs in it. After a robot
service that was killed (for its memory, say) or crashed that would be the guard, before it has cut the arm's
torque.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36


def stay(command: Sequence[str]) -> int:
    """Run ``command`` with the signals that come here; its exit code (128 + n: signal n killed it), once the
    processes that it left behind have ended too. Children from before the call are none of its."""
    if sys.platform == "linux":  # else nobody hears of what is left behind
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    before, asked = _children(), list[int]()
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: Any) -> None:
        asked.append(number)
        if process:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    process = subprocess.Popen(command)
    if asked:  # before it was there
        process.send_signal(asked[0])
    code = process.wait()
    while _children() - before:
        os.wait()
    return code if code >= 0 else 128 - code


def _children() -> set[str]:
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
