"""The one preprocessing: camera frame to model input. Trainer, evaluator, live service and preview call it.

The contract is data that travels inside the bundle, so what was trained is what runs.
"""

from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gripwire.errors import UserError

_INTERPOLATION = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


class Crop(BaseModel):
    """The part of the frame the model sees, in pixels of the frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top: int = Field(ge=0)
    left: int = Field(ge=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class InputContract(BaseModel):
    """How one camera's frame becomes one input of the model: crop, resize, colour order, scale, normalise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(description="the dataset's image key, e.g. observation.images.gripper_cam")
    frame: tuple[int, int] = Field(description="height and width of the frames it was trained on")
    crop: Crop
    size: tuple[int, int] = Field(description="height and width of the model's input")
    interpolation: Literal["area", "linear", "cubic", "nearest"] = "area"
    colour: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(1 / 255, gt=0, description="multiplies the 0..255 values first")
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _crop_inside_frame(self) -> Self:
        crop, (height, width) = self.crop, self.frame
        if crop.top + crop.height > height or crop.left + crop.width > width:
            raise ValueError(f"the crop {crop} does not fit in a frame of {height}x{width}")
        if min(self.size) < 1 or min(self.std) <= 0:
            raise ValueError("size and std must be positive")
        return self

    @property
    def camera(self) -> str:
        """The camera slot that feeds this input: ``observation.images.gripper_cam`` is ``gripper_cam``."""
        return self.key.rsplit(".", 1)[-1]


def central_square(height: int, width: int) -> Crop:
    """The largest centred square: (top 0, left 80, 480x480) of a 640x480 frame."""
    side = min(height, width)
    return Crop(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)


def crop_and_resize(image: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    """The picture the model sees, still uint8 RGB: (height, width, 3) of ``contract.size``.

    Raises:
        UserError: the frame has another size than the model was trained on.
    """
    if image.shape != (*contract.frame, 3) or image.dtype != np.uint8:
        raise UserError(
            f"{contract.key}: a frame of {image.shape} {image.dtype} came, the model was trained on "
            f"{contract.frame[0]}x{contract.frame[1]} uint8 RGB; set the camera to that size or train anew"
        )
    crop = contract.crop
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    height, width = contract.size
    resized = cv2.resize(part, (width, height), interpolation=_INTERPOLATION[contract.interpolation])
    return np.asarray(resized, dtype=np.uint8)


def normalise(picture: NDArray[np.uint8], contract: InputContract) -> NDArray[np.float32]:
    """(height, width, 3) uint8 RGB to (3, height, width) float32, in the model's colour order and scale."""
    ordered = picture if contract.colour == "rgb" else picture[..., ::-1]
    std = np.asarray(contract.std, np.float32)
    gain = (np.float32(contract.scale) / std).astype(np.float32)
    offset = (-np.asarray(contract.mean, np.float32) / std).astype(np.float32)
    # Plane by plane, four times as fast as pixel by pixel.
    planes = np.multiply(ordered.transpose(2, 0, 1), gain[:, None, None], order="C")
    planes += offset[:, None, None]
    return planes


def preprocess(image: NDArray[np.uint8], contract: InputContract) -> NDArray[np.float32]:
    """One RGB frame (H, W, 3) uint8 to the model's input (3, h, w) float32, as ``contract`` says.

    Raises:
        UserError: the frame has another size than the model was trained on.
    """
    return normalise(crop_and_resize(image, contract), contract)
