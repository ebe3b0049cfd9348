"""Reads the folder of a LeRobot reward classifier: weights, normalisation, and what part of a picture it saw.

Its weights, those of the backbone among them, lie in ``model.safetensors``, its normalisation in the
preprocessor beside it. The crop LeRobot keeps elsewhere, or nowhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gripwire.errors import UserError
from gripwire_reward.preprocess import Crop
from gripwire_trainer import local_model, resnet
from gripwire_trainer.interop import head as lerobot_head
from gripwire_trainer.interop.export import BACKBONE, HIL_SERL
from gripwire_trainer.json_object import read_json
from gripwire_trainer.model import Head, HeadShape
from gripwire_trainer.resnet import ResNet

_REMEDY = "name the folder that LeRobot wrote (the pretrained_model of a checkpoint)"
_IDENTITY = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class _Feature(BaseModel):
    shape: list[int] = []


class Config(BaseModel):
    """What of LeRobot's config.json matters here, with LeRobot's defaults."""

    type: str = ""
    input_features: dict[str, _Feature] = {}
    num_cameras: int = 2
    num_classes: int = 2
    model_type: str = "cnn"
    model_name: str = "lerobot/resnet10"
    dropout_rate: float = 0.1
    normalization_mapping: dict[str, str] = {"VISUAL": "MEAN_STD"}
    license: str | None = None


class _StepConfig(BaseModel):
    features: dict[str, Any] = {}
    norm_map: dict[str, str] = {}
    eps: float = 1e-8


class _Step(BaseModel):
    registry_name: str = ""
    config: _StepConfig = _StepConfig()
    state_file: str | None = None


class _Pipeline(BaseModel):
    """classifier_preprocessor.json."""

    steps: list[_Step] = []


@dataclass(frozen=True)
class LeRobotClassifier:
    """A classifier for one camera. ``mean`` and ``std`` are of values from 0 to 1; ``size`` height, width."""

    folder: Path
    config: Config
    key: str
    size: tuple[int, int]
    backbone: ResNet
    head: Head
    shape: HeadShape
    map_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read(folder: Path) -> LeRobotClassifier:
    """Read one.

    Raises:
        UserError: there is none, or it has several cameras or classes, or a backbone that is not known here.
    """
    config = _parse(folder / "config.json", Config)
    key, size = _check(config, folder)
    weights = _load(folder / "model.safetensors")
    network = _network(config, weights, key, folder)
    backbone = ResNet(network, Path(config.model_name).name)
    try:
        head, shape, map_size = lerobot_head.from_lerobot(weights, config.dropout_rate, key)
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        raise UserError(
            f"{folder / 'model.safetensors'}: not the weights of a classifier for {key} ({str(e)[:150]}); "
            f"{_REMEDY}"
        ) from e
    with torch.inference_mode():
        made = tuple(backbone(torch.zeros(1, 3, *size)).shape[2:])
    if made != map_size:
        raise UserError(
            f"{folder}: its backbone makes a {made[0]}x{made[1]} map of {size[0]}x{size[1]} pictures, its "
            f"head wants {map_size[0]}x{map_size[1]}; correct the shape of {key} in its config.json"
        )
    return LeRobotClassifier(
        folder,
        config,
        key,
        size,
        backbone,
        head,
        shape,
        map_size,
        *_normalisation(config, weights, key, folder),
    )


def _parse[M: BaseModel](file: Path, model: type[M]) -> M:
    try:
        return model.model_validate(read_json(file, _REMEDY))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {where}: {first['msg']}; {_REMEDY}") from e


def _check(config: Config, folder: Path) -> tuple[str, tuple[int, int]]:
    """The camera's key, and height and width of the input."""
    file = folder / "config.json"
    if config.type != "reward_classifier":
        raise UserError(
            f"{file}: a model of type {config.type!r}, but a LeRobot `reward_classifier` is due; {_REMEDY}"
        )
    images = {k: v.shape for k, v in config.input_features.items() if k.startswith("observation.image")}
    if (len(images), config.num_cameras) != (1, 1):
        raise UserError(
            f"{file}: it looks through {len(images)} cameras (num_cameras is {config.num_cameras}); a bundle "
            "has one: train it again with one"
        )
    if (config.num_classes, config.model_type) != (2, "cnn"):
        raise UserError(
            f"{file}: num_classes is {config.num_classes} and model_type {config.model_type!r}; a bundle can "
            "be made of 2 and 'cnn' only: train it again so"
        )
    key, shape = next(iter(images.items()))
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
        raise UserError(f"{file}: input_features.{key}.shape is {shape}; [3, height, width] is due")
    return key, (shape[1], shape[2])


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as e:
        raise UserError(f"{file}: not readable as safetensors ({e}); copy the classifier again") from e


def _network(config: Config, weights: Mapping[str, Tensor], key: str, folder: Path) -> Any:
    """Its backbone, with the weights that the classifier's own file has."""
    for prefix in ("encoder.", f"{lerobot_head.encoder_of(key)}.0."):
        if own := _below(prefix, weights):
            break
    # An export of ours has it beside itself, wherever it was moved to.
    beside = folder / BACKBONE if (folder / BACKBONE).is_dir() else None
    where = beside or local_model.find(config.model_name)
    described = (
        read_json(where / "config.json", "download that model again") if where else _describe(own, folder)
    )
    return resnet.build(described, own, folder / "model.safetensors")


def _describe(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """The configuration that a backbone's weights show, where its folder is not on this machine."""
    stage = re.compile(r"encoder\.stages\.(\d+)\.(?:layers\.(\d+)\.layer\.(\d+)\.)?conv")
    found = [(m, n) for n in weights if (m := stage.match(n))]
    stages = sorted({int(m[1]) for m, _ in found})
    sizes = [max(len(weights[n]) for m, n in found if int(m[1]) == i) for i in stages]
    if "embedder.0.weight" in weights:
        width = len(weights["embedder.0.weight"])
        return {"model_type": "resnet10", "embedding_size": width, "hidden_sizes": sizes}
    stem = "embedder.embedder.convolution.weight"
    if stem not in weights or not stages:
        raise UserError(
            f"{folder}: its backbone is no ResNet that is known here (a transformers ResNet or "
            "lerobot/resnet10); train it again with one of them"
        )
    depths = [len({m[2] for m, _ in found if int(m[1]) == i}) for i in stages]
    kind = "bottleneck" if max(int(m[3]) for m, _ in found) == 2 else "basic"
    sizes_and_depths = {"hidden_sizes": sizes, "depths": depths, "layer_type": kind}
    return {"model_type": "resnet", "embedding_size": len(weights[stem]), **sizes_and_depths}


def _normalisation(
    config: Config, weights: Mapping[str, Tensor], key: str, folder: Path
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the classifier was trained with, of values from 0 to 1."""
    mode, eps = config.normalization_mapping.get("VISUAL", "IDENTITY"), _StepConfig().eps
    # LeRobot below 0.4 kept them with the weights.
    stats = _below(f"normalize_inputs.buffer_{key.replace('.', '_')}.", weights)
    file = folder / "classifier_preprocessor.json"
    steps = _parse(file, _Pipeline).steps if file.is_file() else []
    for step in steps:
        if step.registry_name == "normalizer_processor" and key in step.config.features:
            mode, eps = step.config.norm_map.get("VISUAL", "IDENTITY"), step.config.eps
            stats = _below(f"{key}.", _load(folder / Path(step.state_file).name)) if step.state_file else {}
            mode = mode if stats else "IDENTITY"  # without statistics LeRobot does nothing
    wanted = {"IDENTITY": (), "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max")}.get(mode)
    if wanted is None:
        raise UserError(f"{folder}: normalises by {mode}; MEAN_STD, MIN_MAX and IDENTITY can be imported")
    if any(name not in stats or stats[name].numel() != 3 for name in wanted):
        raise UserError(
            f"{folder}: it normalises by {mode}, but {' and '.join(wanted)} of three colours are missing; "
            f"copy {file.name} and its safetensors from where it was trained"
        )
    if not wanted:
        return _IDENTITY
    first, second = (stats[name].flatten().double() for name in wanted)
    mean, std = (first, second + eps) if mode == "MEAN_STD" else ((first + second) / 2, (second - first) / 2)
    return tuple(mean.tolist()), tuple(std.tolist())


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}


def crop_of(classifier: LeRobotClassifier, frame: tuple[int, int]) -> Crop:
    """What part of a picture (height, width) it saw: as its files say, or all of it where shapes agree.

    Raises:
        UserError: they do not say, or the crop does not fit in the picture.
    """
    folder, key, size = classifier.folder, classifier.key, classifier.size
    for name, at in (
        (HIL_SERL, ("env", "processor", "image_preprocessing", "crop_params_dict")),
        ("train_config.json", ("dataset", "crop_params_dict")),
        ("train_config.json", ("env", "processor", "image_preprocessing", "crop_params_dict")),
    ):
        said: Any = read_json(folder / name, "correct it") if (folder / name).is_file() else {}
        for part in (*at, key):
            said = said.get(part) if isinstance(said, dict) else None
        if said is not None:
            return _as_crop(said, f"{folder / name}: {'.'.join(at)}", frame)
    if frame[0] * size[1] != frame[1] * size[0]:
        raise UserError(
            f"{folder}: nothing there says which part of the {frame[1]}x{frame[0]} pictures its "
            f"{size[1]}x{size[0]} input shows; say so with --crop TOP LEFT HEIGHT WIDTH, as it was trained"
        )
    return Crop(top=0, left=0, height=frame[0], width=frame[1])


def _as_crop(said: object, where: str, frame: tuple[int, int]) -> Crop:
    try:
        top, left, height, width = (int(value) for value in said)  # type: ignore[attr-defined]
        crop = Crop(top=top, left=left, height=height, width=width)
    except (TypeError, ValueError) as e:
        raise UserError(f"{where}: {said!r}; top, left, height and width are due") from e
    if top + height > frame[0] or left + width > frame[1]:
        raise UserError(
            f"{where}: {said} does not fit in pictures of {frame[1]}x{frame[0]}; name its own dataset"
        )
    return crop


def threshold_of(folder: Path) -> float:
    """As an export of ours notes it, else LeRobot's."""
    file = folder / HIL_SERL
    said: Any = read_json(file, "correct it") if file.is_file() else {}
    for part in ("env", "processor", "reward_classifier", "success_threshold"):
        said = said.get(part) if isinstance(said, dict) else None
    return float(said) if isinstance(said, int | float) and 0 < said < 1 else 0.5
