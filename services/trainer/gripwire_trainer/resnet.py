"""Backbones that LeRobot's classifier can hold: a transformers ResNet, or HIL-SERL's ResNet-10.

Such a backbone takes pictures from 0 to 1, since that is what HIL-SERL's step feeds its classifier; the
normalisation that its weights were trained with is part of it. Read from a folder: safetensors and JSON,
nothing is run and no Hub is asked.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gripwire.errors import UserError
from gripwire_trainer.backbone import Backbone
from gripwire_trainer.json_object import read_json

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_COUNTERS = "num_batches_tracked"


class ResNet(Backbone):
    """Wraps a network as :func:`build` gives it."""

    exportable = True
    scale, mean, std = 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, network: Any, name: str) -> None:
        super().__init__()
        self.network = network
        sizes = network.config.hidden_sizes
        self.name, self.channels = name, int(sizes[-1])
        early = 2 if getattr(network.config, "downsample_in_first_stage", False) else 1
        self.stride = 4 * 2 ** (len(sizes) - 1) * early
        self.fingerprint = f"{_digest(network.state_dict())}-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}"
        self.licence = f"backbone: as {name} states"
        self.freeze()

    @property
    def config(self) -> dict[str, Any]:
        """What :func:`build` needs beside the weights, as JSON values."""
        config: dict[str, Any] = json.loads(self.network.config.to_json_string(use_diff=True))
        return config

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.network(image).last_hidden_state
        return features


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(weights.items()):
        digest.update(name.encode() + values.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read(folder: Path) -> ResNet:
    """The backbone of a folder (config.json, model.safetensors, perhaps preprocessor_config.json).

    Raises:
        UserError: there is none, or of another kind, or its weights are not those of its configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(folder / "config.json", "name the folder of a transformers ResNet")
    file = folder / "model.safetensors"
    if not file.is_file():
        raise UserError(
            f"{file}: missing; only weights in that form are read, since a .bin file can run code: "
            "convert it with transformers' save_pretrained, or download the model again"
        )
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as e:
        raise UserError(f"{file}: not readable as safetensors ({e}); download the model again") from e
    network = build(config, weights, folder)
    normalise_inside(network, *_trained_with(folder / "preprocessor_config.json"))
    return ResNet(network, folder.name)


def build(config: Mapping[str, Any], weights: Mapping[str, Tensor], origin: Path) -> Any:
    """The network that a transformers configuration describes, with these weights; no more and no less.

    ``origin`` is where they come from, for errors.

    Raises:
        UserError: it is no ResNet that is known here, or the weights are those of another network.
    """
    empty = _empty(config, origin)
    ours = empty.state_dict()
    # A ResNetForImageClassification has a prefix, and a last layer that is not needed.
    given = {
        name.removeprefix("resnet."): values.float() if values.is_floating_point() else values
        for name, values in weights.items()
        if not name.startswith("classifier.")
    }
    wrong = [n for n in ours if n not in given and not n.endswith(_COUNTERS)]
    wrong += [n for n in given if n not in ours or given[n].shape != ours[n].shape]
    if wrong:
        raise UserError(
            f"{origin}: these are not the weights of its config.json: {len(wrong)} are missing, left over or "
            f"of another size, among them {wrong[0]!r}; download or save the model again"
        )
    empty.load_state_dict(ours | given)
    return empty.eval()


def _empty(config: Mapping[str, Any], origin: Path) -> Any:
    kind = config.get("model_type")
    if kind not in ("resnet", "resnet10") or ("auto_map" in config and kind == "resnet"):
        code = " with Python code of its own (auto_map), which is never run" if "auto_map" in config else ""
        raise UserError(
            f"{origin}: a model of type {kind!r}{code}; a transformers ResNet (`resnet`, such as "
            "microsoft/resnet-18) or HIL-SERL's ResNet-10 (`resnet10`: lerobot/resnet10) is due"
        )
    try:
        if kind == "resnet10":
            from gripwire_trainer.resnet10 import ResNet10, ResNet10Config

            network: Any = ResNet10(ResNet10Config.from_dict(dict(config)))
        else:
            from transformers import ResNetConfig, ResNetModel

            network = ResNetModel(ResNetConfig.from_dict(dict(config)))
    except Exception as e:  # transformers' checks raise a family of types of their own
        reason = str(e).strip().splitlines() or [type(e).__name__]
        raise UserError(f"{origin}: its config.json describes no network ({reason[0][:150]})") from e
    if network.config.num_channels != 3:
        raise UserError(f"{origin}: wants pictures of {network.config.num_channels} channels; RGB is due")
    return network


def _trained_with(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the weights were trained with, of values in 0..1; ImageNet's unless said."""
    if not file.is_file():
        return _IMAGENET
    said = read_json(file, "download the model again")
    if said.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    mean, std = said.get("image_mean", _IMAGENET[0]), said.get("image_std", _IMAGENET[1])
    try:
        values = tuple(float(m) for m in mean), tuple(float(s) for s in std)
    except (TypeError, ValueError):
        values = (), ()
    if [len(v) for v in values] != [3, 3] or min(values[1]) <= 0:
        raise UserError(f"{file}: image_mean and image_std are to be three numbers each, image_std positive")
    return values


@torch.no_grad()
def normalise_inside(network: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Make a network that was trained on (x - mean) / std take x.

    ResNet-10 does so by its configuration. A transformers ResNet has its first convolution scaled, and its
    first batch norm subtract what the mean adds. Only at the picture's very edge does that differ: there
    the padding is black where it was the mean's grey. What is learnt on such features knows no other.
    """
    if network.config.model_type == "resnet10":
        own = network.config  # it normalises too, after what is put before it here
        own.image_mean = [m + o * s for m, o, s in zip(mean, own.image_mean, std, strict=True)]
        own.image_std = [o * s for o, s in zip(own.image_std, std, strict=True)]
        return
    first = network.embedder.embedder
    weight = first.convolution.weight
    weight /= torch.tensor(std)[:, None, None]
    first.normalization.running_mean += (weight * torch.tensor(mean)[:, None, None]).sum((1, 2, 3))


def save(network: Any, folder: Path) -> None:
    """Write the network as a folder that stock ``AutoModel.from_pretrained`` loads."""
    from safetensors.torch import save as serialise

    folder.mkdir()
    config = json.loads(network.config.to_json_string(use_diff=True))
    config["architectures"] = [type(network).__name__]
    if network.config.model_type == "resnet10":
        from gripwire_trainer import resnet10

        source = Path(resnet10.__file__)
        config["auto_map"] = {
            "AutoConfig": f"{source.stem}.ResNet10Config",
            "AutoModel": f"{source.stem}.ResNet10",
        }
        shutil.copyfile(source, folder / source.name)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    # So that whoever reads the folder, :func:`read` included, does not normalise a second time.
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}\n')
    weights = {name: values.contiguous() for name, values in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(serialise(weights, metadata={"format": "pt"}))
