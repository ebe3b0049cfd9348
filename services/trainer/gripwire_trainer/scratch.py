"""A small convolutional network for those who want no pretrained weights."""

import torch
from torch import Tensor, nn

from gripwire_trainer.model import HeadShape, Learner, judge, pool

_WIDTHS = (16, 32, 48, 64)


class SmallNet(Learner):
    """Pictures (n, 3, h, w) in 0..1 to logits (n,): four strided convolutions, then what every head has."""

    at_a_time = 32

    def __init__(self, size: tuple[int, int], shape: HeadShape) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True):
            # Normalised by picture, not by batch: what one picture scores never depends on its neighbours.
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.ReLU(inplace=True)]
        self.convolve = nn.Sequential(*layers)
        places = self.convolve(torch.zeros(1, 3, *size))[0, 0].numel()
        self.maps = nn.Parameter(torch.randn(_WIDTHS[-1], places, shape.embeddings) * places**-0.5)
        self.judge = judge(shape.embeddings * _WIDTHS[-1], shape)

    def learn(self, cached: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) uint8 to logits (n,)."""
        return self(cached.float() / 255)

    def forward(self, image: Tensor) -> Tensor:
        return self.judge(pool(self.convolve(image - 0.5), self.maps)).squeeze(1)
