"""Reads a LeRobot training configuration of a reward classifier as settings of the trainer.

What it asks for is honoured where there is a counterpart; everything else that it says is named with the
reason, so that nobody believes a setting to be in force that is not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from gripwire.errors import UserError
from gripwire_trainer import local_model
from gripwire_trainer.interop import transforms as lerobot_transforms
from gripwire_trainer.interop.config_keys import NUMBERS, REASONS
from gripwire_trainer.json_object import read_json

_MODELS = ("policy", "reward_model")
"""Where LeRobot has the classifier: up to 0.5 and since."""
_LARGEST_PICTURE = 256


@dataclass
class LeRobotTraining:
    """What a configuration asks for.

    ``values`` has keys and values of `[trainer]`; ``origins`` says for each where in the file it came from.
    ``steps`` is how many batches to train for. ``honoured`` has the file's keys with their values,
    ``unheeded`` those without effect, with the reason.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    honoured: dict[str, Any] = field(default_factory=dict)
    unheeded: dict[str, str] = field(default_factory=dict)

    def explain(self) -> str:
        """Both lists, for a terminal."""
        lines = [f"{self.path}: honoured"]
        lines += [f"  {key} = {json.dumps(value)}" for key, value in self.honoured.items()]
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.unheeded.items():
            by_reason.setdefault(reason, []).append(key)
        lines += [f"{self.path}: without effect"] if by_reason else []
        lines += [f"  {', '.join(keys)}: {reason}" for reason, keys in by_reason.items()]
        return "\n".join(lines)


def is_lerobot_config(path: Path) -> bool:
    """Whether the file is a LeRobot training configuration of a reward classifier. Any other is not."""
    if path.suffix != ".json":
        return False
    try:
        tree = read_json(path, "")
    except UserError:
        return False
    return _model_of(tree) is not None


def _model_of(tree: dict[str, Any]) -> str | None:
    for name in _MODELS:
        if isinstance(model := tree.get(name), dict) and model.get("type") == "reward_classifier":
            return name
    return None


def read(path: Path) -> LeRobotTraining:
    """Read a configuration.

    Raises:
        UserError: it is not one, or a value is not what LeRobot allows there; the text names file and key.
    """
    tree = read_json(path, "give a LeRobot training configuration")
    model = _model_of(tree)
    if model is None:
        raise UserError(
            f"{path}: `policy.type` (or `reward_model.type`) is not `reward_classifier`; give the training "
            "configuration of one"
        )
    return _Reader(path, tree, model).read()


class _Reader:
    """Takes what is known out of the tree; what is left at the end is named."""

    def __init__(self, path: Path, tree: dict[str, Any], model: str) -> None:
        self._path, self._tree, self._model = path, tree, model
        self._out = LeRobotTraining(path)
        self._seen = {f"{model}.type"}

    def read(self) -> LeRobotTraining:
        for key, (name, kind) in NUMBERS.items():
            self._take(key, name, kind)
        self._own_optimiser()
        self._out.steps = self._get("steps", PositiveInt)
        if self._out.steps is not None:
            self._out.honoured["steps"] = self._out.steps
        self._classifier()
        camera = self._camera()
        self._crop(camera)
        self._transforms()
        self._backbone()
        self._name_the_rest()
        return self._out

    def _key(self, key: str) -> str:
        return key.replace("MODEL", self._model)

    def _get(self, key: str, kind: Any) -> Any:
        """The value at a dotted key, checked; None where there is none, or null."""
        key = self._key(key)
        node: Any = self._tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node is None:
            return None
        self._seen.add(key)
        try:
            return TypeAdapter(kind).validate_python(node)
        except ValidationError as e:
            first = e.errors()[0]
            at = ".".join(str(part) for part in (key, *first["loc"]))
            raise self._wrong(at, first["msg"][0].lower() + first["msg"][1:]) from e

    def _wrong(self, key: str, reason: str) -> UserError:
        return UserError(f"{self._path}: {key}: {reason}; correct it there")

    def _honour(self, key: str, name: str, value: Any, said: Any = None) -> None:
        """``name`` of `[trainer]` becomes ``value``; ``said`` is how the file has it."""
        key = self._key(key)
        self._out.values[name], self._out.origins[name] = value, f"{self._path}: {key}"
        self._out.honoured[key] = value if said is None else said

    def _take(self, key: str, name: str, kind: Any) -> None:
        if (value := self._get(key, kind)) is not None:
            self._honour(key, name, value)

    def _unheeded(self, key: str, reason: str) -> None:
        self._out.unheeded[self._key(key)] = reason

    def _own_optimiser(self) -> None:
        """Without the preset, LeRobot takes rate and decay from ``optimizer``."""
        if self._get("use_policy_training_preset", bool) is False:
            self._seen.discard("use_policy_training_preset")
            self._take("optimizer.lr", "learning_rate", PositiveFloat)
            self._take("optimizer.weight_decay", "weight_decay", Annotated[float, Field(ge=0)])

    def _classifier(self) -> None:
        classes = self._get("MODEL.num_classes", int)
        if classes not in (None, 2):
            raise self._wrong(
                self._key("MODEL.num_classes"), f"{classes}, but a reward says success or failure"
            )
        if self._get("MODEL.model_type", str) not in (None, "cnn"):
            self._unheeded("MODEL.model_type", "backbones are convolutional networks")

    def _camera(self) -> str | None:
        """The one camera, and the size of its pictures."""
        features = self._get("MODEL.input_features", dict[str, dict[str, Any]]) or {}
        images = [key for key in features if key.startswith("observation.image")]
        for key in features.keys() - images:
            self._unheeded(f"MODEL.input_features.{key}", "the classifier sees pictures only")
        if (count := self._get("MODEL.num_cameras", int)) not in (None, 1) or len(images) > 1:
            cameras = ", ".join(images) or count
            self._unheeded("MODEL.num_cameras", f"a bundle looks through one camera, not {cameras}: name it")
            return None
        side = self._get("MODEL.image_size", PositiveInt | tuple[PositiveInt, PositiveInt])
        square = (side, side) if isinstance(side, int) else side
        if square:
            self._size("MODEL.image_size", square, side)
        if not images:
            return None
        camera = images[0]
        at = f"MODEL.input_features.{camera}"
        self._honour(at, "camera", camera, said=features[camera])
        self._seen |= {f"{self._key(at)}.{name}" for name in features[camera]}
        shape = self._shape(f"{at}.shape", features[camera].get("shape"))
        if shape and square and shape != square:
            raise self._wrong(self._key(at), f"{shape} pixels, but {self._key('MODEL.image_size')} is {side}")
        if shape:
            self._size(f"{at}.shape", shape, [3, *shape])
        return camera

    def _shape(self, key: str, said: Any) -> tuple[int, int] | None:
        if said is None:
            return None
        try:
            channels, height, width = TypeAdapter(tuple[int, PositiveInt, PositiveInt]).validate_python(said)
        except ValidationError as e:
            raise self._wrong(self._key(key), f"{said!r}, but [3, height, width] is due") from e
        if channels != 3:
            raise self._wrong(self._key(key), f"{said!r}, but colour pictures, [3, height, width], are due")
        return height, width

    def _size(self, key: str, size: tuple[int, int], said: Any) -> None:
        if max(size) <= _LARGEST_PICTURE:
            self._honour(key, "size", size, said)
        else:
            self._unheeded(key, "pictures that large slow training and service down for nothing")

    def _crop(self, camera: str | None) -> None:
        kind = dict[str, tuple[int, int, int, int] | None]
        for at in ("dataset.crop_params_dict", "env.processor.image_preprocessing.crop_params_dict"):
            for key, crop in (self._get(at, kind) or {}).items():
                if crop is None:
                    continue
                if camera is not None and key != camera:
                    self._unheeded(f"{at}.{key}", f"the classifier looks through {camera}")
                elif min(crop) < 0 or min(crop[2:]) < 1:
                    raise self._wrong(f"{at}.{key}", f"{list(crop)}, but top, left, height, width are due")
                else:
                    self._honour(f"{at}.{key}", "crop", crop)
        at = "env.processor.image_preprocessing.resize_size"
        if resized := self._get(at, tuple[PositiveInt, PositiveInt]):
            self._size(at, resized, list(resized))

    def _transforms(self) -> None:
        at = "dataset.image_transforms"
        transforms = self._get(at, lerobot_transforms.ImageTransforms)
        if transforms is None:
            return
        try:
            translated = lerobot_transforms.translate(transforms)
        except ValueError as e:
            raise self._wrong(at, str(e)) from e
        for key, reason in translated.unheeded.items():
            self._unheeded(f"{at}.{key}", reason)
        changed = {k: v for k, v in translated.augmentation.items() if v != lerobot_transforms.NEUTRAL[k]}
        self._honour(at, "augmentation", translated.augmentation, said=changed)
        if not changed:
            self._honour(f"{at}.enable", "views", 1, said=transforms.enable)

    def _backbone(self) -> None:
        name = self._get("MODEL.model_name", str)
        if name is None:
            return
        if folder := local_model.find(name):
            self._honour("MODEL.model_name", "backbone", str(folder), said=name)
        else:
            self._unheeded(
                "MODEL.model_name",
                f"{name} is not on this machine and the default backbone is used: "
                f"{local_model.how_to_get(name)} by --backbone",
            )

    def _name_the_rest(self) -> None:
        for key in _leaves(self._tree):
            if any(key == seen or key.startswith(f"{seen}.") for seen in self._seen):
                continue
            reasons = (r for known, r in REASONS.items() if f"{key}.".startswith(f"{self._key(known)}."))
            self._unheeded(key, next(reasons, "not known to gripwire"))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values, but for those that say nothing (null, or an empty object)."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}"
