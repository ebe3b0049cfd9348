"""Temperature and bias scaling."""

import numpy as np
import pytest

from gripwire_reward import calibration
from gripwire_reward.calibration import Calibration


def test_probabilities_of_huge_logits_are_finite_and_ordered() -> None:
    p = calibration.apply(np.array([-1e4, -1.0, 0.0, 1.0, 1e4]), Calibration())
    assert np.isfinite(p).all() and np.all(np.diff(p) > 0)
    assert p[2] == 0.5


def test_the_fit_finds_the_temperature_of_overconfident_logits() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20_000)
    success = rng.random(true.shape) < 1 / (1 + np.exp(-true))
    fitted = calibration.fit(3 * true + 1.5, success)
    assert fitted.temperature == pytest.approx(3, rel=0.05)
    assert fitted.bias == pytest.approx(-0.5, abs=0.06)


def test_a_fit_never_makes_the_likelihood_worse() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 5, 300)
    success = rng.random(300) < 0.3
    before = calibration.negative_log_likelihood(logit, success, Calibration())
    after = calibration.negative_log_likelihood(logit, success, calibration.fit(logit, success))
    assert after < before


def test_perfectly_separated_logits_keep_a_finite_temperature() -> None:
    fitted = calibration.fit(np.array([-9.0] * 50 + [9.0] * 50), np.array([False] * 50 + [True] * 50))
    assert 0.01 < fitted.temperature < 100


def test_one_class_alone_calibrates_nothing() -> None:
    assert calibration.fit(np.array([1.0, 2.0]), np.array([True, True])) == Calibration()
