"""k of n with hysteresis, in seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gripwire_reward.decision import Decider, DecisionRule, at_rate, decide_all

RULE = DecisionRule(threshold=0.6, release=0.4, window_s=0.5, needed_s=0.3, fitted_hz=10)


def test_a_rule_of_3_of_5_at_10_hz_is_9_of_15_at_30_hz() -> None:
    assert (at_rate(RULE, 10).k, at_rate(RULE, 10).n) == (3, 5)
    assert (at_rate(RULE, 30).k, at_rate(RULE, 30).n) == (9, 15)


@given(st.integers(1, 60), st.data(), st.sampled_from([5.0, 10.0, 15.0, 29.97, 30.0, 60.0]))
def test_at_the_fitted_rate_the_fitted_windows_come_back(n: int, data: st.DataObject, rate: float) -> None:
    k = data.draw(st.integers(n // 2 + 1, n))
    rule = DecisionRule(window_s=n / rate, needed_s=k / rate, fitted_hz=rate)
    assert (at_rate(rule, rate).k, at_rate(rule, rate).n) == (k, n)


@given(st.floats(1, 240))
def test_at_any_rate_a_majority_of_the_window_is_asked_for(rate: float) -> None:
    steps = at_rate(RULE, rate)
    assert steps.n / 2 < steps.k <= steps.n


def test_success_is_decided_at_the_third_frame_of_five() -> None:
    assert decide_all([0.9, 0.1, 0.9, 0.9], RULE, 10) == [False, False, False, True]


def test_a_single_high_frame_decides_nothing() -> None:
    assert not any(decide_all([0.1, 0.99, 0.1, 0.1, 0.99, 0.1, 0.1], RULE, 10))


def test_between_release_and_threshold_the_verdict_stays() -> None:
    verdicts = decide_all([0.9] * 5 + [0.5] * 20, RULE, 10)
    assert verdicts[-1]
    assert not any(decide_all([0.5] * 20, RULE, 10))


def test_it_ends_when_enough_frames_fall_below_release() -> None:
    verdicts = decide_all([0.9] * 5 + [0.1] * 3, RULE, 10)
    assert verdicts[4:] == [True, True, True, False]


def test_the_same_half_second_decides_at_10_and_at_30_hz() -> None:
    at_10, at_30 = decide_all([0.9] * 10, RULE, 10), decide_all([0.9] * 30, RULE, 30)
    assert (at_10.index(True) + 1) / 10 == pytest.approx((at_30.index(True) + 1) / 30)


def test_an_invalid_frame_says_no_and_forgets_what_came_before() -> None:
    verdicts = decide_all([0.9] * 5 + [None] + [0.9] * 3, RULE, 10)
    assert verdicts == [False, False, True, True, True, False, False, False, True]


def test_before_min_steps_success_does_not_count() -> None:
    patient = RULE.model_copy(update={"min_steps_s": 1.0})
    verdicts = decide_all([0.9] * 12, patient, 10)
    assert verdicts.index(True) == 10


def test_a_reset_begins_anew() -> None:
    decider = Decider(RULE, 10)
    for _ in range(5):
        decider.update(0.9)
    decider.reset()
    assert not decider.decision and not decider.update(0.9)


def test_a_window_that_half_of_the_frames_could_satisfy_is_no_rule() -> None:
    with pytest.raises(ValidationError, match="more than half"):
        DecisionRule(window_s=0.4, needed_s=0.2)


def test_a_release_above_the_threshold_is_no_rule() -> None:
    with pytest.raises(ValidationError, match="must not lie above"):
        DecisionRule(threshold=0.5, release=0.6)
