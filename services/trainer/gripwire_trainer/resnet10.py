"""HIL-SERL's ResNet-10 as LeRobot's users have it (`lerobot/resnet10`): group norms, padding as in JAX.

It is published with Python code of its own, which would have to be run to load it. This is the same network
written anew, so that nothing but its weights is read. The file needs only torch and transformers: a
classifier that is exported with this backbone carries a copy of it, since LeRobot loads a backbone by
``AutoModel.from_pretrained(..., trust_remote_code=True)``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

_GROUPS = 4


class ResNet10Config(PreTrainedConfig):
    """The published configuration, and the normalisation that this network does by itself."""

    model_type = "resnet10"

    def __init__(
        self,
        num_channels: int = 3,
        embedding_size: int = 64,
        hidden_sizes: tuple[int, ...] = (64, 128, 256, 512),
        hidden_act: str = "relu",
        image_mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        image_std: tuple[float, ...] = (1.0, 1.0, 1.0),
        **others: Any,
    ) -> None:
        self.num_channels, self.embedding_size = num_channels, embedding_size
        self.hidden_sizes, self.hidden_act = list(hidden_sizes), hidden_act
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        super().__init__(**others)


def _same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad as JAX's "SAME" does: what is odd goes to the right and to the bottom."""
    extra = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[-2:]]
    (top, left), (height, width) = [e // 2 for e in extra], extra
    return pad(x, (left, width - left, top, height - top), value=value)


class _Convolution(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_same(x, self.conv.kernel_size[0], self.conv.stride[0]))


class _MaxPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(_same(x, 3, 2, float("-inf")), 3, 2)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = _Convolution(before, after, 3, stride), nn.GroupNorm(_GROUPS, after)
        self.conv2, self.norm2 = _Convolution(after, after, 3, 1), nn.GroupNorm(_GROUPS, after)
        self.act = ACT2FN[activation]
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(
                _Convolution(before, after, 1, stride), nn.GroupNorm(_GROUPS, after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.act(y + self.shortcut(x))


class _Encoder(nn.Module):
    def __init__(self, config: ResNet10Config) -> None:
        super().__init__()
        before = [config.embedding_size, *config.hidden_sizes]
        self.stages = nn.ModuleList(
            _Block(before[i], after, 2 if i else 1, config.hidden_act)
            for i, after in enumerate(config.hidden_sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x


class ResNet10(PreTrainedModel):
    """Pictures (n, 3, h, w), from 0 to 1 where the configuration normalises, to a map of features."""

    config_class = ResNet10Config
    main_input_name = "pixel_values"

    def __init__(self, config: ResNet10Config) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.embedder = nn.Sequential(
            nn.Conv2d(config.num_channels, size, 7, 2, 3, bias=False),
            nn.GroupNorm(_GROUPS, size),
            ACT2FN[config.hidden_act],
            _MaxPool(),
        )
        self.encoder = _Encoder(config)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPoolingAndNoAttention:
        mean, std = (
            torch.tensor(values, dtype=pixel_values.dtype, device=pixel_values.device)[:, None, None]
            for values in (self.config.image_mean, self.config.image_std)
        )
        features = self.encoder(self.embedder((pixel_values - mean) / std))
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=features, pooler_output=features.mean((2, 3), keepdim=True)
        )
