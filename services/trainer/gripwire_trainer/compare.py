"""Whether a new bundle is worse than the one that serves, on the same episodes held out from both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gripwire.errors import UserError
from gripwire_reward.bundle import Bundle
from gripwire_trainer import bundle_in, evaluate, figures
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.evaluate import Fitted, HeldOut
from gripwire_trainer.features import FeatureStore
from gripwire_trainer.figures import Judged
from gripwire_trainer.material import as_served
from gripwire_trainer.model import Learner

_ROUNDS = 1000
_SURE = 0.95


@dataclass(frozen=True)
class Tally:
    """What a model gets wrong on the episodes held out from it."""

    false_successes: int
    missed: int
    wrong_frames: NDArray[np.int64]
    """By episode."""


@dataclass(frozen=True)
class Verdict:
    """Whether to offer the new bundle, and the reason in words."""

    offer: bool
    why: str


def judge_new(held_out: Sequence[HeldOut], selected: Mapping[int, Sequence[HeldOut]]) -> list[Judged]:
    """As :func:`evaluate.report` says, but for drift, which two bundles of nearly the same episodes see
    alike, and for the gate, which is none of the model's doing."""
    without = {fold: [_model_alone(e) for e in episodes] for fold, episodes in selected.items()}
    return evaluate.report([_model_alone(e) for e in held_out], without)


def _model_alone(e: HeldOut) -> HeldOut:
    return replace(e, drift=np.zeros_like(e.drift), drift_of_views=e.drift_of_views[:0], gate=None)


def judge_serving(serving: Bundle, store: FeatureStore, episodes: Sequence[Labelled]) -> list[Judged]:
    """What the heads of a bundle say about episodes, each by the head that it was held out from, or by all
    of them together if it is new to them. Labels are those of today, and so are calibration and rule, each
    head's fitted on the next fold, as in its own evaluation; new episodes get the bundle's own. Drift is left
    out, see :func:`judge_new`.

    Raises:
        UserError: it cannot be told, because the bundle sees other pictures or lacks its heads.
    """
    manifest = serving.manifest
    if manifest.backbone != store.backbone.fingerprint or manifest.inputs[0] != store.contract:
        raise UserError(
            f"bundle {serving.id} has another backbone, crop or size, so the two cannot be compared on "
            "episodes that both were held out from"
        )
    if not manifest.trained_on.held_out:
        raise UserError(
            f"bundle {serving.id} does not say which episodes its heads were held out from, so it cannot be "
            "compared with"
        )
    return _judge_by_folds(serving, store, episodes)


def _judge_by_folds(serving: Bundle, store: FeatureStore, episodes: Sequence[Labelled]) -> list[Judged]:
    manifest, heads = serving.manifest, bundle_in.read_heads(serving)
    own = Fitted(manifest.calibration, manifest.decision, np.inf)
    fold_of = {e.name: manifest.trained_on.held_out.get(store.key(e.dataset, e.episode)) for e in episodes}
    known: list[HeldOut] = []
    selected: dict[int, list[HeldOut]] = {fold: [] for fold in range(len(heads))}
    judged: dict[str, Judged] = {}
    for e in episodes:
        features = torch.from_numpy(store.features(e.dataset, e.episode, 0))
        given = as_served(features)
        fold = fold_of[e.name]
        if fold is None:
            judged[e.name] = evaluate.judge(_see(e, heads, 0, given), own)
        else:
            known.append(_see(e, [heads[fold]], fold, given))
            stopped = (fold - 1) % len(heads)  # see split.rotate: it was stopped by these
            selected[stopped].append(_see(e, [heads[stopped]], stopped, given))
    fit_on = {fold: e for fold, e in selected.items() if any(x.success.any() for x in e)}
    judged |= {j.name: j for j in evaluate.report([e for e in known if e.fold in fit_on], fit_on)}
    judged |= {e.name: evaluate.judge(e, own) for e in known if e.fold not in fit_on}
    return [judged[e.name] for e in episodes]


def _see(e: Labelled, heads: Sequence[Learner], fold: int, features: Tensor) -> HeldOut:
    with torch.inference_mode():
        logit = torch.stack([head(features) for head in heads]).mean(0).numpy()
    return HeldOut(e.name, fold, e.dataset.fps, e.success, e.counted, logit, np.zeros_like(logit))


def tally(judged: Sequence[Judged]) -> Tally:
    """Count the mistakes."""
    episodes = figures.by_episode(judged)
    return Tally(
        false_successes=episodes.false_alarms,
        missed=episodes.misses,
        wrong_frames=np.array([int((~e.right)[e.counted].sum()) for e in judged]),
    )


def decide(new: Sequence[Judged], old: Sequence[Judged], old_id: str) -> Verdict:
    """Not worse: no more failed episodes taken for success, no more successes missed, and no more wrong
    frames than chance explains (bootstrap over episodes, both models on the same)."""
    a, b = tally(new), tally(old)
    failed = sum(e.failed for e in new)
    frames = sum(int(e.counted.sum()) for e in new)
    said = (
        f"false successes {a.false_successes} (serving: {b.false_successes}) in {failed} failed episodes, "
        f"missed {a.missed} ({b.missed}) of {len(new) - failed}, wrong frames {a.wrong_frames.sum()} "
        f"({b.wrong_frames.sum()}) of {frames}, on the episodes held out from both"
    )
    worse = [
        text
        for text, is_so in (
            ("more false successes", a.false_successes > b.false_successes),
            ("more successes missed", a.missed > b.missed),
            ("more wrong frames than chance explains", _surely_more(a.wrong_frames, b.wrong_frames)),
        )
        if is_so
    ]
    if worse:
        return Verdict(False, f"worse than {old_id}: {', '.join(worse)} ({said})")
    return Verdict(True, f"not worse than {old_id}: {said}")


def _surely_more(new: NDArray[np.int64], old: NDArray[np.int64]) -> bool:
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(new), size=(_ROUNDS, len(new)))
    return bool(((new - old)[drawn].sum(1) > 0).mean() >= _SURE)
