"""One head per fold, and what each of them says about the episodes that it did not learn from."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from gripwire.errors import UserError
from gripwire_trainer import train
from gripwire_trainer.checkpoint import Run
from gripwire_trainer.drift import Drift
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.evaluate import HeldOut
from gripwire_trainer.material import Material
from gripwire_trainer.model import HeadShape, Learner
from gripwire_trainer.settings import TrainerSettings
from gripwire_trainer.split import Fold
from gripwire_trainer.train import Recipe, Trained, Training

_BATCHES, _LEAST_EPOCHS = 300, 8
"""Enough for a head to settle, whether there are a dozen short episodes or forty long ones."""


@dataclass(frozen=True)
class Outcome:
    """All heads, and every episode as heads saw it that did not learn from it.

    ``heads``: one per fold; ``served``: those whose mean the bundle is. ``held_out``: every episode once, in
    order. ``selected``: by fold, the episodes that stopped its head.
    """

    heads: list[Trained]
    served: list[Trained]
    held_out: list[HeldOut]
    selected: dict[int, list[HeldOut]]
    drift: Drift
    shape: HeadShape
    map_size: tuple[int, int]


def train_heads(
    material: Material,
    episodes: Sequence[Labelled],
    folds: Sequence[Fold],
    settings: TrainerSettings,
    progress: Callable[[float], None],
    run: Run | None = None,
) -> Outcome:
    """Train a head per fold, two at a time; ``progress`` may raise to cancel.

    Raises:
        UserError: what is left to learn from after holding episodes back has one class only.
    """
    one = material.store.backbone.exportable
    parts = [
        *folds,
        Fold([i for f in folds for i in f.report if i not in folds[0].select], folds[0].select, []),
    ]
    trainings = [
        _training(material, episodes, fold, settings, number)
        for number, fold in enumerate(parts if one else folds)
    ]
    trained = _in_threads(trainings, progress, run)
    frames = material.frames(episodes)

    def seen(number: int, fold: Fold, which: Sequence[int]) -> list[HeldOut]:
        _, far = material.drift(fold.train)
        return [_see(material, frames, episodes, i, number, trained[number].best, far) for i in which]

    held_out = [e for n, fold in enumerate(folds) for e in seen(n, fold, fold.report)]
    order = {e.name: i for i, e in enumerate(episodes)}
    return Outcome(
        heads=trained[: len(folds)],
        served=trained[len(folds) :] if one else trained,
        held_out=sorted(held_out, key=lambda e: order[e.name]),
        selected={n: seen(n, fold, fold.select) for n, fold in enumerate(folds)},
        drift=material.drift(range(len(episodes)))[0],
        shape=_shape(settings),
        map_size=material.map_size,
    )


def _training(
    material: Material, episodes: Sequence[Labelled], fold: Fold, settings: TrainerSettings, number: int
) -> Training:
    frames = material.frames(episodes)
    rows = [_counted(material, episodes, part) for part in (fold.train, fold.select)]
    for chosen in rows:
        if not 0 < float(frames.success[chosen].mean()) < 1:
            raise UserError(
                "after holding episodes back, those left show only success or only failure; label more "
                "episodes of both"
            )
    recipe = _recipe(settings, number, len(rows[0]))
    return Training(material.head(_shape(settings), recipe.seed), frames, *rows, recipe)


def _recipe(settings: TrainerSettings, number: int, frames: int) -> Recipe:
    batches, least = (settings.steps, 1) if settings.steps else (_BATCHES, _LEAST_EPOCHS)
    by_itself = max(least, math.ceil(batches * settings.batch / frames))
    epochs = by_itself if settings.epochs == "auto" else settings.epochs
    return Recipe(
        epochs=epochs,
        patience=max(1, epochs // 2) if settings.patience == "auto" else settings.patience,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed + number,
    )


def _shape(settings: TrainerSettings) -> HeadShape:
    return HeadShape(settings.embeddings, settings.latent, settings.hidden, settings.dropout)


def _counted(material: Material, episodes: Sequence[Labelled], chosen: Sequence[int]) -> Tensor:
    """The rows of these episodes whose label is certain."""
    return torch.cat([material.rows([i])[torch.from_numpy(episodes[i].counted)] for i in chosen])


def _in_threads(
    trainings: Sequence[Training], progress: Callable[[float], None], run: Run | None
) -> list[Trained]:
    """Two at a time on a CPU: torch gains less from a second thread within one small head, and two that wait
    for each other on a busy machine lose more than they gain."""
    done = [0.0] * len(trainings)
    left = threading.Event()

    def work(number: int) -> Trained:
        def tell(training: Training) -> None:
            if left.is_set():
                raise CancelledError
            if run:
                run.note(number, training.curve[-1])
            done[number] = training.part
            progress(sum(done) / len(done))

        kept = run.fold(number) if run else None
        return train.train_head(trainings[number], tell, kept)

    with ThreadPoolExecutor(1 if torch.cuda.is_available() else 2, "heads") as pool:
        jobs = [pool.submit(work, number) for number in range(len(trainings))]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            left.set()  # heads under way end with their epoch
            pool.shutdown(cancel_futures=True)
            raise


def _see(
    material: Material,
    frames: train.Frames,
    episodes: Sequence[Labelled],
    index: int,
    fold: int,
    head: Learner,
    far: Tensor,
) -> HeldOut:
    rows, e = material.rows([index]), episodes[index]
    distance = far[rows].numpy()
    return HeldOut(
        name=e.name, fold=fold, fps=e.dataset.fps, success=e.success, counted=e.counted,
        logit=train.logits(head, frames, rows), drift=distance[:, 0], drift_of_views=distance[:, 1:].ravel(),
        gate=e.gate,
    )  # fmt: skip
