"""A reader that takes one message a second, and one that has stopped: publishers and others do not notice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, SERVICES, Stack, resident_mib
from tests.helpers import ending

FOR_S = 60.0 if table.IN_FULL else 4.0
PATIENCE_S = 30.0
TOPICS = ("camera/gripper_cam", *(("robot/state", "reward") if table.IN_FULL else ()))
HELD = 0.8 if table.IN_FULL else 0.5  # of what it had before; a test must pass on a busy machine as well

# Reads as fast as told (a message every so many seconds), and gives an account on each line of its input.
READER = """
import json, sys, threading
from gripwire import settings
from gripwire.bus import Queued
topic, every_s = settings.load().topics[sys.argv[1]], float(sys.argv[2])
asked = threading.Event()
threading.Thread(target=lambda: [asked.set() for _ in sys.stdin], daemon=True).start()
with Queued(topic, topic.message) as reader:
    first = reader.receive(30).message.seq
    print("reading", flush=True)
    last = first
    while True:
        if received := reader.receive(1.0):
            last = received.message.seq
        if asked.wait(every_s) or not received:
            asked.clear()
            told = {"received": reader.received, "lost": reader.gaps.lost, "span": last - first + 1}
            print(json.dumps(told), flush=True)
"""


@pytest.fixture
def readers(running: Stack, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """For each topic a reader of one message a second, and one that is stopped right after its first."""
    script = tmp_path / "reader.py"
    script.write_text(READER)
    env = os.environ | running.settings.environment()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ending() as started:
        made = {}
        for topic in TOPICS:
            for name, every_s in (("slow", "1.0"), ("stopped", "0.0")):
                command = [sys.executable, script, topic, every_s]
                made[f"{name} {topic}"] = subprocess.Popen(command, env=env, **pipes)
                started.append(made[f"{name} {topic}"])
        for process in started:
            assert process.stdout and process.stdout.readline() == "reading\n"
        yield made


@pytest.mark.timeout(300)
def test_slow_and_stopped_readers_cost_publishers_no_memory_and_other_readers_no_message(
    running: Stack, readers: dict[str, subprocess.Popen[str]]
) -> None:
    running.all_well()
    before, mine = running.memory(), {name: resident_mib(p.pid) for name, p in readers.items()}
    for topic in TOPICS:
        running.rate_before(topic)
    lost = {topic: running.survey.meters[topic].gaps.lost for topic in TOPICS}
    for name, process in readers.items():
        if name.startswith("stopped"):
            process.send_signal(signal.SIGSTOP)
    arrived = running.listen(FOR_S)
    now = running.memory()
    growth = max(now[s] - before[s] for s in SERVICES)
    assert {t: running.survey.meters[t].gaps.lost for t in TOPICS} == lost, "another reader lost messages"
    for topic in TOPICS:
        assert arrived[topic] > HELD * FOR_S * running.rate_before(topic), f"{topic} is off its rate"
    for process in readers.values():
        process.send_signal(signal.SIGCONT)
    accounts = {name: _account(process) for name, process in readers.items()}
    theirs = max(resident_mib(p.pid) - mine[name] for name, p in readers.items())
    assert growth < GROWTH_MIB and theirs < GROWTH_MIB, (before, now)
    assert all(a["received"] + a["lost"] == a["span"] for a in accounts.values()), accounts
    table.note(
        f"a reader of one message a second and one stopped (SIGSTOP), for {FOR_S:g} s, on each of "
        f"{len(TOPICS)} topics",
        "publishers keep their rate and memory, other readers lose nothing, these two count what they lost",
        f"memory {growth:+.1f} MiB at most (readers: {theirs:+.1f}); others lost nothing; the slow ones "
        f"lost {sum(a['lost'] for n, a in accounts.items() if n.startswith('slow'))}, the stopped "
        f"{sum(a['lost'] for n, a in accounts.items() if n.startswith('stopped'))}, each counted",
    )


def _account(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))
