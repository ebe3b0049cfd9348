"""Reads what :mod:`bundle_out` wrote, to judge with it or to go on from it."""

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gripwire.errors import UserError
from gripwire_reward.bundle import Bundle
from gripwire_trainer.model import Basis, Head, HeadShape, Learner
from gripwire_trainer.scratch import SmallNet


def read_heads(bundle: Bundle) -> list[Learner]:
    """The heads of a bundle, one per fold, ready to judge the features of its backbone.

    Raises:
        UserError: it does not hold them.
    """
    try:
        config = json.loads(bundle.file("config.json").read_bytes())
        weights = load_file(bundle.file("model.safetensors"))
        shape, (height, width) = HeadShape(**config["shape"]), config["map_size"]
        heads = []
        kind = "folds" if config["folds"] != config["heads"] else "heads"
        for number in range(config["folds"]):
            own = _below(f"{kind}.{number}.", weights)
            head = _empty(own, (height, width), shape)
            head.load_state_dict(own)
            heads.append(head.eval())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise UserError(
            f"bundle {bundle.id} does not hold the heads of its folds ({type(e).__name__}: {str(e)[:100]})"
        ) from e
    return heads


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}


def _empty(weights: dict[str, Tensor], map_size: tuple[int, int], shape: HeadShape) -> Learner:
    """A head of the kind that these weights are of."""
    if "columns" not in weights:
        return SmallNet(map_size, shape)
    basis = Basis(torch.zeros_like(weights["centre"]), torch.zeros_like(weights["columns"]))
    return Head(basis, map_size[0] * map_size[1], shape)
