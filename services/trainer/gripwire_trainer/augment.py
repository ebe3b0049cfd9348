"""Other views of a picture: another light, another white balance, a bumped camera, sensor noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Part of every cache key: raise it with any change here."""


def view(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random view of a picture (h, w, 3) uint8 RGB, of the same shape."""
    return _noise(_light(_colour(_bump(picture, rng), rng), rng), rng)


def _bump(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift by up to 3 %, turn by up to 2 degrees, scale by up to 3 %."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-2, 2), rng.uniform(0.97, 1.03))
    turn[:, 2] += rng.uniform(-0.03, 0.03, 2) * (width, height)
    moved = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def _colour(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Hue by up to 18 degrees, saturation by a factor of 0.6 to 1.4."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    turn, factor = int(rng.integers(-9, 10)), rng.uniform(0.6, 1.4)  # OpenCV counts hue in steps of 2 degrees
    steps = np.arange(256)
    hue = ((steps + turn) % 180).astype(np.uint8)
    saturation = np.clip(steps * factor, 0, 255).astype(np.uint8)
    table = np.stack([hue, saturation, steps.astype(np.uint8)], axis=1)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB), np.uint8)


def _light(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness by a factor of 0.5 to 1.5, contrast about the mean by 0.7 to 1.3."""
    gain, contrast, mean = rng.uniform(0.5, 1.5), rng.uniform(0.7, 1.3), float(picture.mean())
    table = ((np.arange(256) - mean) * contrast + mean) * gain
    return np.asarray(cv2.LUT(picture, np.clip(table, 0, 255).astype(np.uint8)), np.uint8)


def _noise(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gaussian, up to 5 of 255."""
    noise = np.empty(picture.shape, np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, (0, 0, 0), (s := rng.uniform(0, 5), s, s))
    return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)
