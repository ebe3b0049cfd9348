"""Judged episodes to try figures and reports on."""

from collections.abc import Sequence

import numpy as np

from gripwire_reward.decision import DecisionRule, decide_all
from gripwire_trainer.figures import Judged

RULE = DecisionRule(threshold=0.5, release=0.35, window_s=0.3, needed_s=0.3, fitted_hz=10)


def judged(
    name: str,
    success: Sequence[int],
    said: Sequence[float],
    uncertain: Sequence[int] = (),
    invalid: Sequence[int] = (),
) -> Judged:
    """An episode at 10 Hz; ``uncertain`` and ``invalid`` are frame numbers."""
    p = np.array(said, np.float64)
    counted, valid = np.ones(len(p), bool), np.ones(len(p), bool)
    counted[list(uncertain)] = False
    valid[list(invalid)] = False
    known = [float(x) if ok else None for x, ok in zip(p, valid, strict=True)]
    return Judged(
        name=name, fps=10.0, success=np.array(success, bool), counted=counted,
        logit=np.log(p / (1 - p)).astype(np.float32), probability=p,
        above=(p >= RULE.threshold) & valid, decision=np.array(decide_all(known, RULE, 10.0), bool),
        valid=valid, threshold=RULE.threshold,
    )  # fmt: skip


def well(name: str, success: Sequence[int], mistakes: Sequence[int] = ()) -> Judged:
    """An episode judged surely and rightly, but at these frames surely and wrongly."""
    said = np.where(np.array(success, bool), 0.99, 0.01)
    said[list(mistakes)] = 1 - said[list(mistakes)]
    return judged(name, success, said.tolist())
