"""Somebody sets the machine's clock, an hour on or an hour back: nothing but `t_wall` takes notice."""

import time

import pytest

from gripwire import clock, control
from gripwire.errors import UserError
from gripwire.messages import Freeze, StartEpisode, StopEpisode, Thaw
from tests.faults import table
from tests.faults.conftest import Stack

HOUR_S = 3600.0
TOPICS = ("camera/gripper_cam", "robot/state", "robot/action", "reward")
LISTEN_S = 5.0 if table.IN_FULL else 2.0


@pytest.mark.timeout(300)
def test_a_wall_clock_that_jumps_changes_no_age_no_rate_no_verdict_no_hold_and_no_recording(
    running: Stack,
) -> None:
    if not running.wall.environment:
        pytest.skip("there is no C compiler here to make a clock that jumps")
    running.all_well()
    for topic in TOPICS:
        running.rate_before(topic)
    topics = running.settings.topics
    lost = {t: running.survey.meters[t].gaps.lost for t in TOPICS}
    restarts = {t: running.survey.meters[t].gaps.restarts for t in TOPICS}
    control.request(topics.control("reward"), "reward", Freeze(by="clock", lease_s=120.0), timeout_s=20)
    rows = running.fresh("episode", lambda m: m.state == "recording" and m.rows >= 5)
    start = StartEpisode(task="grasp", dataset="jumps", append=True)
    control.request(topics.control("recorder"), "recorder", start, timeout_s=30)
    running.until(rows, 30, "an episode is recorded")
    least = 1.0
    try:
        for jump in (HOUR_S, -HOUR_S):
            running.wall.set(jump)
            came = running.listen(LISTEN_S)
            for topic in TOPICS:
                least = min(least, came[topic] / LISTEN_S / running.rate_before(topic))
                message = running.survey.latest[topic]
                off = message.t_wall / 1e9 - time.time()
                assert abs(off - jump) < 60, f"{topic}: the clock did not jump for it"
                assert 0 <= clock.monotonic_ns() - message.t_publish < 5e9, topic
                verdict = running.survey.judge()[topic]
                assert verdict.alive and (verdict.delay_ms or 0) < 5000, topic
            assert running.survey.latest["reward"].valid
    finally:
        running.wall.set(0.0)
    before = running.survey.latest["episode"].saved
    control.request(topics.control("recorder"), "recorder", StopEpisode(), timeout_s=30)
    running.until(lambda: running.survey.latest["episode"].saved > before, 60, "the episode is saved")
    episode = running.survey.latest["episode"]
    with pytest.raises(UserError, match="clock"):  # who still holds it
        control.request(topics.control("reward"), "reward", Freeze(by="another"), timeout_s=20)
    control.request(topics.control("reward"), "reward", Thaw(by="clock"), timeout_s=20)
    assert {t: running.survey.meters[t].gaps.lost for t in TOPICS} == lost
    assert {t: running.survey.meters[t].gaps.restarts for t in TOPICS} == restarts
    assert least > 0.5 and not episode.problem, episode.problem
    running.all_well()
    table.note(
        "wall clock set an hour forward, then two hours back, while an episode is recorded",
        "nothing but t_wall takes notice: ages, rates, verdicts, the hold on the model, the recording",
        f"t_wall jumped; no message lost, rates at {least:.0%} of before or more, the model was still held, "
        f"{episode.rows} rows saved without a hole",
    )
