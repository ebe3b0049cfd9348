"""Trains one head on cached features: AdamW, class balance, early stopping on validation loss."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from gripwire_trainer.model import Head


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int = 60
    patience: int = 10
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Rows:
    """Frames to learn from: all views of each, (views, n, c, h, w) float16, and whether they are success."""

    features: Tensor
    success: Tensor


@dataclass
class Trained:
    """The weights with the least validation loss, the last ones, and the curve that led there."""

    best: Head
    last: Head
    best_epoch: int
    curve: list[dict[str, float]] = field(default_factory=list)


class EarlyStopping:
    """Says when the loss has not fallen for ``patience`` epochs.

    A gain below ``least_gain`` is kept but earns no more patience: on separable data the loss creeps
    towards 0 for ever.
    """

    def __init__(self, patience: int, least_gain: float = 1e-3) -> None:
        self.patience, self.least_gain = patience, least_gain
        self.best = self._mark = float("inf")
        self.since = 0

    def improved(self, loss: float) -> bool:
        """Take in an epoch's loss; True when it is the least so far."""
        if loss < self._mark - self.least_gain:
            self._mark, self.since = loss, 0
        else:
            self.since += 1
        if loss < self.best:
            self.best = loss
            return True
        return False

    @property
    def stop(self) -> bool:
        return self.since >= self.patience


def train_head(
    train: Rows, select: Rows, recipe: Recipe, progress: Callable[[float], None] | None = None
) -> Trained:
    """Fit a head on ``train``, stop by the plain view of ``select``. Deterministic for a seed on one "
    "machine."""
    torch.manual_seed(recipe.seed)
    order = torch.Generator().manual_seed(recipe.seed)
    views, count = train.features.shape[:2]
    channels, places = train.features.shape[2], train.features.shape[3] * train.features.shape[4]
    head = Head(channels, places)
    head.standardise(train.features[0])
    optimiser = torch.optim.AdamW(head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    weight = balance(train.success)
    stopping, best, best_epoch, curve = EarlyStopping(recipe.patience), copy.deepcopy(head), 0, []
    for epoch in range(recipe.epochs):
        head.train()
        losses = []
        # Every epoch sees each frame once, in a view drawn anew: epochs stay short, views still mix.
        drawn = torch.randint(views, (count,), generator=order)
        for rows in torch.randperm(count, generator=order).split(recipe.batch):
            logit = head(train.features[drawn[rows], rows].float())
            loss = cross_entropy(logit, train.success[rows], weight=weight[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        validation = validate(head, select)
        curve.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "validation_loss": validation})
        if stopping.improved(validation):
            best, best_epoch = copy.deepcopy(head), epoch
        if progress:
            progress((epoch + 1) / recipe.epochs)
        if stopping.stop:
            break
    return Trained(best.eval(), head.eval(), best_epoch, curve)


def balance(success: Tensor) -> Tensor:
    """A weight per frame so that both classes weigh the same in the loss, with mean 1."""
    share = success.mean().clamp(1e-3, 1 - 1e-3)
    return torch.where(success > 0, 0.5 / share, 0.5 / (1 - share))


def validate(head: Head, rows: Rows) -> float:
    """Class-balanced cross-entropy on the pictures as they are."""
    head.eval()
    logit = torch.from_numpy(logits(head, rows.features[0]))
    return float(cross_entropy(logit, rows.success, weight=balance(rows.success)))


@torch.no_grad()
def logits(head: Head, features: Tensor) -> NDArray[np.float32]:
    """Logits (n,) of features (n, c, h, w)."""
    head.eval()
    return torch.cat([head(chunk.float()) for chunk in features.split(512)]).numpy()
