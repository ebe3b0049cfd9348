"""Bundles of the default size for timing: the default backbone, five heads that have learnt nothing."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.preprocess import InputContract, central_square
from gripwire_trainer import bundle_out, drift, model
from gripwire_trainer.backbone import EfficientNetLite0
from gripwire_trainer.heads import Outcome
from gripwire_trainer.model import Basis, Head, HeadShape
from gripwire_trainer.train import Trained

HEIGHT, WIDTH, SIZE = 480, 640, (128, 128)
HEADS = 5


def pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """(480, 640, 3) uint8 RGB with so much detail that their JPEGs have a real one's size."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 30, 40, 3), dtype=np.uint8)
    noise = rng.normal(0, 3, (count, HEIGHT, WIDTH, 3))
    smooth = [cv2.resize(c, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for c in coarse]
    return [np.clip(s + n, 0, 255).astype(np.uint8) for s, n in zip(smooth, noise, strict=True)]


def jpegs(count: int, seed: int = 0) -> list[bytes]:
    return [
        cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for picture in pictures(count, seed)
    ]


def make(bundles: Path, seed: int) -> Bundle:
    """Another seed, another bundle."""
    torch.manual_seed(seed)
    backbone, shape = EfficientNetLite0(SIZE), HeadShape()
    with torch.no_grad():
        example = backbone(torch.zeros(1, 3, *SIZE))
    basis = Basis(torch.zeros(example.shape[1]), torch.randn(example.shape[1], model.COMPONENTS) * 0.05)
    places = example[0, 0].numel()
    heads = [Trained(Head(basis, places, shape).eval(), {}, 0) for _ in range(HEADS)]
    far = drift.fit(drift.pool(torch.randn(2000, *example.shape[1:])))
    contract = InputContract(
        key="observation.images.gripper_cam", frame=(HEIGHT, WIDTH), crop=central_square(HEIGHT, WIDTH),
        size=SIZE, scale=backbone.scale, mean=backbone.mean, std=backbone.std,
    )  # fmt: skip
    outcome = Outcome(heads, heads, [], {}, far, shape, tuple(example.shape[2:]))  # type: ignore[arg-type]
    golden = np.stack(pictures(12, seed))
    return bundle_out.write(
        bundles, Manifest(name="timing", inputs=[contract]), backbone, outcome, golden, {}
    )
