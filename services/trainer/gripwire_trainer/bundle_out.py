"""Writes what was trained as a bundle, and proves that it loads."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
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
from gripwire_trainer import model
from gripwire_trainer.backbone import Backbone
from gripwire_trainer.heads import Outcome

GOLDEN = 12


def write(
    bundles: Path, manifest: Manifest, backbone: Backbone, outcome: Outcome, golden: NDArray[np.uint8],
    reports: dict[str, bytes],
) -> Bundle:  # fmt: skip
    """Export, add golden frames and reports, seal, and load the result as the service would.

    Raises:
        UserError: the disk is full; nothing half-written is left behind.
    """
    contract = manifest.inputs[0]
    classifier = model.Classifier(backbone.cpu(), [t.best for t in outcome.served], outcome.drift)
    graph = model.export_onnx(classifier, contract.size, ["logit", "features"])
    logits = score(graph, contract, golden)
    with bundle.staging(bundles) as aside:
        (aside / "model.onnx").write_bytes(graph)
        _save_weights(aside, classifier, backbone, outcome)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, frames=golden, logits=logits)
        (aside / "golden.npz").write_bytes(buffer.getvalue())
        for name, content in reports.items():
            (aside / name).write_bytes(content)
        sealed = bundle.seal(aside, manifest)
    Scorer(bundle.load(sealed.path))
    return sealed


def golden_frames(source: Sequence[tuple[Dataset, Episode]], key: str) -> NDArray[np.uint8]:
    """A dozen raw frames (n, H, W, 3) spread over the given episodes."""
    kept: list[NDArray[np.uint8]] = []
    share = -(-GOLDEN // len(source))
    for dataset, episode in source:
        wanted = set(np.linspace(0, episode.length - 1, share).astype(int).tolist())
        seen = frames(dataset, episode, dataset.camera(key))
        kept += [image for number, image in enumerate(seen) if number in wanted]
    return np.stack(kept[:GOLDEN])


def score(graph: bytes, contract: InputContract, golden: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (n,) of raw frames, one by one as the service will."""
    engine = session(graph, 1, "the exported model")
    scored = [engine.run(["logit"], {"image": preprocess(image, contract)[None]})[0] for image in golden]
    return np.concatenate(scored).astype(np.float32).reshape(-1)


def _save_weights(aside: Path, classifier: model.Classifier, backbone: Backbone, outcome: Outcome) -> None:
    from safetensors.torch import save  # save_file's own error no longer says that the disk is full

    last = {f"last.{i}.{k}": v for i, t in enumerate(outcome.served) for k, v in t.last.items()}
    apart = outcome.heads if outcome.served != outcome.heads else []
    folds = {f"folds.{i}.{k}": v for i, t in enumerate(apart) for k, v in t.best.state_dict().items()}
    weights = {k: v.contiguous() for k, v in (classifier.state_dict() | last | folds).items()}
    (aside / "model.safetensors").write_bytes(save(weights))
    config: dict[str, Any] = {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "backbone_config": backbone.config,
        "heads": len(outcome.served),
        "folds": len(outcome.heads),
        "map_size": list(outcome.map_size),
        "shape": asdict(outcome.shape),
        "best_epochs": [t.best_epoch for t in outcome.served],
        "curves": [t.curve for t in outcome.served],
    }
    (aside / "config.json").write_text(json.dumps(config, indent=1))


def code_hash() -> str:
    """SHA-256 over the sources of the trainer and the reward package."""
    digest = hashlib.sha256()
    for package in (gripwire_reward, gripwire_trainer):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(str(file.relative_to(package.__path__[0])).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
