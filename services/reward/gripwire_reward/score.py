"""Scores a dataset with a bundle, offline, by the code that serves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.files import write_whole
from gripwire_reward import calibration, gate
from gripwire_reward.datasets import Dataset, Episode, frames, states
from gripwire_reward.decision import decide_all
from gripwire_reward.preprocess import preprocess
from gripwire_reward.scorer import Scorer, drift

_BATCH = 32


@dataclass(frozen=True)
class EpisodeScores:
    """One episode's verdicts, one entry per frame."""

    episode: int
    logit: NDArray[np.float32]
    probability: NDArray[np.float64]
    above: NDArray[np.bool_]
    decision: NDArray[np.bool_]
    drift: NDArray[np.float32]
    reason: list[str]
    """Why a frame is not valid; empty where it is. A frame that is not valid is never above."""


def score_episode(scorer: Scorer, dataset: Dataset, episode: Episode) -> EpisodeScores:
    """Every frame of one episode, each batch through the graph that serves.

    Raises:
        UserError: the dataset lacks a camera, or its frames have another size than the model wants.
    """
    manifest, rule = scorer.bundle.manifest, scorer.bundle.manifest.decision
    scored: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    batch: list[tuple[NDArray[np.float32], ...]] = []

    def flush() -> None:
        if batch:
            scored.append(scorer.batch(*(np.stack(inputs) for inputs in zip(*batch, strict=True))))
            batch.clear()

    seen = [frames(dataset, episode, dataset.camera(contract.key)) for contract in scorer.contracts]
    for images in zip(*seen, strict=True):
        batch.append(tuple(preprocess(i, c) for i, c in zip(images, scorer.contracts, strict=True)))
        if len(batch) == _BATCH:
            flush()
    flush()
    logit = np.concatenate([part[0] for part in scored]) if scored else np.zeros(0, np.float32)
    far = np.concatenate([drift(part[1]) for part in scored]) if scored else np.zeros(0, np.float32)
    gates, missing = _gates(rule.gate, dataset, episode)
    reason = [scorer.strange(float(d)) or why for d, why in zip(far, missing, strict=True)]
    probability = calibration.apply(logit, manifest.calibration)
    known = [None if why else p for p, why in zip(probability.tolist(), reason, strict=True)]
    above = (probability >= rule.threshold) & (np.array(reason, object) == "")
    decision = np.array(decide_all(known, rule, dataset.fps, gates), bool)
    return EpisodeScores(episode.index, logit, probability, above, decision, far, reason)


def _gates(text: str, dataset: Dataset, episode: Episode) -> tuple[list[bool], list[str]]:
    """Per row: whether the gate is open, and why that cannot be told (empty where it can)."""
    if not text:
        return [True] * episode.length, [""] * episode.length
    condition, opened, missing = gate.parse(text), [], []
    for state in states(dataset, episode):
        try:
            opened.append(condition.holds(state))
            missing.append("")
        except gate.MissingState as e:
            opened.append(False)
            missing.append(str(e))
    return opened, missing


def score_dataset(scorer: Scorer, dataset: Dataset) -> Iterator[EpisodeScores]:
    """All episodes in order."""
    for number in sorted(dataset.episodes):
        yield score_episode(scorer, dataset, dataset.episodes[number])


def write_scores(scores: list[EpisodeScores], out: Path) -> int:
    """Write SCORES.parquet, one row per frame; the number of rows.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    if not scores:
        raise UserError("the dataset has no episodes, so there is nothing to score; record one first")
    rows = sum(len(s.logit) for s in scores)
    table = pa.table({
        "episode_index": np.concatenate([np.full(len(s.logit), s.episode, np.int64) for s in scores]),
        "frame_index": np.concatenate([np.arange(len(s.logit), dtype=np.int64) for s in scores]),
        "logit": np.concatenate([s.logit for s in scores]),
        "probability": np.concatenate([s.probability for s in scores]),
        "above": np.concatenate([s.above for s in scores]),
        "decision": np.concatenate([s.decision for s in scores]),
        "valid": pa.array([not why for s in scores for why in s.reason], pa.bool_()),
        "reason": pa.array([why for s in scores for why in s.reason], pa.string()),
        "drift": np.concatenate([s.drift for s in scores]),
    })  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(out, sink.getvalue().to_pybytes())
    return rows
