"""Other views of a picture: another light, another white balance, a bumped camera, another cube, more noise.

What a lamp, an afternoon or a replaced camera change at the robot is drawn here at random, so that the
classifier does not take the light of one morning for a property of a grasp.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.settings import Augmentation

VERSION = 2
"""Part of every cache key: raise it with any change of the code here."""


def view(
    picture: NDArray[np.uint8],
    rng: np.random.Generator,
    how: Augmentation = Augmentation(),
) -> NDArray[np.uint8]:
    """One random view of a picture (h, w, 3) uint8 RGB, of the same shape."""
    moved = _move(picture, rng, how)
    coloured = _light_up(_colour(moved, rng, how), rng, how)
    return _noise(_focus(_expose(coloured, rng, how), rng, how), rng, how)


def _move(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """A camera that sits a little otherwise."""
    height, width = picture.shape[:2]
    angle = rng.uniform(-how.turn, how.turn)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, rng.uniform(*how.zoom))
    turn[:, 2] += rng.uniform(-how.shift, how.shift, 2) * (width, height)
    moved = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def _colour(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """Hue and saturation of the whole picture; now and then one of its colours becomes another."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    steps = np.arange(256)
    hue = steps + 180 * rng.uniform(*how.hue)  # OpenCV's circle has 180 steps
    if rng.random() < how.recolour:
        hue, lightness = _exchange(hsv, hue, rng)
        gain = cv2.LUT(hsv[..., 0], lightness.astype(np.float32))
        hsv[..., 2] = np.clip(hsv[..., 2] * gain, 0, 255)
    saturation = np.clip(steps * rng.uniform(*how.saturation), 0, 255)
    table = np.stack([np.mod(np.round(hue), 180), saturation, steps], axis=1).astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB), np.uint8)


def _exchange(
    hsv: NDArray[np.uint8], hue: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tables by hue, (256,) each: the new hue, and a factor for the lightness, with one colour exchanged."""
    strong = np.flatnonzero(hsv[..., 1] > _COLOURFUL)
    steps = np.arange(256)
    if not len(strong):
        return hue, np.ones(256)
    chosen = int(hsv[..., 0].flat[rng.choice(strong)])
    near = np.abs((steps - chosen + 90) % 180 - 90) <= _BAND
    return hue + near * rng.uniform(0, 180), np.where(near, rng.uniform(0.7, 1.6), 1.0)


_COLOURFUL, _BAND = 110, 8
"""Saturation (of 255) from which on a pixel has a colour of its own; half the width of a colour, in steps."""


def _light_up(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """A lamp elsewhere: brighter on one side, and with a shadow's edge across the picture."""
    height, width = picture.shape[:2]
    light = np.ones((height, width), np.float32)
    if rng.random() < 0.5:
        towards, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, how.slope)
        across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(towards))
        down = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(towards))
        light += np.float32(slope) * (across[None] + down[:, None])
    if rng.random() < how.shadows:
        corners = rng.uniform(-0.3, 1.3, (int(rng.integers(3, 6)), 2)) * (width, height)
        shadow = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(shadow, cv2.convexHull(corners.astype(np.int32)), 1.0)
        shadow = cv2.blur(shadow, (k := int(rng.choice([1, 3, 5])), k))
        if rng.random() < 0.5:
            shadow = 1 - shadow
        light *= 1 - np.float32(rng.uniform(0.1, 0.6)) * shadow
    return np.asarray(np.clip(picture * light[..., None], 0, 255), np.uint8)


def _expose(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """Brightness, white balance, contrast about the mean, and the camera's response curve."""
    gain, contrast = rng.uniform(*how.brightness), rng.uniform(*how.contrast)
    warmth, tint, gamma = rng.uniform(*how.temperature), rng.uniform(-0.05, 0.05), rng.uniform(*how.gamma)
    balance = gain * np.array([1 + warmth, 1 + tint, 1 - warmth])
    mean = float(cv2.mean(picture)[1])
    levels = ((np.arange(256) - mean) * contrast + mean)[:, None] * balance
    table = 255 * (np.clip(levels, 0, 255) / 255) ** gamma
    return np.asarray(cv2.LUT(picture, table.astype(np.uint8)[None]), np.uint8)


def _focus(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """Blend with a blurred copy, as torchvision's adjust_sharpness does."""
    factor = rng.uniform(*how.sharpness)
    if rng.random() < 0.5 or abs(factor - 1) < 0.05:
        return picture
    return np.asarray(cv2.addWeighted(picture, factor, cv2.blur(picture, (3, 3)), 1 - factor, 0), np.uint8)


def _noise(picture: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    """A sensor's, Gaussian; that of a dark room now and then."""
    sigma = rng.uniform(0, how.noise * (1.0 if rng.random() < 0.3 else 0.4))
    noise = np.empty(picture.shape, np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, (0, 0, 0), (sigma, sigma, sigma))
    return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)
