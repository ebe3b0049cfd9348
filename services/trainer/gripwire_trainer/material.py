"""What heads learn from, in memory: every frame of every episode in all its views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gripwire_reward.scorer import drift as length
from gripwire_trainer import drift, model
from gripwire_trainer.backbone import Pictures
from gripwire_trainer.drift import Drift
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.features import FeatureStore
from gripwire_trainer.model import Basis, Head, HeadShape, Learner
from gripwire_trainer.train import Frames
from gripwire_trainer.views import InMemory, OnDisk, Views

_MOST_FAR = 16


@dataclass(frozen=True)
class Material:
    """All frames, episode after episode.

    ``views`` as :class:`Frames` wants them; ``pooled`` (n, w, d), the first few views as drift is told from
    them.
    """

    store: FeatureStore
    keys: tuple[str, ...]
    """One per episode, of the store: what it was read from."""
    starts: Tensor
    """(episodes + 1,): episode i has the rows from starts[i] to starts[i + 1]."""
    views: Views
    pooled: Tensor
    basis: Basis | None
    map_size: tuple[int, int]
    _far: dict[tuple[int, ...], tuple[Drift, Tensor]] = field(default_factory=dict)

    def rows(self, episodes: Sequence[int]) -> Tensor:
        """The rows of these episodes, in their order."""
        return torch.cat([torch.arange(int(self.starts[i]), int(self.starts[i + 1])) for i in episodes])

    def frames(self, episodes: Sequence[Labelled]) -> Frames:
        """With these labels."""
        success = np.concatenate([e.success for e in episodes]).astype(np.float32)
        return Frames(self.views, torch.from_numpy(success).to(self.views.device))

    def drift(self, episodes: Sequence[int]) -> tuple[Drift, Tensor]:
        """How drift from these episodes is told, and that of every frame and view (n, w). Labels play no part
        in it, so the next job with the same episodes has it already."""
        if (key := tuple(episodes)) not in self._far:
            if len(self._far) >= _MOST_FAR:  # labels have moved episodes between folds again and again
                self._far.clear()
            fitted = drift.fit(self.pooled[self.rows(episodes)])
            self._far[key] = fitted, _lengths(fitted, self.pooled)
        return self._far[key]

    def head(self, shape: HeadShape, seed: int) -> Learner:
        """A head that has learnt nothing yet. Not to be called in several threads at a time."""
        torch.manual_seed(seed)
        if self.basis is None:
            from gripwire_trainer.scratch import SmallNet

            return SmallNet(self.map_size, shape)
        return Head(self.basis, self.map_size[0] * self.map_size[1], shape)


def _lengths(fitted: Drift, pooled: Tensor) -> Tensor:
    told = [length(fitted.whiten(part).flatten(0, 1).numpy()) for part in pooled.split(512)]
    return torch.from_numpy(np.concatenate(told)).reshape(pooled.shape[:2])


def gather(
    store: FeatureStore, episodes: Sequence[Labelled], views: int, progress: Callable[[float], None]
) -> Material:
    """Read all views of the episodes, projected on their basis: one episode at a time, since the features as
    they are in the cache would fill the memory."""
    whole = isinstance(store.backbone, Pictures)
    # Whole pictures need no basis, and would fill the memory.
    first = [] if whole else [_view(store, episode, 0) for episode in episodes]
    basis = None if whole else model.principal(first)
    starts = torch.tensor([0, *np.cumsum([len(e.success) for e in episodes]).tolist()])
    sample = first[0] if first else _view(store, episodes[0], 0)
    height, width = sample.shape[2:]
    seen = min(views, drift.VIEWS)
    pooled = torch.empty((int(starts[-1]), seen, drift.pool(as_served(sample[:1])).shape[1]))
    made: Views | None = None
    for i, episode in enumerate(episodes):
        start, end = int(starts[i]), int(starts[i + 1])
        for view in range(views):
            features = first[i] if first and view == 0 else _view(store, episode, view)
            part = features if basis is None else basis.project(features)
            if made is None and whole:
                made = OnDisk(views, part, store.cache.root)
            elif made is None:
                made = InMemory(int(starts[-1]), views, part)
            made.put(start, view, part)
            if view < seen:
                pooled[start:end, view] = drift.pool(as_served(features))
        progress((i + 1) / len(episodes))
    store.cache.trim()
    assert made is not None
    return Material(
        store,
        tuple(store.key(e.dataset, e.episode) for e in episodes),
        starts,
        made,
        pooled,
        basis,
        (int(height), int(width)),
    )


def as_served(features: Tensor) -> Tensor:
    """Cached features as the served graph has them: float32, and pictures in 0..1."""
    return features.float() / 255 if features.dtype == torch.uint8 else features.float()


def _view(store: FeatureStore, episode: Labelled, view: int) -> Tensor:
    return torch.from_numpy(store.features(episode.dataset, episode.episode, view))
