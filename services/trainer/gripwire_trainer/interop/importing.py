"""A LeRobot reward classifier as a bundle that scores the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gripwire_reward.bundle import Bundle, Manifest, TrainedOn
from gripwire_reward.datasets import Dataset, Episode, frames
from gripwire_reward.decision import DecisionRule
from gripwire_reward.preprocess import Crop, InputContract, preprocess
from gripwire_trainer import bundle_out, drift
from gripwire_trainer.heads import Outcome
from gripwire_trainer.interop import classifier as lerobot_classifier
from gripwire_trainer.interop.classifier import LeRobotClassifier
from gripwire_trainer.train import Trained

_EPISODES, _PICTURES = 4, 64
"""How many of the dataset's episodes are looked at, and how many pictures of each."""


def import_lerobot(
    folder: Path, dataset: Dataset, bundles: Path, crop: Crop | None = None, threshold: float | None = None
) -> Bundle:
    """Write the classifier in ``folder`` as a bundle under ``bundles``.

    ``dataset`` has the camera that it looks through: the golden frames are taken from there, and drift is
    told from its pictures. ``crop`` is the part of the picture that it was trained on, if its own files do
    not tell.

    Raises:
        UserError: it is no such classifier, or not one for one camera, or its crop is not known, or the
            disk is full.
    """
    read = lerobot_classifier.read(folder)
    frame = dataset.cameras[dataset.camera(read.key)]
    contract = InputContract(
        key=read.key,
        frame=frame,
        crop=crop or lerobot_classifier.crop_of(read, frame),
        size=read.size,
        mean=read.mean,
        std=read.std,
    )
    least = threshold or lerobot_classifier.threshold_of(folder)
    manifest = Manifest(
        created=bundle_out.now(),
        name=folder.name,
        inputs=[contract],
        backbone=read.backbone.fingerprint,
        decision=DecisionRule(threshold=least, release=0.7 * least, fitted_hz=dataset.fps),
        note=f"Imported from the LeRobot classifier {folder.name}: neither judged nor calibrated here, and "
        "without a limit on how far a picture may be from those it was trained on.",
        licence=read.config.license or f"as the classifier {folder.name}",
        trained_on=TrainedOn(settings={"imported_from": folder.name, "model_name": read.config.model_name}),
    )
    source = [(dataset, dataset.episodes[i]) for i in sorted(dataset.episodes)[:_EPISODES]]
    outcome = Outcome(
        heads=[],
        served=[Trained(read.head, {}, 0)],
        held_out=[],
        selected={},
        drift=drift.fit(_pooled(read, contract, source)),
        shape=read.shape,
        map_size=read.map_size,
    )
    golden = bundle_out.golden_frames(source, read.key)
    return bundle_out.write(bundles, manifest, read.backbone, outcome, golden, {})


@torch.inference_mode()
def _pooled(
    read: LeRobotClassifier, contract: InputContract, source: Sequence[tuple[Dataset, Episode]]
) -> torch.Tensor:
    """What drift is told from, of pictures spread over the episodes: (n, d)."""
    out = []
    for dataset, episode in source:
        wanted = set(np.linspace(0, episode.length - 1, _PICTURES).astype(int).tolist())
        seen = frames(dataset, episode, dataset.camera(contract.key))
        chosen = [preprocess(image, contract) for number, image in enumerate(seen) if number in wanted]
        out.append(drift.pool(read.backbone(torch.from_numpy(np.stack(chosen)))))
    return torch.cat(out)
