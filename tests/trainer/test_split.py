"""Episodes are split, never frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gripwire.errors import UserError
from gripwire_trainer.split import check_unit, choose, rotate


@given(st.lists(st.booleans(), min_size=6, max_size=60).filter(lambda s: sum(s) >= 3), st.integers(0, 99))
def test_no_episode_is_ever_in_two_parts_and_each_is_reported_once(success: list[bool], seed: int) -> None:
    folds = rotate(success, seed=seed)
    for fold in folds:
        assert sorted(fold.train + fold.select + fold.report) == list(range(len(success)))
        assert fold.train and fold.select and fold.report
    assert sorted(e for fold in folds for e in fold.report) == list(range(len(success)))


@given(st.lists(st.booleans(), min_size=6, max_size=60).filter(lambda s: sum(s) >= 5), st.integers(0, 99))
def test_successes_and_failures_are_dealt_out_evenly(success: list[bool], seed: int) -> None:
    for kind in (True, False):
        shares = [sum(success[e] is kind for e in fold.report) for fold in rotate(success, seed=seed)]
        assert max(shares) - min(shares) <= 1


def test_a_whole_session_stays_together() -> None:
    sessions = [f"day {i % 4}" for i in range(20)]
    for fold in rotate([True] * 20, sessions):
        parts = [{sessions[e] for e in part} for part in (fold.train, fold.select, fold.report)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_two_sessions_are_too_few_to_hold_one_back() -> None:
    with pytest.raises(UserError, match="at least 3 sessions"):
        rotate([True] * 6, ["a", "b"] * 3)


def test_too_few_successes_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="2 episodes with success: at least 3"):
        rotate([True, True, False, False])


def test_a_split_by_frame_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="neighbouring frames"):
        check_unit("frame")
    check_unit("episode")


def test_the_same_seed_gives_the_same_split() -> None:
    success = [True, False] * 8
    assert rotate(success, seed=4) == rotate(success, seed=4) != rotate(success, seed=5)


def _parts_of(sessions: list[str], unit: str) -> tuple[bool, str]:
    """Whether every session stayed whole, and what was said to have been held out."""
    folds, said = choose(unit, [i % 2 == 0 for i in range(len(sessions))], sessions)
    whole = all(len({sessions[e] for e in f.report} & {sessions[e] for e in f.train}) == 0 for f in folds)
    return whole, said


def test_sessions_are_held_out_whole_where_there_are_several() -> None:
    assert _parts_of([f"day {i // 6}" for i in range(24)], "auto") == (True, "by session, 4 of them")


@pytest.mark.parametrize(
    ("sessions", "why"),
    [
        ([""] * 12, "not known"),
        (["a"] * 12, "all are of one session"),
        (["a"] * 6 + ["b"] * 6, "too few or too unequal"),
        (["a"] * 20 + ["b"] * 2 + ["c"] * 2, "too few or too unequal"),
    ],
)
def test_otherwise_episodes_are_and_the_reason_is_told(sessions: list[str], why: str) -> None:
    whole, said = _parts_of(sessions, "auto")
    assert not whole and said.startswith("by episode: ") and why in said


def test_a_session_without_success_is_not_left_to_learn_from_alone() -> None:
    sessions = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    folds, said = choose("auto", [True] * 4 + [False] * 8, sessions)
    assert said.startswith("by episode")
    assert all(any(e < 4 for e in fold.train) for fold in folds)
