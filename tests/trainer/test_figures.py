"""Figures by hand, their intervals, and the fitting of the rule."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from gripwire_reward.bundle import Manifest, Metric
from gripwire_reward.preprocess import InputContract
from gripwire_trainer import evaluate, figures, ranking, reliability
from gripwire_trainer.evaluate import HeldOut
from gripwire_trainer.intervals import draws, interval, share_with_bound
from gripwire_trainer.onsets import onset_errors, onset_offsets
from gripwire_trainer.report.curves import raw
from tests.trainer.judging import judged, well

FAILED = [0] * 10
GRASP = [0] * 4 + [1] * 6


def _ranked(score: list[float], success: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return ranking.rank(np.array(score), np.array(success, bool)).tally(np.ones(len(score)))


def test_auroc_of_known_orders() -> None:
    success = [0, 0, 1, 1]
    assert ranking.auroc(*_ranked([1, 2, 3, 4], success)) == 1
    assert ranking.auroc(*_ranked([4, 3, 2, 1], success)) == 0
    assert ranking.auroc(*_ranked([1, 1, 1, 1], success)) == 0.5
    assert ranking.auroc(*_ranked([1, 3, 2, 4], success)) == 0.75


def test_average_precision_of_known_orders() -> None:
    assert ranking.average_precision(*_ranked([4, 3, 2], [1, 0, 1])) == pytest.approx(5 / 6)
    assert ranking.average_precision(*_ranked([1, 1, 1], [1, 0, 1])) == pytest.approx(2 / 3)


def test_a_frame_that_counts_twice_ranks_as_if_it_were_there_twice() -> None:
    once = ranking.rank(np.array([3.0, 2, 1]), np.array([True, False, True]))
    twice = once.tally(np.array([1.0, 2, 1]))
    assert ranking.auroc(*twice) == ranking.auroc(*_ranked([3, 2, 2, 1], [1, 0, 0, 1])) == 0.5
    assert ranking.average_precision(*twice) == pytest.approx(3 / 4)


def test_one_class_alone_has_no_ranking() -> None:
    assert np.isnan(ranking.auroc(*_ranked([1, 2], [1, 1])))
    assert np.isnan(ranking.average_precision(*_ranked([1, 2], [0, 0])))


def test_calibration_error_is_the_gap_between_said_and_seen() -> None:
    success, one = np.array([True] * 3 + [False] * 7), np.zeros(10, np.intp)
    for said, gap in ((0.3, 0.0), (0.9, 0.6), (1.0, 0.7)):
        bins = reliability.tally(np.full(10, said), success, one, 1)
        assert reliability.calibration_error(bins)[0] == pytest.approx(gap)


def test_calibration_errors_of_different_bins_do_not_cancel() -> None:
    success = np.array([True, False])
    bins = reliability.tally(np.array([0.1, 0.9]), success, np.zeros(2, np.intp), 1)
    assert reliability.calibration_error(bins)[0] == pytest.approx(0.9)


def test_none_in_twenty_proves_only_a_rate_below_13_9_percent() -> None:
    assert share_with_bound(0, 20).high == pytest.approx(0.139, abs=0.0005)


@pytest.mark.parametrize(
    ("hits", "of", "high"),
    [(0, 300, 0.00994), (1, 20, 0.2161), (10, 20, 0.6980), (20, 20, 1), (0, 5000, 0.000599)],
)
def test_bounds_are_those_of_the_tables(hits: int, of: int, high: float) -> None:
    bound = share_with_bound(hits, of)
    assert bound.high == pytest.approx(high, rel=0.002)
    assert bound.value == hits / of


def test_no_failed_episode_says_nothing_about_false_success() -> None:
    assert share_with_bound(0, 0) == Metric(value=0, low=0, high=1, episodes=0)


def test_episodes_are_drawn_whole_the_same_each_time_and_first_all_once() -> None:
    counts = draws(7, 50)
    assert counts.shape == (51, 7)
    assert (counts[0] == 1).all()
    assert (counts.sum(1) == 7).all() and counts[1:].std() > 0
    assert np.array_equal(counts, draws(7, 50))


def test_an_interval_leaves_out_the_draws_without_a_value() -> None:
    found = interval(np.array([0.5, np.nan, *np.linspace(0, 1, 101)]), 3)
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def _offsets(above: list[int], success: list[int], uncertain: tuple[int, ...] = ()) -> list[int | None]:
    counted = np.ones(len(success), bool)
    counted[list(uncertain)] = False
    return onset_offsets(np.array(above, bool), np.array(success, bool), counted)


def test_an_onset_is_off_by_the_frames_between_it_and_the_answer() -> None:
    success = [0, 0, 1, 1, 0, 0, 1, 1]
    assert _offsets([0, 0, 0, 1, 0, 0, 1, 1], success) == [1, 0]
    assert _offsets([0, 1, 1, 1, 0, 0, 1, 1], success) == [-1, 0]
    assert _offsets([0, 1, 1, 1, 1, 1, 1, 1], success) == [-1, -5]


def test_a_stray_positive_is_no_answer_and_a_missed_success_has_none() -> None:
    assert _offsets([1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]) == [1]
    assert _offsets([0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]) == [None]
    assert _offsets([0, 0, 0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]) == [0]


def test_a_missed_success_counts_as_the_whole_episode() -> None:
    success = np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    assert onset_errors(np.zeros(8, bool), success, np.ones(8, bool)) == [8, 8]


def test_an_onset_among_the_frames_that_the_labels_leave_open_is_on_time() -> None:
    success = [0, 0, 0, 0, 1, 1]
    for above, off in (([0, 0, 1, 1, 1, 1], 0), ([0, 1, 1, 1, 1, 1], -1), ([0, 0, 0, 0, 0, 1], 1)):
        assert _offsets(above, success, uncertain=(2, 3)) == [off]


def test_an_invalid_frame_is_wrong_whatever_was_said() -> None:
    said = [0.1] * 4 + [0.9] * 6
    for invalid in (0, 9):
        metrics = figures.all_figures([judged("a", GRASP, said, invalid=[invalid])], raw)
        assert metrics["frame_accuracy"].value == pytest.approx(0.9)
        assert metrics["invalid_share"].value == pytest.approx(0.1)


def test_frames_that_do_not_count_change_no_figure_by_frame() -> None:
    right = [0.1] * 4 + [0.9] * 6
    wrong = [0.1] * 2 + [0.95] * 2 + [0.9] * 6
    other = judged("b", FAILED, [0.2] * 10)
    clean, smudged = (
        figures.all_figures([judged("a", GRASP, said, uncertain=[2, 3]), other], raw)
        for said in (right, wrong)
    )
    assert clean == smudged
    counted = figures.all_figures([judged("a", GRASP, wrong), other], raw)
    assert counted["frame_accuracy"].value == pytest.approx(18 / 20)
    assert counted["onset_error_p90_frames"].value == 2


def test_counts_of_frames_and_episodes_by_hand() -> None:
    episodes = [
        well("grasp", GRASP, mistakes=[4]),
        well("stray", FAILED, mistakes=[2]),
        well("fooled", FAILED, mistakes=[2, 3, 4]),
        well("blind", GRASP, mistakes=[5, 8]),
    ]
    assert figures.by_frame(episodes) == figures.Confusion(hits=9, false_alarms=4, misses=3, rejections=24)
    assert figures.by_episode(episodes) == figures.Confusion(1, 1, 1, 1)
    metrics = figures.all_figures(episodes, raw)
    assert metrics["precision"].value == pytest.approx(9 / 13)
    assert metrics["recall"].value == pytest.approx(9 / 12)
    assert metrics["frame_accuracy"].value == pytest.approx(33 / 40)
    assert metrics["always_fail_accuracy"].value == pytest.approx(28 / 40)
    assert metrics["false_success_rate"].value == 0.5 and metrics["false_success_rate"].episodes == 2
    assert metrics["missed_success_rate"].value == 0.5
    assert metrics["onset_error_median_frames"].value == 0.5
    assert metrics["onset_error_median_s"].value == pytest.approx(0.05)
    # 4 s in all; the fooled head's decision comes and goes within them.
    assert metrics["flicker_per_minute"].value == pytest.approx(2 / (4 / 60))


def test_a_success_decided_only_before_there_is_one_is_missed_and_early() -> None:
    hasty = judged("hasty", [0] * 10 + [1] * 2, [0.9] * 4 + [0.1] * 8)
    assert figures.by_episode([hasty]).misses == 1
    metrics = figures.all_figures([hasty, well("grasp", GRASP)], raw)
    assert metrics["early_success_rate"].value == 0.5


def test_every_figure_has_an_interval_around_it_and_says_of_how_many_episodes() -> None:
    rng = np.random.default_rng(3)
    episodes = [
        judged(str(i), GRASP if i % 2 else FAILED, np.clip(rng.normal(0.5, 0.2, 10), 0.01, 0.99).tolist())
        for i in range(12)
    ]
    metrics = figures.all_figures(episodes, raw)
    assert len(metrics) == 18
    for name, metric in metrics.items():
        assert metric.low is not None and metric.high is not None
        assert metric.low <= metric.value <= metric.high, name
    assert metrics["auroc"].low < metrics["auroc"].high
    of_some = {"false_success_rate", "missed_success_rate", "early_success_rate"}
    of_some |= {name for name in metrics if name.startswith("onset")}
    assert {name for name, metric in metrics.items() if metric.episodes == 6} == of_some


def test_figures_that_episodes_do_not_define_are_left_out_and_the_rest_can_be_stored() -> None:
    metrics = figures.all_figures([well("a", FAILED), well("b", FAILED)], raw)
    assert not {"auroc", "recall", "onset_error_median_frames"} & set(metrics)
    contract = InputContract.model_validate(
        {
            "key": "x",
            "frame": (8, 8),
            "crop": {"top": 0, "left": 0, "height": 8, "width": 8},
            "size": (8, 8),
        }
    )
    stored = Manifest(inputs=[contract], metrics=metrics).model_dump_json()
    assert Manifest.model_validate_json(stored).metrics == metrics


def test_always_answering_fail_scores_what_chance_would() -> None:
    failing = figures.always_fail([well("a", GRASP), well("b", FAILED)], raw)
    assert failing["frame_accuracy"] == failing["always_fail_accuracy"] == pytest.approx(0.7)
    assert failing["auroc"] == 0.5
    assert failing["average_precision"] == failing["ece_after"] == pytest.approx(0.3)
    assert failing["recall"] == 0 and "precision" not in failing
    assert failing["missed_success_rate"] == 1 and failing["false_success_rate"] == 0


def test_all_figures_of_a_labelled_bench_take_no_time_to_speak_of() -> None:
    rng = np.random.default_rng(0)
    episodes = [
        judged(str(i), (np.arange(120) > 60 + i).astype(int).tolist(), rng.uniform(0.01, 0.99, 120).tolist())
        for i in range(42)
    ]
    start = time.process_time()
    figures.all_figures(episodes, raw)
    assert time.process_time() - start < 2  # about 0.15 s on a quiet machine


def _held(name: str, fold: int, success: NDArray[np.bool_], logit: NDArray[np.floating]) -> HeldOut:
    counted, drift = np.ones(len(success), bool), np.ones(len(success), np.float32)
    return HeldOut(name, fold, 10.0, success, counted, logit.astype(np.float32), drift)


def _episodes(spurious: int = 0) -> list[HeldOut]:
    """Nine episodes in three folds; the failed ones have ``spurious`` high frames in a row."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(9):
        success = np.zeros(60, bool) if i % 3 == 2 else np.arange(60) >= 30
        logit = np.where(success, 6.0, -6.0) + rng.normal(0, 1, 60)
        if i % 3 == 2:
            logit[10 : 10 + spurious] = 5.0
        out.append(_held(f"set/{i}", i // 3, success, logit))
    return out


def _selected(episodes: list[HeldOut]) -> dict[int, list[HeldOut]]:
    return {fold: [e for e in episodes if e.fold == (fold + 1) % 3] for fold in range(3)}


def test_a_clean_classifier_gets_clean_figures_from_episodes_held_out() -> None:
    episodes = _episodes()
    given = evaluate.report(episodes, _selected(episodes))
    metrics = evaluate.measure(given)
    assert [e.name for e in given] == [f"set/{i}" for i in range(9)]
    assert metrics["frame_accuracy"].value == 1
    assert metrics["always_fail_accuracy"].value == pytest.approx(2 / 3)
    assert metrics["false_success_rate"].value == 0 and metrics["false_success_rate"].episodes == 3
    assert metrics["onset_error_median_frames"].value == 0


def test_the_window_is_long_enough_for_no_false_success_on_failed_episodes() -> None:
    clean, noisy = evaluate.fit(_episodes()), evaluate.fit(_episodes(spurious=4))
    assert noisy.rule.window_s > clean.rule.window_s
    failed = [e for e in _episodes(spurious=4) if not e.success.any()]
    assert not any(evaluate.judge(e, noisy).decision.any() for e in failed)
    assert any(evaluate.judge(e, clean).decision.any() for e in failed)


def test_what_is_reported_decides_with_the_very_function_that_serves() -> None:
    from gripwire_reward import calibration, decision, preprocess
    from gripwire_trainer import bundle_out, features

    assert evaluate.decide_all is decision.decide_all
    assert evaluate.calibration is calibration
    assert bundle_out.preprocess is preprocess.preprocess
    assert features.crop_and_resize is preprocess.crop_and_resize
    assert features.normalise is preprocess.normalise
