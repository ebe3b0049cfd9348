"""From out-of-fold logits to a calibrated rule and a score, by the code that will serve.

What the score says and what it does not is put into words by :func:`note`, which travels in the bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gripwire_reward import calibration
from gripwire_reward.bundle import Metric
from gripwire_reward.calibration import Calibration
from gripwire_reward.decision import DecisionRule, decide_all
from gripwire_trainer import figures
from gripwire_trainer.figures import Judged

THRESHOLDS = np.round(np.arange(0.3, 0.96, 0.01), 2)
WINDOWS_S = (0.3, 0.4, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class HeldOut:
    """One episode with logits of a head that neither trained on it nor was selected by it."""

    name: str
    fold: int
    fps: float
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    logit: NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """What turns logits into verdicts."""

    calibration: Calibration
    rule: DecisionRule


def fit(episodes: Sequence[HeldOut]) -> Fitted:
    """Calibration and decision rule from held-out episodes.

    The threshold is the one nearest 0.5 of those that judge as many frames right as the best does, give or
    take one in a thousand; a wrong success weighs twice a missed one (it misleads a learner more). The
    window is the shortest with no false success on a failed episode; if none avoids it, the threshold rises.
    """
    logit = np.concatenate([e.logit[e.counted] for e in episodes])
    success = np.concatenate([e.success[e.counted] for e in episodes])
    fitted = calibration.fit(logit, success)
    probability = calibration.apply(logit, fitted)
    cost = np.array([2 * (p := probability >= t)[~success].sum() + (~p)[success].sum() for t in THRESHOLDS])
    good = THRESHOLDS[cost <= cost.min() + max(1.0, len(logit) / 1000)]
    return Fitted(fitted, _rule(episodes, fitted, float(good[np.abs(good - 0.5).argmin()])))


def _rule(episodes: Sequence[HeldOut], fitted: Calibration, threshold: float) -> DecisionRule:
    failed = [e for e in episodes if not e.success.any()]
    fps = episodes[0].fps
    strictest = None
    for raised in [t for t in (threshold, 0.6, 0.7, 0.8, 0.9, 0.95) if t >= threshold]:
        for window in WINDOWS_S:
            rule = DecisionRule(
                threshold=raised, release=raised * 0.7, window_s=window, needed_s=window, fitted_hz=fps
            )
            if not any(judge(e, Fitted(fitted, rule)).decision.any() for e in failed):
                return rule
            strictest = rule
    assert strictest is not None
    return strictest


def judge(episode: HeldOut, fitted: Fitted) -> Judged:
    """Apply calibration and decision exactly as the service does."""
    probability = calibration.apply(episode.logit, fitted.calibration)
    decision = decide_all(probability.tolist(), fitted.rule, episode.fps)
    return Judged(
        episode.name, episode.fps, episode.success, episode.counted, episode.logit, probability,
        probability >= fitted.rule.threshold, np.array(decision, bool),
    )  # fmt: skip


def note(heads: int) -> str:
    """What the figures were taken on, for whoever reads them in a bundle or its report."""
    return (
        f"Each figure is of {heads} single heads, each judged on the episodes held out from it. The bundle "
        f"serves the mean of the {heads} heads, every one of which trained on other episodes of these, so "
        "what serves has no held-out figure of its own. Calibration and decision rule were fitted, for each "
        "held-out part, on the other episodes' logits, which come from heads that had seen that part. The "
        "calibration and rule in the bundle are fitted on all held-out logits."
    )


def report(episodes: Sequence[HeldOut]) -> tuple[list[Judged], dict[str, Metric]]:
    """Verdicts and figures over episodes that the judging head has not seen.

    Calibration and rule for each fold are fitted on the episodes of the other folds. The logits of those
    come from heads that did train on this fold, or were stopped by it: through these few numbers an episode
    still touches its own verdict. (Without that, every pair of folds would need a head of its own.)
    """
    judged = []
    for fold in sorted({e.fold for e in episodes}):
        fitted = fit([e for e in episodes if e.fold != fold])
        judged += [judge(e, fitted) for e in episodes if e.fold == fold]
    judged.sort(key=lambda e: [x.name for x in episodes].index(e.name))
    return judged, figures.all_figures(judged, lambda logit: calibration.apply(logit, Calibration()))
