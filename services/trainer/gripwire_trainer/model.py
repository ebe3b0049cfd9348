"""The classifier: a backbone, and heads with learned spatial pooling, averaged."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COMPONENTS = 48
"""Directions of the feature space that a head looks at: beyond them there is little but noise to fit."""


@dataclass(frozen=True)
class HeadShape:
    """The sizes of a head; the defaults are LeRobot's but for narrower layers."""

    embeddings: int = 8
    latent: int = 64
    hidden: int = 64
    dropout: float = 0.3


@dataclass(frozen=True)
class Basis:
    """What a head looks at: features less ``centre`` (c,), along the ``columns`` (c, k)."""

    centre: Tensor
    columns: Tensor

    def turn(self, features: Tensor) -> Tensor:
        """Features (n, c, places) float32 to (n, k, places). The mean is taken off behind the product, where
        there is less to take it from."""
        return self.columns.T @ features - (self.centre @ self.columns)[:, None]

    def project(self, features: Tensor) -> Tensor:
        """Features (n, c, h, w) to (n, k, h*w) float16, a part at a time."""
        out = torch.empty(len(features), self.columns.shape[1], features[0, 0].numel(), dtype=torch.float16)
        for start in range(0, len(features), 256):
            out[start : start + 256] = self.turn(features[start : start + 256].flatten(2).float()).half()
        return out


def principal(features: Sequence[Tensor], components: int = COMPONENTS) -> Basis:
    """The principal directions of these features, each (n, c, h, w), all in one scale.

    The strongest directions stay the strongest: with each brought to the same spread, heads did worse on
    episodes held back. Learning in fewer directions takes half the time and memory, and did no worse.
    """
    rows = _rows(features)
    spread, vectors = torch.linalg.eigh(torch.cov(rows.T))  # sorted upwards
    columns = vectors[:, -min(components, rows.shape[1]) :].flip(1) / spread.mean().clamp(min=1e-12).sqrt()
    return Basis(rows.mean(0), columns.contiguous())


def _rows(features: Sequence[Tensor]) -> Tensor:
    """A seventh of the places of the pictures, (m, c)."""
    return torch.cat([f.flatten(2).transpose(1, 2).flatten(0, 1)[::7].float() for f in features])


class Learner(nn.Module):
    """What is trained: :meth:`learn` judges what the cache holds, calling it judges a backbone's output."""

    at_a_time = 512
    """So many rows are learnt from, or judged, in one go."""

    def learn(self, cached: Tensor) -> Tensor:
        """(n, ...) as cached to logits (n,)."""
        raise NotImplementedError


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own: heads are trained in threads, and torch has one for
    all of them."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.share
        return x * kept / (1 - self.share)


def judge(width: int, shape: HeadShape) -> nn.Sequential:
    """A pooled vector to a logit (n, 1). Built like LeRobot's classifier, so that it can be handed over."""
    return nn.Sequential(
        Dropout(shape.dropout),
        nn.Linear(width, shape.latent),
        nn.LayerNorm(shape.latent),
        nn.Tanh(),
        nn.Linear(shape.latent, shape.hidden),
        Dropout(shape.dropout),
        nn.LayerNorm(shape.hidden),
        nn.ReLU(),
        nn.Linear(shape.hidden, 1),
    )


def pool(features: Tensor, maps: Tensor) -> Tensor:
    """Features (n, c, places or h, w) weighted by maps (c, places, e) and summed over places: (n, c*e)."""
    # In this order the product reads both where they lie: less than half the time of any other.
    pooled = torch.bmm(maps.transpose(1, 2), features.flatten(2).permute(1, 2, 0))
    return pooled.permute(2, 0, 1).flatten(1)


class Head(Learner):
    """Backbone features (n, c, h, w) to a logit (n,).

    Each channel is weighted over the picture's places by learned maps (spatial learned embeddings, as in
    HIL-SERL), then a small network judges. Training works on projected features (:meth:`learn`), serving
    on the backbone's own.
    """

    def __init__(self, basis: Basis, places: int, shape: HeadShape) -> None:
        super().__init__()
        components = basis.columns.shape[1]
        self.register_buffer("centre", basis.centre.clone())
        self.register_buffer("columns", basis.columns.clone())
        self.maps = nn.Parameter(torch.randn(components, places, shape.embeddings) * places**-0.5)
        self.judge = judge(shape.embeddings * components, shape)

    centre: Tensor
    columns: Tensor

    def learn(self, cached: Tensor) -> Tensor:
        """Projected features (n, k, places) to logits (n,)."""
        return self.judge(pool(cached.float(), self.maps)).squeeze(1)

    def forward(self, features: Tensor) -> Tensor:
        return self.learn(Basis(self.centre, self.columns).turn(features.flatten(2)))


class Classifier(nn.Module):
    """What the bundle holds: pictures to the mean logit of the heads, and the vector that tells drift.

    That vector is the pooled features, centred and whitened (see :mod:`drift`).
    """

    def __init__(self, backbone: nn.Module, heads: Sequence[nn.Module], drift: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)
        self.drift = drift
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(image)
        logits = torch.stack([head(x) for head in self.heads])
        return logits.mean(0), self.drift(x)


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
