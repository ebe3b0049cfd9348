"""The one preprocessing."""

import numpy as np
import pytest
from pydantic import ValidationError

from gripwire.errors import UserError
from gripwire_reward.preprocess import Crop, InputContract, central_square, crop_and_resize, preprocess


def _contract(**changes: object) -> InputContract:
    base = {
        "key": "observation.images.gripper_cam",
        "frame": (4, 6),
        "size": (4, 4),
        "crop": Crop(top=0, left=1, height=4, width=4),
        "scale": 1.0,
        "mean": (10, 20, 30),
        "std": (1, 2, 4),
    }
    return InputContract.model_validate(base | changes)


def test_a_640x480_frame_is_cropped_to_its_central_480_square() -> None:
    assert central_square(480, 640) == Crop(top=0, left=80, height=480, width=480)


def test_each_channel_is_scaled_and_normalised_by_its_own_figures() -> None:
    image = np.full((4, 6, 3), (20, 40, 70), np.uint8)
    out = preprocess(image, _contract())
    assert out.shape == (3, 4, 4) and out.dtype == np.float32
    assert np.allclose(out[:, 0, 0], [10, 10, 10])


def test_colour_order_bgr_swaps_red_and_blue() -> None:
    image = np.full((4, 6, 3), (1, 2, 3), np.uint8)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    assert preprocess(image, _contract(**plain))[:, 0, 0].tolist() == [1, 2, 3]
    assert preprocess(image, _contract(**plain, colour="bgr"))[:, 0, 0].tolist() == [3, 2, 1]


def test_only_the_crop_is_seen() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, [0, 5]] = 255
    assert crop_and_resize(image, _contract()).max() == 0


def test_area_interpolation_averages_what_it_shrinks() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[::2] = 200
    small = crop_and_resize(image, _contract(size=(2, 2), interpolation="area"))
    assert np.all(small == 100)


def test_a_frame_of_another_size_is_refused_and_both_sizes_are_named() -> None:
    with pytest.raises(UserError, match=r"\(5, 6, 3\).*4x6"):
        preprocess(np.zeros((5, 6, 3), np.uint8), _contract())


def test_a_float_frame_is_refused_because_0_to_1_is_not_0_to_255() -> None:
    with pytest.raises(UserError, match="float32"):
        preprocess(np.zeros((4, 6, 3), np.float32), _contract())  # type: ignore[arg-type]


def test_a_crop_outside_the_frame_is_no_contract() -> None:
    with pytest.raises(ValidationError, match="does not fit"):
        _contract(crop=Crop(top=1, left=1, height=4, width=4))


def test_the_camera_slot_is_the_end_of_the_key() -> None:
    assert _contract().camera == "gripper_cam"
