"""A head in the words of LeRobot's classifier, and back.

Both pool by learned maps and judge with the same layers. LeRobot's maps lie on the channels themselves; ours
on a projection of them, less their mean. Any such pooling is linear in the features, so it becomes one map
per place and one wider linear layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from gripwire_reward.calibration import Calibration
from gripwire_trainer.model import Basis, Head, HeadShape

_LAYERS = {3: 1, 4: 2}
"""Of ``encoders.<camera>``: number of LeRobot's layer -> that of ours, behind the pooling."""
_JUDGE = {0: 4, 2: 6, 4: 8}
"""Of ``classifier_head``."""
_KERNEL = 1


def encoder_of(camera_key: str) -> str:
    """What LeRobot puts before the names of this camera's weights."""
    return f"encoders.{camera_key.replace('.', '_')}"


@torch.no_grad()
def to_lerobot(
    head: Head, map_size: tuple[int, int], calibration: Calibration, camera_key: str
) -> dict[str, Tensor]:
    """The weights of LeRobot's classifier but for its backbone. It gives the calibrated probability.

    Its pooling dimension is the number of places of the map.
    """
    encoder, places = encoder_of(camera_key), map_size[0] * map_size[1]
    channels, components = head.columns.shape
    first = head.judge[_LAYERS[3]]
    per_component = first.weight.double().unflatten(1, (components, -1))  # (latent, component, map)
    per_place = torch.einsum("lkf,kpf->lkp", per_component, head.maps.double())
    per_channel = torch.einsum("lkp,ck->lcp", per_place, head.columns.double())
    bias = first.bias.double() - torch.einsum("lcp,c->l", per_channel, head.centre.double())
    one_map_a_place = torch.eye(places).reshape(*map_size, places).expand(channels, -1, -1, -1)
    weights = {
        f"{encoder}.{name}.{part}": values
        for name, ours in _LAYERS.items()
        for part, values in head.judge[ours].state_dict().items()
    }
    weights |= {
        f"classifier_head.{name}.{part}": values
        for name, ours in _JUDGE.items()
        for part, values in head.judge[ours].state_dict().items()
    }
    weights[f"{encoder}.{_KERNEL}.kernel"] = one_map_a_place
    weights[f"{encoder}.3.weight"], weights[f"{encoder}.3.bias"] = per_channel.flatten(1), bias
    last = f"classifier_head.{max(_JUDGE)}"
    weights[f"{last}.weight"] = weights[f"{last}.weight"].double() / calibration.temperature
    weights[f"{last}.bias"] = weights[f"{last}.bias"].double() / calibration.temperature + calibration.bias
    return {name: values.float().contiguous() for name, values in weights.items()}


@torch.no_grad()
def from_lerobot(
    weights: Mapping[str, Tensor], dropout: float, camera_key: str
) -> tuple[Head, HeadShape, tuple[int, int]]:
    """The same head as ours, its shape, and the size of the map that it pools.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: these are not the weights of such a classifier.
    """
    encoder = encoder_of(camera_key)
    kernel = weights[f"{encoder}.{_KERNEL}.kernel"].float()
    channels, height, width, maps = kernel.shape
    shape = HeadShape(
        embeddings=maps,
        latent=len(weights[f"{encoder}.3.bias"]),
        hidden=len(weights["classifier_head.0.bias"]),
        dropout=dropout,
    )
    head = Head(Basis(torch.zeros(channels), torch.eye(channels)), height * width, shape)
    head.maps.copy_(kernel.flatten(1, 2))
    for prefix, layers in ((encoder, _LAYERS), ("classifier_head", _JUDGE)):
        for name, ours in layers.items():
            parts = ("weight", "bias")
            head.judge[ours].load_state_dict({p: weights[f"{prefix}.{name}.{p}"] for p in parts})
    return head.eval(), shape, (height, width)
