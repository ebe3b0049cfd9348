"""Whether a new bundle is worse than the one that serves, on the same episodes held out from both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.bundle import Bundle
from gripwire_reward.scorer import drift as length
from gripwire_trainer import bundle_in, drift, evaluate, figures
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.evaluate import Fitted, HeldOut
from gripwire_trainer.features import FeatureStore
from gripwire_trainer.figures import Judged

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


def judge_serving(serving: Bundle, store: FeatureStore, episodes: Sequence[Labelled]) -> list[Judged]:
    """What the heads of a bundle say about episodes, each by the head that it was held out from, or by all
    of them together if it is new to them; by these labels, and by the bundle's own calibration and rule.

    Raises:
        UserError: it cannot be told, because the bundle sees other pictures or lacks its heads.
    """
    manifest = serving.manifest
    if manifest.backbone != store.backbone.fingerprint or manifest.inputs[0] != store.contract:
        raise UserError(
            f"bundle {serving.id} has another backbone, crop or size, so the two cannot be compared on "
            "episodes that both were held out from"
        )
    try:
        return _judge_by_folds(serving, store, episodes)
    except (RuntimeError, IndexError, ValueError) as e:  # a bundle of another version of this trainer
        raise UserError(
            f"bundle {serving.id} was made by another version of the trainer and cannot be compared with "
            f"({str(e)[:100]})"
        ) from e


def _judge_by_folds(serving: Bundle, store: FeatureStore, episodes: Sequence[Labelled]) -> list[Judged]:
    manifest = serving.manifest
    heads = bundle_in.read_heads(serving)
    held_out_from = {
        name: int(part.removeprefix("report "))
        for part, names in manifest.trained_on.split.items()
        for name in names
    }
    far = bundle_in.read_drift(serving)
    fitted = Fitted(manifest.calibration, manifest.decision, manifest.drift_limit or np.inf)
    out = []
    for e in episodes:
        features = torch.from_numpy(store.features(e.dataset, e.episode, 0))
        fold = held_out_from.get(e.name)
        chosen = heads if fold is None else [heads[fold]]
        with torch.inference_mode():
            given = features.float() / 255 if features.dtype == torch.uint8 else features.float()
            logit = torch.stack([head(given) for head in chosen]).mean(0).numpy()
            seen = length(far.whiten(drift.pool(given)).numpy())
        held = HeldOut(e.name, 0, e.dataset.fps, e.success, e.counted, logit, seen)
        out.append(evaluate.judge(held, fitted))
    return out


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
