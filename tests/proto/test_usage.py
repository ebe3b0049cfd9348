"""What a process uses, those that it started included."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gripwire.usage import UsageMeter

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells")


def test_what_this_process_does_is_counted() -> None:
    meter = UsageMeter()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    usage = meter.read()
    assert usage.cpu_percent > 1 and usage.rss_mb > 5 and usage.threads >= 1


def test_a_child_counts_as_its_parent_and_one_that_ended_does_no_harm() -> None:
    busy = "import sys; x = bytearray(60_000_000); print(flush=True); sys.stdin.read()"
    meter = UsageMeter()
    before = meter.read()
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        with_child = meter.read()
        child.stdin.close()
    after = meter.read()
    assert with_child.rss_mb > before.rss_mb + 50 and with_child.threads > before.threads
    assert after.rss_mb < with_child.rss_mb - 50 and after.cpu_percent < 100_000
