"""Writes what was trained as a bundle, and proves that it loads."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gripwire_reward
import gripwire_trainer
from gripwire_reward import bundle
from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.datasets import Dataset, Episode, frames
from gripwire_reward.preprocess import InputContract, preprocess
from gripwire_reward.scorer import Scorer, session
from gripwire_trainer import backbone, model
from gripwire_trainer.train import Trained

GOLDEN = 12
LICENCE = "weights: Apache-2.0 (EfficientNet-Lite0 backbone); heads: as the datasets they were trained on"


@dataclass(frozen=True)
class Golden:
    """Raw frames and the logits that the exported graph gives for them."""

    frames: NDArray[np.uint8]
    logits: NDArray[np.float32]


def write(
    bundles: Path, manifest: Manifest, trained: Sequence[Trained], golden_from: list[tuple[Dataset, Episode]],
    reports: dict[str, bytes],
) -> Bundle:  # fmt: skip
    """Export, add golden frames and reports, seal, and load the result as the service would.

    Raises:
        UserError: the disk is full; nothing half-written is left behind.
    """
    contract = manifest.inputs[0]
    classifier = model.Classifier(backbone.Backbone(contract.size), [t.best for t in trained])
    graph = model.export_onnx(classifier, contract.size, ["logit", "features"])
    golden = make_golden(graph, contract, golden_from)
    with bundle.staging(bundles) as aside:
        (aside / "model.onnx").write_bytes(graph)
        _save_weights(aside, classifier, trained, contract)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, frames=golden.frames, logits=golden.logits)
        (aside / "golden.npz").write_bytes(buffer.getvalue())
        for name, content in reports.items():
            (aside / name).write_bytes(content)
        sealed = bundle.seal(aside, manifest)
    Scorer(bundle.load(sealed.path))
    return sealed


def make_golden(graph: bytes, contract: InputContract, source: list[tuple[Dataset, Episode]]) -> Golden:
    """A dozen frames spread over the given episodes, scored one by one as the service will."""
    kept: list[NDArray[np.uint8]] = []
    share = -(-GOLDEN // len(source))
    for dataset, episode in source:
        wanted = set(np.linspace(0, episode.length - 1, share).astype(int).tolist())
        seen = frames(dataset, episode, dataset.camera(contract.key))
        kept += [image for number, image in enumerate(seen) if number in wanted]
    engine = session(graph, 1, "the exported model")
    pictures = kept[:GOLDEN]
    scored = [engine.run(["logit"], {"image": preprocess(image, contract)[None]})[0] for image in pictures]
    return Golden(np.stack(pictures), np.concatenate(scored).astype(np.float32).reshape(-1))


def _save_weights(
    aside: Path, classifier: model.Classifier, trained: Sequence[Trained], contract: InputContract
) -> None:
    from safetensors.torch import save  # save_file's own error no longer says that the disk is full

    last = {f"last.{i}.{k}": v for i, t in enumerate(trained) for k, v in t.last.state_dict().items()}
    weights = {k: v.contiguous() for k, v in (classifier.state_dict() | last).items()}
    (aside / "model.safetensors").write_bytes(save(weights))
    config: dict[str, Any] = {
        "backbone": backbone.fingerprint(),
        "heads": len(trained),
        "embeddings": model.EMBEDDINGS,
        "hidden": model.HIDDEN,
        "dropout": model.DROPOUT,
        "channels": backbone.CHANNELS,
        "size": list(contract.size),
        "best_epochs": [t.best_epoch for t in trained],
        "curves": [t.curve for t in trained],
    }
    (aside / "config.json").write_text(json.dumps(config, indent=1))


def code_hash() -> str:
    """SHA-256 over the sources of the trainer and the reward package."""
    digest = hashlib.sha256()
    for package in (gripwire_reward, gripwire_trainer):
        for file in sorted(Path(package.__path__[0]).glob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
