"""Alignment, as arithmetic on arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gripwire_recorder import align

TIMES = st.lists(st.integers(0, 10**12), min_size=1, max_size=40, unique=True).map(
    lambda times: np.array(sorted(times), np.int64)
)


@given(TIMES, TIMES)
def test_the_nearest_is_as_near_as_any_other(times, at):
    chosen = align.nearest(times, at)
    distances = np.abs(times[None, :] - at[:, None])
    assert (np.abs(times[chosen] - at) == distances.min(axis=1)).all()


def test_of_two_equally_near_pictures_the_earlier_is_chosen():
    assert align.nearest(np.array([0, 100]), np.array([50])).tolist() == [0]


def test_a_single_picture_serves_every_row():
    assert align.nearest(np.array([70]), np.array([0, 70, 900])).tolist() == [0, 0, 0]


def test_the_grid_starts_when_the_last_stream_begins():
    assert align.grid_start(100, [90, 40]) == 100
    assert align.grid_start(100, [90, 140]) == 140


def test_the_grid_includes_a_row_exactly_at_the_end():
    assert align.grid(1000, 1000 + 200_000_000, 10).tolist() == [1000, 100_001_000, 200_001_000]
    assert align.grid(1000, 999, 10).tolist() == []


def test_the_grid_does_not_drift_where_the_period_is_not_whole():
    hour = align.grid(0, 3600 * align.SECOND, 30)
    assert len(hour) == 3600 * 30 + 1
    assert hour[30 * 1234] == 1234 * align.SECOND


@given(st.integers(0, 300), st.integers(0, 10**10))
def test_a_grid_built_in_parts_is_the_grid(skip, length):
    whole = align.grid(5, 5 + length, 10)
    assert align.grid(5, 5 + length, 10, skip=skip).tolist() == whole[skip:].tolist()


def test_the_state_is_interpolated_between_its_neighbours():
    times, values = np.array([100, 200]), np.array([[0.0, 10.0], [1.0, 30.0]])
    assert align.interpolate(times, values, np.array([100, 125, 200])).tolist() == [
        [0, 10],
        [0.25, 15],
        [1, 30],
    ]


def test_interpolation_is_exact_after_a_year_of_uptime():
    year = 366 * 86400 * align.SECOND + 1  # beyond what a double can count
    values = align.interpolate(np.array([year, year + 4]), np.array([[0.0], [4.0]]), year + np.arange(5))
    assert values.ravel().tolist() == [0, 1, 2, 3, 4]


def test_an_action_stays_in_force_until_the_next_and_the_state_stands_in_before_the_first():
    state = np.full((4, 1), 7.0)
    got = align.in_force(np.array([10, 20]), np.array([[1.0], [2.0]]), np.array([9, 10, 19, 20]), state)
    assert got.ravel().tolist() == [7, 1, 1, 2]
    assert align.in_force(np.array([]), np.zeros((0, 1)), np.array([1, 2, 3, 4]), state) is state


def test_skew_is_positive_for_a_picture_taken_after_its_row():
    times, at = np.array([0, 30_000_000]), np.array([20_000_000])
    assert align.skew_ms(times, align.nearest(times, at), at).tolist() == [10.0]
