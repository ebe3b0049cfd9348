"""The preprocessing that will travel with the model, from settings and datasets."""

from collections.abc import Sequence

from gripwire.errors import UserError
from gripwire_reward.preprocess import Crop, InputContract, central_square
from gripwire_trainer.backbone import Backbone
from gripwire_trainer.episodes import Labelled
from gripwire_trainer.settings import TrainerSettings


def make_contract(
    episodes: Sequence[Labelled], backbone: Backbone, settings: TrainerSettings
) -> InputContract:
    """One camera's contract, for all episodes.

    Raises:
        UserError: the datasets have different cameras or rates, or the crop does not fit.
    """
    first = episodes[0].dataset
    key = first.camera(settings.camera or None)
    height, width = first.cameras[key]
    for other in (e.dataset for e in episodes):
        if (size := other.cameras[other.camera(key)]) != (height, width):
            raise UserError(
                f"{first.path} has pictures of {width}x{height}, {other.path} of {size[1]}x{size[0]}; "
                "train on datasets of one size"
            )
        if other.fps != first.fps:
            raise UserError(
                f"{first.path} has {first.fps:g} frames per second, {other.path} {other.fps:g}; train on "
                "datasets of one rate"
            )
    least = max(32, 2 * backbone.stride)
    if min(settings.size) < least:
        raise UserError(f"[trainer] size = {list(settings.size)}: at least {least} pixels are needed")
    crop = _crop(settings, height, width)
    try:
        return InputContract(
            key=key,
            frame=(height, width),
            crop=crop,
            size=settings.size,
            interpolation=settings.interpolation,
            scale=backbone.scale,
            mean=backbone.mean,
            std=backbone.std,
        )
    except ValueError as e:
        raise UserError(
            f"[trainer] crop: {crop} does not fit in pictures of {width}x{height}; correct it"
        ) from e


def _crop(settings: TrainerSettings, height: int, width: int) -> Crop:
    if not settings.crop:
        return central_square(height, width)
    top, left, crop_height, crop_width = settings.crop
    try:
        return Crop(top=top, left=left, height=crop_height, width=crop_width)
    except ValueError as e:
        raise UserError(f"[trainer] crop = {list(settings.crop)}: top, left, height, width are due") from e
