"""Figures and the fitting of the rule."""

import numpy as np
import pytest

from gripwire_trainer import evaluate, figures
from gripwire_trainer.evaluate import HeldOut


def _held(name: str, fold: int, success: list[int], logit: list[float]) -> HeldOut:
    return HeldOut(
        name, fold, 10.0, np.array(success, bool), np.ones(len(success), bool), np.array(logit, np.float32)
    )


def _episodes(spurious: int = 0) -> list[HeldOut]:
    """Nine episodes; the failed ones have ``spurious`` high frames in a row."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(9):
        success = np.zeros(60, int) if i % 3 == 2 else (np.arange(60) >= 30).astype(int)
        logit = np.where(success, 6.0, -6.0) + rng.normal(0, 1, 60)
        if i % 3 == 2:
            logit[10 : 10 + spurious] = 5.0
        out.append(_held(f"set/{i}", i % 3, success.tolist(), logit.tolist()))
    return out


def test_auroc_of_known_orders() -> None:
    success = np.array([False, False, True, True])
    assert figures.auroc(np.array([1.0, 2, 3, 4]), success) == 1
    assert figures.auroc(np.array([4.0, 3, 2, 1]), success) == 0
    assert figures.auroc(np.array([1.0, 1, 1, 1]), success) == 0.5


def test_average_precision_of_a_known_order() -> None:
    assert figures.average_precision(np.array([4.0, 3, 2]), np.array([True, False, True])) == pytest.approx(
        5 / 6
    )


def test_calibration_error_is_the_gap_between_said_and_seen() -> None:
    success = np.array([True] * 3 + [False] * 7)
    assert figures.calibration_error(np.full(10, 0.3), success) == pytest.approx(0)
    assert figures.calibration_error(np.full(10, 0.9), success) == pytest.approx(0.6)


def test_none_in_twenty_proves_only_a_rate_below_13_9_percent() -> None:
    assert figures.share_with_bound(0, 20).high == pytest.approx(0.139, abs=0.0005)


def test_onset_error_counts_frames_to_the_nearest_beginning() -> None:
    success = np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    above = np.array([0, 0, 0, 1, 0, 0, 1, 1], bool)
    assert figures.onset_errors(above, success) == [1, 0]
    assert figures.onset_errors(np.zeros(8, bool), success) == [8, 8]


def test_a_clean_classifier_gets_clean_figures_from_episodes_held_out() -> None:
    judged, metrics = evaluate.report(_episodes())
    assert [e.name for e in judged] == [f"set/{i}" for i in range(9)]
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


def test_frames_that_do_not_count_change_no_figure() -> None:
    episodes = _episodes()
    wrong = episodes[0].logit.copy()
    wrong[28:30] = 9
    counted = np.ones(60, bool)
    counted[28:30] = False
    episodes[0] = HeldOut("set/0", 0, 10.0, episodes[0].success, counted, wrong)
    assert evaluate.report(episodes)[1]["frame_accuracy"].value == 1


def test_what_is_reported_decides_with_the_very_function_that_serves() -> None:
    from gripwire_reward import calibration, decision, preprocess
    from gripwire_trainer import bundle_out, features

    assert evaluate.decide_all is decision.decide_all
    assert evaluate.calibration is calibration
    assert bundle_out.preprocess is preprocess.preprocess
    assert features.crop_and_resize is preprocess.crop_and_resize
    assert features.normalise is preprocess.normalise
