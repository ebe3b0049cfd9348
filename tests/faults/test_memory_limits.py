"""A service may not have the memory it needs: it says so, or is killed and started again."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire import control
from gripwire.messages import Train, TrainerState
from tests.faults import table
from tests.faults.conftest import SERVICES, Stack
from tests.trainer import synthetic
from tests.trainer.synthetic import QUICK

MIB = 1 << 20
ROOM_MIB = 24
GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),  # version 1
    (Path("/sys/fs/cgroup"), "memory.max"),  # version 2
)


@pytest.fixture(scope="module")
def labelled(stack_for_all: Stack) -> str:
    """Something to train on; its name."""
    shown = [pictures for pictures, _ in synthetic.episodes(8)]
    dataset = synthetic.write_v21(stack_for_all.settings.data / "datasets" / "memory", shown)
    starts = [start for _, start in synthetic.episodes(8)]
    return synthetic.write_labels(stack_for_all.settings.data / "labels", dataset, starts, "memory").stem


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may take ROOM_MIB more between them, where one may be made."""
    for root, limit in GROUPS:
        group = root / f"gripwire-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(ROOM_MIB * MIB))
        except OSError:
            group.rmdir()
            continue
        yield group
        for pid in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        group.rmdir()
        return
    pytest.skip("this system lets nobody set a process a limit of memory of its own (cgroups)")


def _train(stack: Stack, labels: str) -> str:
    order = Train(labels=labels, offer=False, options=QUICK.model_dump())
    return str(control.request(stack.settings.topics.control("trainer"), "trainer", order, timeout_s=60).text)


def _others(stack: Stack) -> dict[str, int]:
    return {s: stack.pid(s) for s in SERVICES if s != "trainer"}


@pytest.mark.timeout(300)
def test_a_training_without_memory_fails_in_words_and_the_service_goes_on(
    running: Stack, labelled: str
) -> None:
    running.all_well()
    others, pid = _others(running), running.pid("trainer")
    taken = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (taken + ROOM_MIB * MIB, resource.RLIM_INFINITY))
    try:
        job = _train(running, labelled)
        ended = running.fresh("trainer", lambda m: m.done and job.endswith(m.job))
        running.until(ended, 120, "the training ends")
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    state = running.survey.latest["trainer"]
    assert isinstance(state, TrainerState)
    assert "out of memory" in state.error and "mem_limit" in state.error, state.error
    assert running.pid("trainer") == pid and _others(running) == others
    table.note(
        f"training that may take {ROOM_MIB} MiB (RLIMIT_AS)",
        "the job fails and says why, the trainer and the others go on",
        "so it was: `training is out of memory`, with what to do; no process ended",
    )


@pytest.mark.timeout(300)
def test_a_service_that_the_kernel_kills_for_its_memory_is_started_again_and_the_log_says_why(
    running: Stack, labelled: str, small_group: Path
) -> None:
    running.all_well()
    others, pid = _others(running), running.pid("trainer")
    (small_group / "cgroup.procs").write_text(str(pid))
    _train(running, labelled)
    killed = running.until(lambda: running.pid("trainer") != pid, 120, "another trainer is there")
    running.until(lambda: running.is_well("trainer"), 90, "it is ready")
    assert "trainer was killed by SIGKILL (unless somebody did that, the memory" in running.log.read_text()
    assert _others(running) == others
    running.all_well()
    table.note(
        f"a service in a control group with {ROOM_MIB} MiB left, as a container's limit is",
        "the kernel kills it, it is started again, the log says what to look at, the others go on",
        f"killed and there again within {killed:.1f} s of the work that was too much; nobody else ended",
    )


def test_a_service_that_cannot_even_start_says_what_it_lacks(running: Stack) -> None:
    """As with a container's limit that was set far too low."""
    script = (
        "import sys\nfrom gripwire import service, settings\n"
        "class Hungry:\n"
        "    rate_hz, commands = 50.0, {}\n"
        "    def __init__(self, runtime): pass\n"
        "    def setup(self): self.held = bytearray(1 << 40)\n"
        "    def update(self): pass\n"
        "    def close(self, failed): pass\n"
        "sys.exit(service.run('console', settings.load(), Hungry))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | running.settings.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32)),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "console is out of memory" in done.stderr, done.stderr
    assert "this is a bug" not in done.stderr and "Traceback" not in done.stderr
