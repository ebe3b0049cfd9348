"""How far a picture is from those that a model was trained on: the length of a whitened feature vector.

The vector is the backbone's features, pooled over the picture and its quarters, centred and whitened by the
training frames and some of their augmented views (Mahalanobis distance, as in arXiv 1807.03888, in units of
their own spread: near 1 for pictures like theirs). The views belong to it: in a light that a model has learnt
to look through, its verdict counts; a turned camera or a hand before it is what must stand out. The model
gives the vector beside the logit, so that serving needs nothing but its length.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

VIEWS = 3
"""So many views of each frame say what is still like the training frames."""
_COMPONENTS, _ROWS_A_COMPONENT, _MOST_ROWS = 256, 4, 8000
_FLOOR = 1e-3
"""Of the mean spread: directions in which training frames hardly differ must not blow up."""
_FEW_CHANNELS = 16


class Drift(nn.Module):
    """Features (n, c, h, w) to the whitened vector (n, k); its root mean square is the drift."""

    def __init__(self, centre: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("whitening", whitening)

    centre: Tensor
    whitening: Tensor

    def forward(self, features: Tensor) -> Tensor:
        return self.whiten(pool(features))

    def whiten(self, pooled: Tensor) -> Tensor:
        """Pooled vectors (..., d) to whitened ones (..., k)."""
        return (pooled - self.centre) @ self.whitening


def pool(features: Tensor) -> Tensor:
    """What of the features (n, c, h, w) float32 tells one place and light from another: (n, d)."""
    parts = 8 if features.shape[1] < _FEW_CHANNELS else 2  # pictures themselves say little by their mean
    height, width = (max(1, int(size) // parts) for size in features.shape[2:])
    quarters = avg_pool2d(features, (height, width))
    return torch.cat([features.mean((2, 3)), quarters.flatten(1)], dim=1)


def fit(pooled: Tensor) -> Drift:
    """From pooled vectors (..., d) of training frames: their strongest directions, each to spread 1."""
    rows = pooled.flatten(0, -2)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MOST_ROWS]]
    centre = rows.mean(0)
    spread, vectors = torch.linalg.eigh(torch.cov((rows - centre).T))  # sorted upwards
    kept = max(1, min(_COMPONENTS, len(centre), len(rows) // _ROWS_A_COMPONENT))
    floor = _FLOOR * spread.mean()
    return Drift(centre, vectors[:, -kept:] / (spread[-kept:].clamp(min=0) + floor).sqrt())
