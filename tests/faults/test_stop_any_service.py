"""Stopping any one service with SIGSTOP while `gripwire up` runs, and letting it go on."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from gripwire import clock, control
from gripwire.messages import Frame, Hold, Message, Reward
from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, SERVICES, Stack

# What a service says at its rate; the others are known by their heartbeat alone, silent after ten periods.
STREAM = {"camera/gripper_cam": "camera/gripper_cam", "robot": "robot/state", "reward": "reward"}
STOPPED_S = 4.0
SOME = SERVICES if table.IN_FULL else ("camera/gripper_cam", "reward")
OLD_S = 1.0


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that are let go on at the end, whatever happens."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _silent_after_s(stack: Stack, topic: str) -> float:
    """Listen until ``topic`` is no longer alive; seconds since its last message."""
    stack.until(lambda: not stack.survey.judge()[topic].alive, 30, f"{topic} reads as silent")
    age = stack.survey.judge()[topic].age_s
    assert age is not None
    return age


def _collect(stack: Stack, seconds: float) -> list[tuple[str, Message, int]]:
    end, arrived = time.monotonic() + seconds, []
    while (left := end - time.monotonic()) > 0:
        arrived += [(name, r.message, r.t_receive) for name, r in stack.survey.listen(left)]
    return arrived


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", SOME)
def test_it_reads_as_silent_the_others_go_on_and_nothing_old_comes_as_new(
    running: Stack, stopped: list[int], service: str
) -> None:
    running.all_well()
    before = running.memory()
    pids = {s: running.pid(s) for s in SERVICES}
    topic = STREAM.get(service, f"health/{service}")
    feeds = "camera/gripper_cam" if service == "sim" else topic
    running.survey.listen(0.5)

    stopped.append(pids[service])
    os.kill(pids[service], signal.SIGSTOP)
    stop = clock.monotonic_ns()
    silent = _silent_after_s(running, feeds)
    declared = running.settings.topics[feeds].rate_hz
    assert declared
    table.in_time(f"{feeds} reads as silent", silent, 10 / declared + 1.0)

    if service in ("camera/gripper_cam", "sim"):
        # Nobody sees anything: the reward says so, and says no.
        running.until(
            running.fresh("reward", lambda r: not r.valid and not r.decision), 30, "it fails closed"
        )
    passed = (clock.monotonic_ns() - stop) / 1e9
    heard = _collect(running, max(STOPPED_S - passed, 1.5))
    beats = {m.service for name, m, _ in heard if name.startswith("health/")}
    assert {s for s in SERVICES if s != service} <= beats, "the others go on"
    if service in ("camera/gripper_cam", "sim"):
        assert not [m for _, m, _ in heard if isinstance(m, Reward) and (m.valid or m.decision)]

    cont = clock.monotonic_ns()
    os.kill(pids[service], signal.SIGCONT)
    after = _collect(running, 3.0)
    # What was on its way when it stopped, or waited meanwhile, is not vouched for.
    late = [m for _, m, t in after if isinstance(m, Frame | Reward) and m.valid and m.t_publish > cont]
    stale = [m for m in late if m.t_capture < cont - OLD_S * 1e9]
    if service == "robot":
        control.request(running.settings.topics.control("robot"), "robot", Hold(), timeout_s=20)
    running.all_well()
    running.until(running.fresh("reward", lambda r: r.valid), 60, "the reward is valid again")
    now = running.memory()
    growth = max(now[s] - before[s] for s in SERVICES)
    assert not stale, f"{len(stale)} old pictures came as new: {stale[0]}"
    assert {s: running.pid(s) for s in SERVICES} == pids, "nobody was restarted"
    assert growth < GROWTH_MIB, (before, now)
    table.note(
        f"{service} stopped (SIGSTOP) for {STOPPED_S:g} s or more, then let go on",
        "it reads as silent in due time, the others go on, nothing old comes as new, the reward fails closed",
        f"silent after {silent:.2f} s; {len(late)} valid pictures and rewards in the 3 s after it went on, "
        f"none of them from before; memory {growth:+.1f} MiB at most",
    )
