"""The one pipeline from labels to an offered bundle, used by the commands and by the service."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.bundle import Bundle, Manifest, TrainedOn
from gripwire_reward.decision import DecisionRule
from gripwire_trainer import bundle_out, evaluate, gates, labels, report, split
from gripwire_trainer.backbone import open_backbone
from gripwire_trainer.builder import Builder, WarmBuilder
from gripwire_trainer.cache import Cache
from gripwire_trainer.checkpoint import Run
from gripwire_trainer.contract import make_contract
from gripwire_trainer.episodes import Labelled, read_episodes, reading_step, short_names
from gripwire_trainer.features import FeatureStore, extract
from gripwire_trainer.figures import Judged
from gripwire_trainer.heads import Outcome, train_heads
from gripwire_trainer.material import Material, gather
from gripwire_trainer.settings import TrainerSettings
from gripwire_trainer.split import Fold
from gripwire_trainer.task import Say, Task


@dataclass
class Result:
    """What came out. ``failures`` is what went wrong after the bundle was there, one sentence each."""

    bundle: Bundle
    metrics: dict[str, float]
    outcome: Outcome
    material: Material
    episodes: list[Labelled]
    judged: list[Judged]
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


@dataclass
class Bench:
    """What one job leaves in memory for the next, so that another label costs no more than another head.

    ``builder``: how the reward dataset is built; a :class:`WarmBuilder` where jobs follow each other.
    """

    builder: type[Builder | WarmBuilder] = Builder
    opened: tuple[str, tuple[int, int]] | None = None
    store: FeatureStore | None = None
    material: Material | None = None
    golden: dict[tuple[str, ...], NDArray[np.uint8]] = field(default_factory=dict)


def run(
    task: Task,
    say: Say,
    offer: Callable[[Result], object] | None = None,
    sealed: Callable[[str], object] | None = None,
    bench: Bench | None = None,
) -> Result:
    """Read, extract, train, evaluate, bundle, offer if asked, and wait for the dataset built meanwhile.

    ``sealed`` is told the bundle's id as soon as the bundle is on the disk; ``offer`` may refuse it with a
    ``UserError``; ``say`` may raise to cancel. A bundle outlives what fails after it: a refusal, or a
    dataset that cannot be built, is told in the result.

    Raises:
        UserError: bad labels or datasets, too little of either class, or a full disk: there is no bundle.
    """
    stages, bench = Stages(say), bench or Bench()
    torch.set_num_threads(1)  # heads are small: a second thread costs more than it gives
    with stages.stage("read"):
        split.check_unit(task.settings.split)
        found = read_episodes(task.target, task.settings)
        gate = gates.choose(found, task.settings)
        episodes = gates.apply(gate, found)
        read_from = _label_hashes(task)
        store = bench.store = _store(task, episodes, bench)
    builder = bench.builder(task.target, task.data, task.settings.build)
    try:
        with stages.stage("features") as progress:
            material = bench.material = _material(task, episodes, store, bench.material, progress)
        with stages.stage("train") as progress:
            kept = Run(task.data / "runs" / "trainer" / _identity(task, episodes, store))
            folds, unit = _folds(episodes, task.settings)
            outcome = train_heads(material, episodes, folds, task.settings, progress, kept)
            apart = outcome.served if outcome.served != outcome.heads else []
            kept.finish([t.curve for t in (*outcome.heads, *apart)])
        with stages.stage("evaluate"):
            demand = _demand(task.settings, gate)
            judged = evaluate.report(outcome.held_out, outcome.selected, demand)
            metrics = evaluate.measure(judged)
            stages.metrics.update({name: round(metric.value, 5) for name, metric in metrics.items()})
        with stages.stage("bundle"):
            fitted = evaluate.fit(outcome.held_out, demand)
            manifest = Manifest(
                created=bundle_out.now(),
                name=task.target.stem,
                inputs=[store.contract],
                backbone=store.backbone.fingerprint,
                calibration=fitted.calibration,
                decision=fitted.rule,
                drift_limit=fitted.drift_limit,
                metrics=metrics,
                note=evaluate.note(
                    len(folds),
                    len(outcome.served),
                    unit,
                    reading_step(episodes, task.settings),
                    task.settings,
                ),
                licence=f"backbone: {store.backbone.licence}; heads: as the datasets they were trained on",
                trained_on=_provenance(task, episodes, folds, store, read_from),
            )
            made = _seal(task, manifest, outcome, judged, episodes, bench)
            result = Result(made, stages.metrics, outcome, material, episodes, judged, stages.seconds)
            if sealed:  # before the stage's end, which may cancel
                sealed(made.id)
        if offer:
            with stages.stage("offer"), _told_in(result, f"bundle {made.id} is not known to serve: "):
                offer(result)
        # Last: nobody who waits for the classifier should wait for the dataset as well.
        with stages.stage("build") as progress, _told_in(result, f"bundle {made.id} is there, but "):
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


def _store(task: Task, episodes: Sequence[Labelled], bench: Bench) -> FeatureStore:
    """The store of the job before if it is for the same, else a new one."""
    settings, before = task.settings, bench.store
    cache = Cache(task.data / "cache", int(settings.cache_gb * 1e9))
    wanted = (settings.backbone, settings.size)
    backbone = before.backbone if before and bench.opened == wanted else open_backbone(*wanted)
    bench.opened = wanted
    store = FeatureStore(cache, make_contract(episodes, backbone, settings), backbone, settings.augmentation)
    return before if before and before == store else store


def _material(
    task: Task,
    episodes: Sequence[Labelled],
    store: FeatureStore,
    before: Material | None,
    progress: Callable[[float], None],
) -> Material:
    keys = tuple(store.key(e.dataset, e.episode) for e in episodes)
    if before and before.store is store and before.keys == keys:
        return before
    threads = task.settings.threads or min(4, os.cpu_count() or 1)
    views = task.settings.views
    pairs = [(e.dataset, e.episode) for e in episodes]
    extract(store, pairs, views, threads, lambda part: progress(0.95 * part))
    return gather(store, episodes, views, lambda part: progress(0.95 + 0.05 * part))


def _demand(settings: TrainerSettings, gate: str) -> evaluate.Demand:
    given = DecisionRule(gate=gate, min_steps_s=settings.min_steps_s, latch=settings.latch)
    return evaluate.Demand(settings.false_success_budget, given)


def _folds(episodes: Sequence[Labelled], settings: TrainerSettings) -> tuple[list[Fold], str]:
    has_success = [bool(e.success.any()) for e in episodes]
    sessions = [e.session or (e.source if settings.split == "session" else "") for e in episodes]
    return split.choose(settings.split, has_success, sessions, settings.seed)


def _identity(task: Task, episodes: Sequence[Labelled], store: FeatureStore) -> str:
    """Of all that decides what heads come out: an interrupted training goes on only with the same."""
    digest = hashlib.sha256(f"{task.settings!r} {bundle_out.code_hash()}".encode())
    for e in episodes:
        digest.update(store.key(e.dataset, e.episode, store.backbone.fingerprint).encode())
        digest.update(e.success.tobytes() + e.counted.tobytes())
    return digest.hexdigest()[:16]


def _seal(
    task: Task,
    manifest: Manifest,
    outcome: Outcome,
    judged: list[Judged],
    episodes: Sequence[Labelled],
    bench: Bench,
) -> Bundle:
    """Write the bundle, its report included."""
    by_name = {e.name: e for e in episodes}
    store = bench.store
    assert store is not None

    def pictures(name: str) -> NDArray[np.uint8]:
        return store.pictures(by_name[name].dataset, by_name[name].episode)

    chosen = _golden_episodes(episodes)
    key = tuple(store.key(e.dataset, e.episode) for e in chosen)
    if key not in bench.golden:
        source = [(e.dataset, e.episode) for e in chosen]
        bench.golden = {key: bundle_out.golden_frames(source, store.contract.key)}
    return bundle_out.write(
        task.data / "bundles", manifest, store.backbone, outcome, bench.golden[key],
        report.files(manifest, judged, pictures),
    )  # fmt: skip


def _golden_episodes(episodes: Sequence[Labelled]) -> list[Labelled]:
    """Two episodes with success and two without, where there are so many."""
    good = [e for e in episodes if e.success.any()][:2]
    return good + [e for e in episodes if not e.success.any()][:2]


def _label_hashes(task: Task) -> dict[str, str]:
    """Of the label files as they are now, just read: one that is saved later is not what was learnt from."""
    if not task.target.is_file():
        return {}
    files = [task.target, *(s.file for s in labels.read(task.target).sources)]
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for file, name in short_names(files).items()}


def _provenance(
    task: Task,
    episodes: Sequence[Labelled],
    folds: Sequence[Fold],
    store: FeatureStore,
    read_from: dict[str, str],
) -> TrainedOn:
    key = store.contract.key
    hashes: dict[str, Any] = {}
    for e in episodes:
        hashes.setdefault(e.name.rpartition("/")[0], hashlib.sha256()).update(
            store.hash_of(e.episode.videos[key].path).encode()
        )
    return TrainedOn(
        datasets={name: digest.hexdigest() for name, digest in hashes.items()},
        labels=read_from,
        code=bundle_out.code_hash(),
        split={f"report {i}": [episodes[e].name for e in fold.report] for i, fold in enumerate(folds)},
        held_out={
            store.key(episodes[e].dataset, episodes[e].episode): i
            for i, fold in enumerate(folds)
            for e in fold.report
        },
        frames=sum(len(e.success) for e in episodes),
        seed=task.settings.seed,
        settings=task.settings.model_dump(mode="json"),
    )
