"""LeRobot's image transforms as the trainer's augmentation."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

NEUTRAL: dict[str, Any] = {
    "brightness": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "saturation": (1.0, 1.0),
    "hue": (0.0, 0.0),
    "temperature": (0.0, 0.0),
    "gamma": (1.0, 1.0),
    "sharpness": (1.0, 1.0),
    "shift": 0.0,
    "turn": 0.0,
    "zoom": (1.0, 1.0),
    "noise": 0.0,
    "shadows": 0.0,
    "slope": 0.0,
    "recolour": 0.0,
}
"""An augmentation that changes nothing: LeRobot's list of transforms is meant to be all of them."""


class Transform(BaseModel):
    """One of ``tfs``."""

    weight: float = 1.0
    type: str = "Identity"
    kwargs: dict[str, Any] = {}


def _default_tfs() -> dict[str, Transform]:
    """What LeRobot applies when transforms are enabled and none are named."""
    jitter = {
        "brightness": (0.8, 1.2),
        "contrast": (0.8, 1.2),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    return {name: Transform(type="ColorJitter", kwargs={name: spread}) for name, spread in jitter.items()} | {
        "sharpness": Transform(type="SharpnessJitter", kwargs={"sharpness": (0.5, 1.5)}),
        "affine": Transform(type="RandomAffine", kwargs={"degrees": (-5.0, 5.0), "translate": (0.05, 0.05)}),
    }


class ImageTransforms(BaseModel):
    """``dataset.image_transforms`` with LeRobot's defaults."""

    enable: bool = False
    max_num_transforms: Annotated[int, Field(ge=1)] = 3
    random_order: bool = False
    tfs: dict[str, Transform] = Field(default_factory=_default_tfs)


@dataclass
class Translated:
    """``augmentation`` has the keys of `[trainer.augmentation]`; ``unheeded`` what has no counterpart: key
    below ``image_transforms`` and reason."""

    augmentation: dict[str, Any] = field(default_factory=lambda: dict(NEUTRAL))
    unheeded: dict[str, str] = field(default_factory=dict)


def translate(transforms: ImageTransforms) -> Translated:
    """Ranges and strengths; how many of them at a time, with which weight, and in what order, is ours.

    Raises:
        ValueError: a transform has arguments that LeRobot would refuse; the text names them.
    """
    out = Translated()
    used = {name: t for name, t in transforms.tfs.items() if t.weight > 0} if transforms.enable else {}
    for name, transform in used.items():
        for argument, value in transform.kwargs.items():
            try:
                heeded = _argument(transform.type, argument, value, out.augmentation)
            except ValueError as e:
                raise ValueError(f"tfs.{name}.kwargs.{argument} = {value!r}: {_reason(e)}") from e
            if not heeded:
                reason = f"gripwire's views have no {transform.type} by {argument}"
                out.unheeded[f"tfs.{name}.kwargs.{argument}"] = reason
        if not transform.kwargs and transform.type != "Identity":
            out.unheeded[f"tfs.{name}"] = f"gripwire's views have no {transform.type} without arguments"
    if transforms.max_num_transforms < len(used):
        out.unheeded["max_num_transforms"] = (
            f"every view is changed by all {len(used)}, each by a random amount"
        )
    if len({t.weight for t in used.values()}) > 1:
        for name in used:
            out.unheeded[f"tfs.{name}.weight"] = (
                "every view is changed by all of them, each by a random amount"
            )
    if transforms.random_order and len(used) > 1:
        out.unheeded["random_order"] = (
            "views are made in one order: place, colour, light, exposure, focus, noise"
        )
    return out


def _reason(error: ValueError) -> str:
    return str(getattr(error, "errors", lambda: [{"msg": str(error)}])()[0]["msg"])


def _argument(kind: str, name: str, value: Any, into: dict[str, Any]) -> bool:
    """Take one argument over; False if there is no counterpart."""
    match kind, name:
        case "ColorJitter", "brightness" | "contrast" | "saturation":
            into[name] = _factors(value)
        case "SharpnessJitter", "sharpness":
            into[name] = _factors(value)
        case "ColorJitter", "hue":
            into[name] = _spread(value, about=0.0, low=-0.5, high=0.5)
        case "GammaCorrection", "gamma":
            into[name] = _spread((1 / value, value) if _is_number(value) and value else value, 1.0, 1e-3, 1e3)
        case "RandomAffine", "degrees":
            into["turn"] = max(abs(v) for v in _spread(value, 0.0, -180.0, 180.0))
        case "RandomAffine", "translate":
            into["shift"] = max(_spread(value, 0.0, 0.0, 0.5, ordered=False))
        case "RandomAffine", "scale":
            into["zoom"] = _spread(value, 1.0, 1e-3, 1e3)
        case "GaussianNoise", "std":
            into["noise"] = _spread((0.0, value) if _is_number(value) else value, 0.0, 0.0, 255.0)[1]
        case _:
            return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _factors(value: Any) -> tuple[float, float]:
    """torchvision's: a number is a distance from 1, cut at 0."""
    if _is_number(value) and value >= 0:
        value = (max(0.0, 1.0 - value), 1.0 + value)
    return _spread(value, 1.0, 0.0, 1e3)


_PAIR = TypeAdapter(tuple[float, float])


def _spread(value: Any, about: float, low: float, high: float, ordered: bool = True) -> tuple[float, float]:
    if _is_number(value):
        value = (about - abs(value), about + abs(value))
    first, second = _PAIR.validate_python(value)
    if not (low <= first <= high and low <= second <= high) or (ordered and first > second):
        raise ValueError(f"two numbers between {low:g} and {high:g} are due, the smaller one first")
    return first, second
