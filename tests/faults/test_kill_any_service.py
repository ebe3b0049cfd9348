"""Killing any one service with SIGKILL while `gripwire up` runs."""

import os
import signal
from itertools import accumulate
from pathlib import Path

import pytest

from gripwire.control import request
from gripwire.messages import StartEpisode, StopEpisode
from tests.faults import table
from tests.faults.conftest import GROWTH_MIB, SERVICES, Stack

STARTING_S = 3.0
WORKS_S = {"recorder": 25.0, "trainer": 25.0}
ROUNDS = 5 if table.IN_FULL else 1

WORST = {service: [0.0, 0.0, 0.0] for service in SERVICES}
"""Of all rounds: seconds to the heartbeat, seconds to work, MiB that the others took."""

# What "works again" means: a message that only a working service sends.
EVIDENCE = {
    "sim": ("camera/gripper_cam", lambda m: m.valid),
    "camera/gripper_cam": ("camera/gripper_cam", lambda m: m.valid),
    "robot": ("robot/state", lambda m: m.valid),
    "reward": ("reward", lambda m: m.frame_seq >= 0),
    "recorder": ("health/recorder", lambda m: m.state == "ready"),
    "trainer": ("health/trainer", lambda m: m.state == "ready"),
}
# Without the bench there is no picture and no servo bus: these may complain, but must not die.
NEEDS = {"sim": {"camera/gripper_cam", "robot"}}


def _record(stack: Stack, dataset: str) -> None:
    """One short episode, on disk when this returns."""
    control = stack.settings.topics.control("recorder")
    rows = stack.fresh("episode", lambda m: m.state == "recording" and m.rows >= 10)
    request(control, "recorder", StartEpisode(task="grasp", dataset=dataset, append=True), timeout_s=30)
    stack.until(rows, 20, "ten rows recorded")
    before = stack.survey.latest["episode"].saved
    request(control, "recorder", StopEpisode(), timeout_s=30)
    stack.until(lambda: stack.survey.latest["episode"].saved > before, 120, "the episode is saved")


def _episodes(dataset: Path) -> list[int]:
    """Rows per episode, as LeRobot itself reads them; the last row of each comes with its picture."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    opened = LeRobotDataset(f"local/{dataset.name}", root=dataset, video_backend="pyav")
    lengths = [int(rows) for rows in opened.meta.episodes["length"]]
    for episode, end in enumerate(accumulate(lengths)):
        assert int(opened[end - 1]["episode_index"]) == episode
    assert len(opened) == sum(lengths)
    return lengths


@pytest.mark.timeout(400)
@pytest.mark.parametrize("service", SERVICES * ROUNDS)
def test_it_is_back_in_time_and_the_others_go_on(running: Stack, service: str) -> None:
    running.all_well()
    pids, memory = {s: running.pid(s) for s in SERVICES}, running.memory()
    topic, works = EVIDENCE[service]
    running.survey.listen(0.2)
    os.kill(pids[service], signal.SIGKILL)

    reborn = running.until(
        lambda: running.health(service).pid != pids[service],
        5 * STARTING_S,
        f"{service} has a heartbeat again",
    )
    back = reborn + running.until(running.fresh(topic, works), 120, f"{service} works again")
    running.until(lambda: running.is_well(service), 120, f"{service} is well")

    table.in_time(f"{service} has a heartbeat again", reborn, STARTING_S)
    table.in_time(f"{service} works again", back, WORKS_S.get(service, 10.0))
    others = [s for s in SERVICES if s != service]
    assert {s: running.health(s).pid for s in others} == {s: pids[s] for s in others}
    running.until(lambda: all(running.is_well(s) for s in others), 60, "the others are all well")
    now = running.memory()
    growth = max(now[s] - memory[s] for s in others)
    assert growth < GROWTH_MIB, (memory, now)
    worst = WORST[service] = [max(pair) for pair in zip(WORST[service], (reborn, back, growth), strict=True)]
    table.note(
        f"{service} killed (SIGKILL)",
        f"a heartbeat again within {STARTING_S:g} s, at work within {WORKS_S.get(service, 10.0):g} s; "
        "the others go on",
        f"{worst[0]:.1f} s, {worst[1]:.1f} s; memory of the others {worst[2]:+.1f} MiB; worst of {ROUNDS}",
    )


@pytest.mark.timeout(500)
def test_what_was_saved_before_the_recorder_was_killed_is_all_there(running: Stack) -> None:
    _record(running, "kept")
    control = running.settings.topics.control("recorder")
    dataset = running.settings.data / "datasets" / "kept"
    before = _episodes(dataset)
    rows = running.fresh("episode", lambda m: m.state == "recording" and m.rows >= 5)
    request(control, "recorder", StartEpisode(task="grasp", dataset="kept", append=True), timeout_s=30)
    running.until(rows, 20, "a second episode is under way")
    pid = running.health("recorder").pid
    os.kill(pid, signal.SIGKILL)
    running.until(
        lambda: running.health("recorder").pid != pid and running.is_well("recorder"),
        120, "the recorder is back",
    )  # fmt: skip
    assert _episodes(dataset)[: len(before)] == before
    _record(running, "kept")
    after = _episodes(dataset)
    assert after[: len(before)] == before and len(after) > len(before)
