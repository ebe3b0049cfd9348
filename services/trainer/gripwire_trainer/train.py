"""Trains one head on cached features: AdamW, class balance, early stopping on validation loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from gripwire_trainer.model import Dropout, Learner
from gripwire_trainer.views import Views

_WARM_UP = 0.2
_LEAST_RATE = 0.01


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int = 12
    patience: int = 6
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Frames:
    """All frames that a job learns from, in all views, and whether each is success.

    ``views`` are what :meth:`Learner.learn` takes, the first being the picture as it is; ``success`` (n,)
    float32. Trainings are given rows of it, so that no fold needs a copy.
    """

    views: Views
    success: Tensor


@dataclass
class Trained:
    """The weights with the least validation loss, the last ones, and the curve that led there."""

    best: Learner
    last: dict[str, Tensor]
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


class Checkpoints(Protocol):
    """Where a training leaves its state, to go on from there after an interruption."""

    def load(self) -> dict[str, Tensor] | None:
        """The last state saved, if there is one."""

    def save(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """Keep this state, if it is time to."""


class Training:
    """One head's training, an epoch at a time. Deterministic for a seed on one machine."""

    def __init__(self, head: Learner, frames: Frames, train: Tensor, select: Tensor, recipe: Recipe) -> None:
        """``train`` sets the weights, ``select`` stops the training: rows (m,) of ``frames``."""
        self.head, self.recipe = head.to(frames.views.device), recipe
        self._frames, self._train, self._select = frames, train, select
        self._order = torch.Generator().manual_seed(recipe.seed)
        noise = torch.Generator(frames.views.device).manual_seed(recipe.seed)
        self._generators = {"order": self._order, "noise": noise}
        for part in head.modules():
            if isinstance(part, Dropout):
                part.generator = noise
        self._optimiser = torch.optim.AdamW(
            head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._weight = balance(frames.success[train])
        self._stopping = EarlyStopping(recipe.patience)
        self.epoch = self.best_epoch = 0
        self.best = _weights(head)
        self.curve: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.epochs or self._stopping.stop

    @property
    def part(self) -> float:
        """How much of it is done, 0..1."""
        return 1.0 if self.finished else self.epoch / self.recipe.epochs

    def run_epoch(self) -> None:
        """See each frame once, in a view drawn anew: epochs stay short, views still mix."""
        self.head.train()
        batches = torch.randperm(len(self._train), generator=self._order).split(self.recipe.batch)
        losses = []
        for number, batch in enumerate(batches):
            self._set_rate((self.epoch + number / len(batches)) / self.recipe.epochs)
            self._optimiser.zero_grad()
            # A whole network's batch goes through in parts, whose gradients add up: less memory.
            losses.append(sum(self._backward(part, len(batch)) for part in batch.split(self.head.at_a_time)))
            self._optimiser.step()
        self._note(float(np.mean(losses)), validate(self.head, self._frames, self._select))

    def _backward(self, chosen: Tensor, batch: int) -> float:
        """Add these rows' part of the batch's loss to the gradients; the part."""
        rows = self._train[chosen]
        drawn = torch.randint(self._frames.views.count, (len(rows),), generator=self._order)
        logit = self.head.learn(self._frames.views.take(rows, drawn))
        loss = cross_entropy(logit, self._frames.success[rows], weight=self._weight[chosen])
        loss = loss * (len(rows) / batch)
        loss.backward()
        return loss.item()

    def _note(self, train_loss: float, validation_loss: float) -> None:
        if self._stopping.improved(validation_loss):
            self.best, self.best_epoch = _weights(self.head), self.epoch
        self.curve.append({"epoch": self.epoch, "train_loss": train_loss, "validation_loss": validation_loss})
        self.epoch += 1

    def _set_rate(self, part: float) -> None:
        """One cycle (arXiv 1708.07120): up over the first fifth, then down along a cosine."""
        down = (1 + math.cos(math.pi * (part - _WARM_UP) / (1 - _WARM_UP))) / 2
        share = part / _WARM_UP if part < _WARM_UP else down
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * max(share, _LEAST_RATE)

    def state(self) -> dict[str, Tensor]:
        """All that it takes to go on from here: see :meth:`restore`."""
        out = {f"head.{k}": v for k, v in self.head.state_dict().items()}
        out |= {f"best.{k}": v for k, v in self.best.items()}
        for i, moments in self._optimiser.state_dict()["state"].items():
            out |= {f"adam.{i}.{k}": v for k, v in moments.items()}
        out |= {f"generator.{k}": g.get_state() for k, g in self._generators.items()}
        losses = [[e["train_loss"], e["validation_loss"]] for e in self.curve]
        return out | {"losses": torch.tensor(losses, dtype=torch.float64).reshape(-1, 2)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a :meth:`state` of the same training."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = value
        for train_loss, validation_loss in state["losses"].tolist():
            self._note(train_loss, validation_loss)
        self.head.load_state_dict(parts["head"])
        self.best = parts["best"]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["adam"].items():
            i, _, name = key.partition(".")
            moments.setdefault(int(i), {})[name] = value
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": moments})
        for name, generator in self._generators.items():
            generator.set_state(parts["generator"][name])

    def result(self) -> Trained:
        """The weights with the least validation loss so far, on the CPU."""
        last = _weights(self.head)
        self.head.load_state_dict(self.best)
        return Trained(self.head.cpu().eval(), last, self.best_epoch, self.curve)


def train_head(
    training: Training, progress: Callable[[Training], None], checkpoints: Checkpoints | None = None
) -> Trained:
    """Train to the end, from the last checkpoint on if there is one. ``progress`` may raise to cancel."""
    if checkpoints and (state := checkpoints.load()):
        training.restore(state)
    while not training.finished:
        training.run_epoch()
        if checkpoints:
            checkpoints.save(training.state)
        progress(training)
    return training.result()


def balance(success: Tensor) -> Tensor:
    """A weight per frame so that both classes weigh the same in the loss, with mean 1."""
    share = success.mean().clamp(1e-3, 1 - 1e-3)
    return torch.where(success > 0, 0.5 / share, 0.5 / (1 - share))


def validate(head: Learner, frames: Frames, rows: Tensor) -> float:
    """Class-balanced cross-entropy on the pictures as they are."""
    success = frames.success[rows]
    logit = torch.from_numpy(logits(head, frames, rows)).to(success.device)
    return float(cross_entropy(logit, success, weight=balance(success)))


@torch.no_grad()
def logits(head: Learner, frames: Frames, rows: Tensor) -> NDArray[np.float32]:
    """Logits (m,) of the first view of these rows (m,)."""
    head.eval()
    device = next(head.parameters()).device  # a head that has been trained is on the CPU again
    chunks = rows.split(head.at_a_time)
    parts = [head.learn(frames.views.take(c, torch.zeros_like(c)).to(device)) for c in chunks]
    return torch.cat(parts).cpu().numpy()


def _weights(head: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in head.state_dict().items()}
