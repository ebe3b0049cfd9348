"""The two judges of time, on a clock that the test turns."""

from dataclasses import replace

import pytest

from gripwire import clock
from gripwire.bus import Received
from gripwire.liveness import Liveness, Meter
from gripwire.messages import Label, Message, Reward
from gripwire.service import RateKeeper
from gripwire.topics import Topics

TOPICS = Topics(7600)
S = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- the rate keeper ----------------------------------------------------------------------------------


def test_the_first_tick_is_due_at_once_and_the_second_one_period_later() -> None:
    now = Clock()
    keeper = RateKeeper(10.0, now)
    assert keeper.remaining() == 0.0
    assert keeper.tick() == 0.0
    assert keeper.remaining() == pytest.approx(0.1)


def test_ticks_stay_on_the_schedule_of_the_first_however_long_each_took() -> None:
    now = Clock()
    keeper = RateKeeper(10.0, now)
    due = []
    for took in (0.0, 0.03, 0.09, 0.05):
        keeper.tick()
        now.now += took
        now.now += keeper.remaining()
        due.append(now.now)
    assert due == pytest.approx([100.1, 100.2, 100.3, 100.4])
    assert keeper.skipped == 0


def test_a_late_tick_says_how_late_and_the_next_is_on_schedule_again() -> None:
    now = Clock()
    keeper = RateKeeper(10.0, now)
    keeper.tick()
    now.now = 100.14
    assert keeper.tick() == pytest.approx(0.04)
    assert keeper.remaining() == pytest.approx(0.06)
    assert keeper.skipped == 0


def test_a_stalled_loop_counts_the_periods_it_missed_and_does_not_race_to_catch_up() -> None:
    now = Clock()
    keeper = RateKeeper(10.0, now)
    keeper.tick()
    now.now = 100.57  # due at 100.1; 100.2 .. 100.5 are past too
    assert keeper.tick() == pytest.approx(0.47)
    assert keeper.skipped == 4
    assert keeper.remaining() == pytest.approx(0.03), "the next tick is 100.6, not five at once"


def test_without_a_rate_every_tick_is_due_and_none_is_late() -> None:
    now = Clock()
    keeper = RateKeeper(None, now)
    now.now += 7.0
    assert (keeper.tick(), keeper.remaining(), keeper.skipped) == (0.0, 0.0, 0)


# --- liveness -----------------------------------------------------------------------------------------


class Feed:
    """Gives a meter messages at chosen times."""

    def __init__(self, topic: str = "reward", rate_hz: float | None = 30.0) -> None:
        self.meter = Meter(replace(TOPICS[topic], rate_hz=rate_hz))
        self.now, self.seq = 50 * S, 0

    def give(self, n: int, rate_hz: float, message: Message | None = None, delay_s: float = 0.002) -> None:
        for _ in range(n):
            self.now += int(S / rate_hz)
            given = (message or Reward(valid=True)).model_copy()
            given.seq, given.boot, self.seq = self.seq, given.boot or "b", self.seq + 1
            given.host = given.host or clock.host_id()
            given.t_capture = self.now - int(delay_s * S)
            self.meter.see(Received(given, None, self.now))

    def after(self, seconds: float) -> Liveness:
        return self.meter.judge(self.now + int(seconds * S))


def test_a_topic_of_which_nothing_came_is_neither_alive_nor_on_rate_nor_valid() -> None:
    verdict = Feed().after(1.0)
    assert not (verdict.seen or verdict.alive or verdict.on_rate or verdict.valid)
    assert (verdict.rate_hz, verdict.age_s, verdict.reason) == (None, None, "nothing received")


def test_a_topic_at_its_rate_is_alive_on_rate_and_valid() -> None:
    feed = Feed()
    feed.give(60, 30.0)
    verdict = feed.after(0.01)
    assert verdict.seen and verdict.alive and verdict.on_rate and verdict.valid
    assert verdict.rate_hz == pytest.approx(30.0)
    assert verdict.age_s == pytest.approx(0.01)
    assert verdict.delay_ms == pytest.approx(2.0)


def test_a_topic_dies_at_ten_periods_of_silence_and_says_for_how_long() -> None:
    feed = Feed()
    feed.give(60, 30.0)
    assert feed.after(0.33).alive
    dead = feed.after(0.34)
    assert not dead.alive and not dead.valid and dead.reason == "silent for 0.3 s"


def test_a_fast_topic_has_at_least_50_ms_before_it_counts_as_dead() -> None:
    feed = Feed(rate_hz=1000.0)
    feed.give(60, 1000.0)
    assert feed.after(0.049).alive and not feed.after(0.051).alive


@pytest.mark.parametrize(("rate", "on_rate"), [(23.9, False), (24.1, True), (35.9, True), (36.1, False)])
def test_on_rate_means_between_0_8_and_1_2_of_the_declared_rate(rate: float, on_rate: bool) -> None:
    feed = Feed()
    feed.give(100, rate)
    assert feed.after(0.0).on_rate is on_rate


def test_the_rate_is_that_of_the_last_three_seconds() -> None:
    feed = Feed()
    feed.give(300, 30.0)
    feed.give(31, 10.0)
    assert feed.after(0.0).rate_hz == pytest.approx(10.0)


def test_one_message_gives_no_rate() -> None:
    feed = Feed()
    feed.give(1, 30.0)
    verdict = feed.after(0.0)
    assert verdict.alive and verdict.rate_hz is None and not verdict.on_rate


def test_a_publisher_that_does_not_vouch_is_alive_but_not_valid_and_its_reason_is_passed_on() -> None:
    feed = Feed()
    feed.give(60, 30.0, Reward(valid=False, reason="no bundle"))
    verdict = feed.after(0.0)
    assert verdict.alive and not verdict.valid and verdict.reason == "no bundle"


def test_a_topic_that_speaks_on_change_is_never_late() -> None:
    feed = Feed("label", rate_hz=None)
    feed.give(1, 1.0, Label(valid=True, success=True))
    verdict = feed.after(3600.0)
    assert verdict.alive and verdict.on_rate and verdict.valid and verdict.age_s == pytest.approx(3600.0)


def test_delay_is_unknown_where_the_clocks_do_not_compare_but_liveness_is_not() -> None:
    feed = Feed()
    feed.give(60, 30.0, Reward(valid=True, host="another machine"), delay_s=-1e6)
    verdict = feed.after(0.1)
    assert verdict.delay_ms is None and verdict.alive and verdict.age_s == pytest.approx(0.1)


def test_lost_messages_are_counted_and_the_publisher_named() -> None:
    feed = Feed()
    feed.give(3, 30.0, Reward(boot="one"))
    feed.seq += 5
    feed.give(3, 30.0, Reward(boot="one"))
    verdict = feed.after(0.0)
    assert (verdict.lost, verdict.publisher) == (5, "one")
