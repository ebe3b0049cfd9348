"""The one pipeline from labels to an offered bundle, used by the command and by the service."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.bundle import Bundle, Manifest, TrainedOn
from gripwire_reward.datasets import Dataset, Episode
from gripwire_reward.preprocess import Crop, InputContract, central_square
from gripwire_trainer import backbone, bundle_out, evaluate, labels, report, split
from gripwire_trainer.builder import Builder
from gripwire_trainer.episodes import Labelled, read_episodes, short_names
from gripwire_trainer.evaluate import HeldOut
from gripwire_trainer.features import FeatureStore, extract
from gripwire_trainer.figures import Judged
from gripwire_trainer.settings import TrainerSettings
from gripwire_trainer.train import Recipe, Rows, Trained, logits, train_head

Say = Callable[[str, float, dict[str, float]], None]
"""Told the stage, how much of it is done (0..1), and figures so far."""


@dataclass(frozen=True)
class Task:
    """What to train from: a label file, or a dataset that has `next.reward`."""

    target: Path
    data: Path
    settings: TrainerSettings


@dataclass
class Result:
    """What came out. ``failures`` is what went wrong after the bundle was there, one sentence each."""

    bundle: Bundle
    metrics: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)
    dataset: str = ""
    failures: list[str] = field(default_factory=list)


class Stages:
    """Times the stages and passes progress on."""

    def __init__(self, say: Say) -> None:
        self.seconds: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self._say = say

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        start = time.monotonic()
        self._say(name, 0.0, self.metrics)
        yield lambda part: self._say(name, part, self.metrics)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)
        self._say(name, 1.0, self.metrics)


def run(
    task: Task,
    say: Say,
    offer: Callable[[str], object] | None = None,
    sealed: Callable[[str], object] | None = None,
) -> Result:
    """Read, extract, train, evaluate, bundle, offer if asked, and wait for the dataset built meanwhile.

    ``sealed`` is told the bundle's id as soon as the bundle is on the disk; ``offer`` may refuse it with a
    ``UserError``; ``say`` may raise to cancel. A bundle outlives what fails after it: a refusal, or a
    dataset that cannot be built, is told in the result.

    Raises:
        UserError: bad labels or datasets, too little of either class, or a full disk: there is no bundle.
    """
    stages = Stages(say)
    torch.set_num_threads(1)  # heads are small: a second thread costs more than it gives
    with stages.stage("read"):
        split.check_unit(task.settings.split)
        episodes = read_episodes(task.target, task.settings)
        contract = make_contract(episodes, task.settings)
        store = FeatureStore(task.data / "cache", contract)
        threads = task.settings.threads or min(4, os.cpu_count() or 1)
    builder = Builder(task.target, task.data, task.settings.build)
    try:
        with stages.stage("features") as progress:
            pairs = [(e.dataset, e.episode) for e in episodes]
            features = extract(store, pairs, task.settings.views, threads, progress)
        with stages.stage("train") as progress:
            trained, held_out, folds = _train(episodes, features, task.settings, progress)
        with stages.stage("evaluate"):
            judged, metrics = evaluate.report(held_out)
            fitted = evaluate.fit(held_out)
            stages.metrics.update({name: round(metric.value, 5) for name, metric in metrics.items()})
        with stages.stage("bundle"):
            manifest = Manifest(
                created=bundle_out.now(),
                name=task.target.stem,
                inputs=[contract],
                backbone=backbone.fingerprint(),
                calibration=fitted.calibration,
                decision=fitted.rule,
                metrics=metrics,
                note=evaluate.note(len(trained)),
                licence=bundle_out.LICENCE,
                trained_on=_provenance(task, episodes, folds, store),
            )
            result = Result(
                _seal(task, manifest, trained, judged, episodes, store), stages.metrics, stages.seconds
            )
            if sealed:  # before the stage's end, which may cancel
                sealed(result.bundle.id)
        if offer:
            with (
                stages.stage("offer"),
                _told_in(result, f"bundle {result.bundle.id} is not known to serve: "),
            ):
                offer(result.bundle.id)
        # Last: nobody who waits for the classifier should wait for the dataset as well.
        with stages.stage("build") as progress, _told_in(result, f"bundle {result.bundle.id} is there, but "):
            result.dataset = builder.wait(progress)
    finally:
        builder.stop()
    return result


@contextmanager
def _told_in(result: Result, opening: str) -> Iterator[None]:
    """What fails from now on costs no bundle: it is told beside it."""
    try:
        yield
    except UserError as e:
        result.failures.append(f"{opening}{e}")


def _seal(
    task: Task,
    manifest: Manifest,
    trained: list[Trained],
    judged: list[Judged],
    episodes: list[Labelled],
    store: FeatureStore,
) -> Bundle:
    """Write the bundle, its report included."""
    by_name = {e.name: e for e in episodes}

    def pictures(name: str) -> NDArray[np.uint8]:
        return store.pictures(by_name[name].dataset, by_name[name].episode)

    page = report.render(manifest, judged, pictures)
    golden = _golden_episodes(episodes)
    return bundle_out.write(task.data / "bundles", manifest, trained, golden, {"report.html": page})


def make_contract(episodes: list[Labelled], settings: TrainerSettings) -> InputContract:
    """The preprocessing that will travel with the model.

    Raises:
        UserError: the datasets have different cameras, or the crop does not fit.
    """
    first = episodes[0].dataset
    key = first.camera(settings.camera or None)
    height, width = first.cameras[key]
    for other in episodes:
        if (size := other.dataset.cameras[other.dataset.camera(key)]) != (height, width):
            raise UserError(
                f"{first.path} has pictures of {width}x{height}, {other.dataset.path} of "
                f"{size[1]}x{size[0]}; "
                "train on datasets of one size"
            )
    crop = central_square(height, width)
    if settings.crop:
        top, left, crop_height, crop_width = settings.crop
        try:
            crop = Crop(top=top, left=left, height=crop_height, width=crop_width)
        except ValueError as e:
            raise UserError(
                f"[trainer] crop = {list(settings.crop)}: top, left, height, width are due"
            ) from e
    if min(settings.size) < 2 * backbone.STRIDE:
        raise UserError(
            f"[trainer] size = {list(settings.size)}: at least {2 * backbone.STRIDE} pixels are needed"
        )
    try:
        return InputContract(
            key=key,
            frame=(height, width),
            crop=crop,
            size=settings.size,
            interpolation=settings.interpolation,
            scale=backbone.SCALE,
            mean=backbone.MEAN,
            std=backbone.STD,
        )
    except ValueError as e:
        raise UserError(
            f"[trainer] crop: {crop} does not fit in pictures of {width}x{height}; correct it"
        ) from e


def _train(
    episodes: list[Labelled],
    features: list[list[NDArray[np.float16]]],
    settings: TrainerSettings,
    progress: Callable[[float], None],
) -> tuple[list[Trained], list[HeldOut], list[split.Fold]]:
    """One head per fold; every episode is scored by the head that neither trained on it nor stopped by it."""
    sessions = [e.session for e in episodes] if settings.split == "session" else None
    folds = split.rotate([bool(e.success.any()) for e in episodes], sessions, settings.seed)
    trained, held_out = [], []
    for number, fold in enumerate(folds):
        recipe = Recipe(
            settings.epochs,
            settings.patience,
            settings.batch,
            settings.learning_rate,
            settings.weight_decay,
            settings.seed + number,
        )
        rows = [_rows(episodes, features, part) for part in (fold.train, fold.select)]
        result = train_head(rows[0], rows[1], recipe, lambda p, n=number: progress((n + p) / len(folds)))
        trained.append(result)
        for i in fold.report:
            e = episodes[i]
            logit = logits(result.best, torch.from_numpy(features[i][0]))
            held_out.append(HeldOut(e.name, number, e.dataset.fps, e.success, e.counted, logit))
    held_out.sort(key=lambda h: [e.name for e in episodes].index(h.name))
    return trained, held_out, folds


def _rows(episodes: list[Labelled], features: list[list[NDArray[np.float16]]], chosen: list[int]) -> Rows:
    views = [
        np.concatenate([features[i][v][episodes[i].counted] for i in chosen]) for v in range(len(features[0]))
    ]
    success = np.concatenate([episodes[i].success[episodes[i].counted] for i in chosen])
    if not 0 < success.sum() < len(success):
        raise UserError(
            "after holding episodes back, those left show only success or only failure; label more "
            "episodes of both"
        )
    return Rows(torch.from_numpy(np.stack(views)), torch.from_numpy(success.astype(np.float32)))


def _golden_episodes(episodes: list[Labelled]) -> list[tuple[Dataset, Episode]]:
    """Two episodes with success and two without, where there are so many."""
    good = [e for e in episodes if e.success.any()][:2]
    bad = [e for e in episodes if not e.success.any()][:2]
    return [(e.dataset, e.episode) for e in (good + bad)]


def _provenance(
    task: Task, episodes: list[Labelled], folds: list[split.Fold], store: FeatureStore
) -> TrainedOn:
    key = store.contract.key
    hashes: dict[str, Any] = {}
    for e in episodes:
        hashes.setdefault(e.name.rpartition("/")[0], hashlib.sha256()).update(
            store.hash_of(e.episode.videos[key].path).encode()
        )
    files = (
        [task.target, *(s.file for s in labels.read(task.target).sources)] if task.target.is_file() else []
    )
    return TrainedOn(
        datasets={name: digest.hexdigest() for name, digest in hashes.items()},
        labels={
            name: hashlib.sha256(file.read_bytes()).hexdigest() for file, name in short_names(files).items()
        },
        code=bundle_out.code_hash(),
        split={f"report {i}": [episodes[e].name for e in fold.report] for i, fold in enumerate(folds)},
        frames=sum(len(e.success) for e in episodes),
        seed=task.settings.seed,
        settings=task.settings.model_dump(mode="json"),
    )
