"""Which labels are to be looked at first."""

import numpy as np
import pytest

from gripwire_trainer.disagreement import Doubtful, Place, doubtful
from tests.trainer.judging import judged, well


def _grasp(start: int, length: int = 40) -> list[int]:
    return [0] * start + [1] * (length - start)


def _one(success: list[int], mistakes: range) -> Doubtful:
    (found,) = doubtful([well("set/0", success, mistakes)])
    assert (found.first, found.last) == (mistakes[0], mistakes[-1])
    return found


def test_a_planted_wrong_label_is_found_before_the_blips_of_the_model() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(30):
        success = np.array(_grasp(20) if i % 2 else [0] * 40, bool)
        said = np.where(success, 0.97, 0.03) + rng.normal(0, 0.01, 40)
        said[rng.integers(40)] = rng.uniform(0.2, 0.8)
        episodes.append(judged(f"set/{i}", success.astype(int).tolist(), said.clip(0.01, 0.99).tolist()))
    truth = np.array(_grasp(20), bool)
    lied = truth.copy()
    lied[28:34] = False
    said = np.where(truth, 0.97, 0.03).tolist()
    episodes.insert(11, judged("set/lied", lied.astype(int).tolist(), said))
    first, *others = doubtful(episodes)
    assert (first.episode, first.first, first.last, first.success) == ("set/lied", 28, 33, False)
    assert others and all(d.evidence < first.evidence / 5 for d in others)


@pytest.mark.parametrize(
    ("success", "mistakes", "place", "move"),
    [
        (_grasp(20), range(17, 20), Place.START, (20, 17)),
        (_grasp(20), range(20, 22), Place.START, (20, 22)),
        (_grasp(20), range(38, 40), Place.END, (39, 37)),
        ([0] * 5 + [1] * 10 + [0] * 10, range(15, 18), Place.END, (14, 17)),
        ([0] * 5 + [1] * 10 + [0] * 10, range(13, 15), Place.END, (14, 12)),
        ([0] * 5 + [1] * 10 + [0] * 10, range(5, 15), Place.RANGE, None),
        ([0] * 5 + [1] * 5 + [0] * 4 + [1] * 5, range(10, 14), Place.GAP, None),
        (_grasp(5), range(12, 15), Place.INSIDE, None),
        ([0] * 30, range(12, 15), Place.INSIDE, None),
        ([0] * 30, range(30), Place.INSIDE, None),
        ([1] * 30, range(6), Place.START, (0, 6)),
        (_grasp(3), range(3), Place.START, (3, 0)),
    ],
)
def test_a_run_at_an_edge_says_where_the_edge_would_go(
    success: list[int], mistakes: range, place: Place, move: tuple[int, int] | None
) -> None:
    found = _one(success, mistakes)
    assert (found.place, found.move) == (place, move)
    assert found.success == bool(success[mistakes[0]])


def test_a_run_across_an_edge_is_two_with_a_label_each() -> None:
    found = doubtful([well("set/0", _grasp(20), range(18, 23))])
    assert sorted((d.first, d.last, d.success) for d in found) == [(18, 19, False), (20, 22, True)]


def test_longer_and_surer_runs_come_first() -> None:
    success = [0] * 40
    said = np.full(40, 0.02)
    said[3], said[10:12], said[20:26] = 0.99, 0.9, 0.9
    found = doubtful([judged("set/0", success, said.tolist())])
    assert [d.first for d in found] == [20, 3, 10]
    assert found[0].evidence == pytest.approx(6 * np.log(9))


def test_uncertain_and_invalid_frames_are_no_evidence() -> None:
    said = [0.02] * 18 + [0.98] * 22
    assert doubtful([judged("set/0", _grasp(20), said, uncertain=[18, 19])]) == []
    assert doubtful([judged("set/0", _grasp(20), said, invalid=[18, 19])]) == []


def test_a_run_from_uncertain_into_certain_frames_is_told_whole_but_counts_in_part() -> None:
    said = [0.02] * 17 + [0.9] * 23
    (found,) = doubtful([judged("set/0", _grasp(20), said, uncertain=[18, 19])])
    assert (found.first, found.last, found.move) == (17, 19, (20, 17))
    assert found.evidence == pytest.approx(np.log(9))
