"""The classifier: a frozen backbone, and heads with learned spatial pooling, averaged."""

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gripwire_trainer.backbone import Backbone

EMBEDDINGS, HIDDEN, DROPOUT = 4, 64, 0.3


class Head(nn.Module):
    """Backbone features (n, c, h, w) to a logit (n,).

    Each channel is weighted over the picture's places by learned maps (spatial learned embeddings, as in
    HIL-SERL), then a small two-layer network judges. Features are standardised by ``mean`` and ``std`` of
    the training episodes, which travel with the weights.
    """

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1))
        self.register_buffer("std", torch.ones(1, channels, 1))
        self.maps = nn.Parameter(torch.randn(EMBEDDINGS, channels, places) * places**-0.5)
        self.judge = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(EMBEDDINGS * channels, HIDDEN),
            nn.LayerNorm(HIDDEN),
            nn.Tanh(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, 1),
        )

    mean: Tensor
    std: Tensor

    def standardise(self, features: Tensor) -> None:
        """Take mean and spread per channel from the training features (n, c, h, w)."""
        flat = features.flatten(2).float()
        self.mean.copy_(flat.mean((0, 2)).view(1, -1, 1))
        self.std.copy_(flat.std((0, 2)).view(1, -1, 1) + 1e-3)

    def forward(self, features: Tensor) -> Tensor:
        # Standardising the small maps in place of the large features gives the same at a fifth of the time.
        maps = self.maps / self.std
        pooled = torch.bmm(features.flatten(2).transpose(0, 1), maps.permute(1, 2, 0))  # (c, n, k)
        pooled = pooled - (maps * self.mean).sum(2).transpose(0, 1).unsqueeze(1)
        return self.judge(pooled.permute(1, 2, 0).flatten(1)).squeeze(1)


class Classifier(nn.Module):
    """What the bundle holds: pictures to the mean logit of the heads, and pooled features for drift."""

    def __init__(self, backbone: Backbone, heads: Sequence[Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(image)
        logits = torch.stack([head(x) for head in self.heads])
        return logits.mean(0), x.mean((2, 3))


def export_onnx(module: nn.Module, size: tuple[int, int], outputs: list[str]) -> bytes:
    """The module as one ONNX graph with input ``image`` (n, 3, h, w) float32 and the named outputs."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its successor, and each slice it does not fold
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, *size),),
            buffer,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in ["image", *outputs]},
            opset_version=17,
            # The TorchScript exporter: the newer one takes ten times as long for the same small graph.
            dynamo=False,
        )
    return buffer.getvalue()
