"""From out-of-fold logits to a calibrated rule and a score, by the code that will serve.

What the score says and what it does not is put into words by :func:`note`, which travels in the bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gripwire_reward import calibration
from gripwire_reward.bundle import Metric
from gripwire_reward.calibration import Calibration
from gripwire_reward.decision import DecisionRule, decide_all
from gripwire_trainer import figures
from gripwire_trainer.figures import Judged
from gripwire_trainer.settings import AUTO, TrainerSettings

THRESHOLDS = np.round(np.arange(0.3, 0.96, 0.01), 2)
WINDOWS_S = (0.3, 0.4, 0.5, 0.7, 1.0)
_PLAIN_SHARE, _PLAIN_MARGIN, _VIEWS_SHARE = 0.999, 1.15, 0.99
"""A drift limit passes so many of the held-out frames, with a margin, and so many of their views."""


@dataclass(frozen=True)
class HeldOut:
    """One episode as a head saw it that did not learn from it: a logit and a drift per frame."""

    name: str
    fold: int
    fps: float
    success: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    logit: NDArray[np.float32]
    drift: NDArray[np.float32]
    drift_of_views: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """The same of its augmented views, in any order."""
    gate: NDArray[np.bool_] | None = None
    """Whether the gate on the robot's state was open; None: there is no gate."""


@dataclass(frozen=True)
class Demand:
    """What a rule is fitted to: the share of failed episodes that may be taken for success, and what of the
    rule is given (gate, latch, least time)."""

    false_successes: float = 0.01
    given: DecisionRule = field(default_factory=DecisionRule)


@dataclass(frozen=True)
class Fitted:
    """What turns logits into verdicts."""

    calibration: Calibration
    rule: DecisionRule
    drift_limit: float


def fit(episodes: Sequence[HeldOut], demand: Demand = Demand()) -> Fitted:
    """Calibration, decision rule and drift limit from episodes that no head learnt from.

    The threshold is the one nearest 0.5 of those that judge as many frames right as the best does, give or
    take one in a thousand; a wrong success weighs twice a missed one (it misleads a learner more). The
    window is the shortest that keeps to the budget of false successes; if none does, the threshold rises.
    """
    logit = np.concatenate([e.logit[e.counted] for e in episodes])
    success = np.concatenate([e.success[e.counted] for e in episodes])
    fitted = calibration.fit(logit, success)
    probability = calibration.apply(logit, fitted)
    cost = np.array([2 * (p := probability >= t)[~success].sum() + (~p)[success].sum() for t in THRESHOLDS])
    good = THRESHOLDS[cost <= cost.min() + max(1.0, len(logit) / 1000)]
    rule = _rule(episodes, fitted, float(good[np.abs(good - 0.5).argmin()]), demand)
    return Fitted(fitted, rule, _drift_limit(episodes))


def _drift_limit(episodes: Sequence[HeldOut]) -> float:
    plain = np.quantile(np.concatenate([e.drift for e in episodes]), _PLAIN_SHARE) * _PLAIN_MARGIN
    views = np.concatenate([e.drift_of_views for e in episodes])
    return float(max(plain, np.quantile(views, _VIEWS_SHARE) if len(views) else plain))


def _rule(episodes: Sequence[HeldOut], fitted: Calibration, threshold: float, demand: Demand) -> DecisionRule:
    failed = [e for e in episodes if not e.success.any()]
    allowed = int(demand.false_successes * len(failed) + 1e-9)
    strictest = None
    for raised in [t for t in (threshold, 0.6, 0.7, 0.8, 0.9, 0.95) if t >= threshold]:
        for window in WINDOWS_S:
            rule = demand.given.model_copy(update={
                "threshold": raised, "release": raised * 0.7, "window_s": window, "needed_s": window,
                "fitted_hz": episodes[0].fps,
            })  # fmt: skip
            wrong = sum(bool(judge(e, Fitted(fitted, rule, np.inf)).decision.any()) for e in failed)
            if wrong <= allowed:
                return rule
            strictest = rule
    assert strictest is not None
    return strictest


def judge(episode: HeldOut, fitted: Fitted) -> Judged:
    """Apply calibration, drift limit and decision exactly as the service does."""
    probability = calibration.apply(episode.logit, fitted.calibration)
    valid = episode.drift <= fitted.drift_limit
    known = [p if ok else None for p, ok in zip(probability.tolist(), valid.tolist(), strict=True)]
    gates = None if episode.gate is None else episode.gate.tolist()
    return Judged(
        name=episode.name, fps=episode.fps, success=episode.success, counted=episode.counted,
        logit=episode.logit, probability=probability,
        above=(probability >= fitted.rule.threshold) & valid,
        decision=np.array(decide_all(known, fitted.rule, episode.fps, gates), bool), valid=valid,
        threshold=fitted.rule.threshold,
    )  # fmt: skip


def note(heads: int, served: int, unit: str, step: int, settings: TrainerSettings) -> str:
    """What the figures were taken on, for whoever reads them in a bundle or its report."""
    serves = (
        f"The bundle serves the mean of the {heads} heads, every one of which trained on other episodes"
        if served == heads
        else "The bundle serves one more head, which trained on all episodes but those that stopped it"
    )
    text = (
        f"Each figure is of {heads} single heads, each judged on the episodes held out from it ({unit}). "
        "What stopped a head, calibrated it and set its threshold, window and drift limit were other "
        f"episodes, which it did not learn from either. {serves}, so what serves has no held-out figure of "
        "its own; its calibration and rule are fitted on all held-out logits. The directions of the features "
        "that heads look at come from the pictures of all episodes, without their labels."
    )
    text += f" The rule is fitted to this budget: {settings.budget}."
    if settings.gate == AUTO:
        text += " The gate is the range of the gripper in all frames labelled success, held out or not."
    if step > 1:
        text += (
            f" The labels were read off every {step} frames, so that an edge is uncertain by up to "
            f"{step - 1}: so many frames before it are left out of the loss and of the figures by frame, and "
            "an onset that much early is no error that these labels could show."
        )
    return text


def report(
    held_out: Sequence[HeldOut], selected: Mapping[int, Sequence[HeldOut]], demand: Demand = Demand()
) -> list[Judged]:
    """Verdicts over episodes that neither trained, stopped nor fitted what judges them, in their order.

    ``selected``: by fold, the episodes that stopped its head. They fit its calibration, rule and drift limit.
    """
    fitted = {fold: fit(episodes, demand) for fold, episodes in selected.items()}
    return [judge(e, fitted[e.fold]) for e in held_out]


def measure(judged: Sequence[Judged]) -> dict[str, Metric]:
    """All figures over what :func:`report` gives."""
    return figures.all_figures(judged, lambda logit: calibration.apply(logit, Calibration()))
