"""One moment as one picture: the camera, what the model sees, the probability as a bar, the verdict."""

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire_reward.preview.feed import Shown

HEIGHT, SIDE, BAR = 480, 256, 120
_INK, _SOFT, _GROUND = (235, 235, 235), (150, 150, 150), (24, 24, 28)
_YES, _NO, _UNKNOWN = (60, 180, 75), (120, 120, 130), (200, 120, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(shown: Shown, threshold: float, recording: bool) -> NDArray[np.uint8]:
    """(HEIGHT + BAR, width, 3) uint8 RGB; ``threshold`` is the preview's own, drawn as a line."""
    left = _scaled(shown.picture)
    canvas = np.full((HEIGHT + BAR, left.shape[1] + SIDE + 24, 3), _GROUND, np.uint8)
    canvas[:HEIGHT, : left.shape[1]] = left
    _input(canvas, shown, left.shape[1] + 12)
    _verdict(canvas, shown, left.shape[1] + 12)
    _bar(canvas, shown, threshold)
    if recording:
        cv2.circle(canvas, (22, 22), 12, _GROUND, -1, cv2.LINE_AA)
        cv2.circle(canvas, (22, 22), 8, (220, 40, 40), -1, cv2.LINE_AA)
    return canvas


def _scaled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(1, round(picture.shape[1] * HEIGHT / picture.shape[0]))
    return np.asarray(cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def _text(canvas: NDArray[np.uint8], text: str, x: int, y: int, size: float, colour: tuple[int, ...]) -> None:
    cv2.putText(canvas, text, (x, y), _FONT, size, colour, 1, cv2.LINE_AA)


def _input(canvas: NDArray[np.uint8], shown: Shown, x: int) -> None:
    _text(canvas, "the model's input", x, 18, 0.45, _SOFT)
    if shown.sees is None:
        _text(canvas, "not to be had", x, 150, 0.5, _SOFT)
        return
    height, width = shown.sees.shape[:2]
    times = SIDE / max(height, width)  # its own pixels, enlarged and never smoothed
    size = (max(1, round(width * times)), max(1, round(height * times)))
    canvas[26 : 26 + size[1], x : x + size[0]] = cv2.resize(shown.sees, size, interpolation=cv2.INTER_NEAREST)


def _verdict(canvas: NDArray[np.uint8], shown: Shown, x: int) -> None:
    reward = shown.reward
    colour = _UNKNOWN if not reward.valid else _YES if reward.decision else _NO
    said = "NOT VALID" if not reward.valid else "SUCCESS" if reward.decision else "no success"
    cv2.rectangle(canvas, (x, 300), (x + SIDE, 340), colour, -1)
    _text(canvas, said, x + 12, 327, 0.7, _INK)
    drift = "-" if reward.drift is None else f"{reward.drift:.2f}"
    lines = [
        f"model {reward.model[:12] or 'none'}  epoch {reward.epoch}",
        f"frame {reward.frame_seq}  {shown.age_ms:.0f} ms old",
        f"drift {drift}  gate {'open' if reward.gate else 'shut'}{'  latched' if reward.latched else ''}",
        "overridden: " * bool(reward.overrides) + ", ".join(f"{n} {v}" for n, v in reward.overrides.items()),
    ]
    for number, line in enumerate(filter(None, lines)):
        _text(canvas, line[:40], x, 362 + 20 * number, 0.42, _SOFT)
    for number, line in enumerate(_wrapped(shown.problem or reward.reason, 38)[:2]):
        _text(canvas, line, x, 448 + 18 * number, 0.4, _UNKNOWN)


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width and line:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line] if line else lines


def _bar(canvas: NDArray[np.uint8], shown: Shown, threshold: float) -> None:
    left, right, top, bottom = 16, canvas.shape[1] - 16, HEIGHT + 40, HEIGHT + 70
    cv2.rectangle(canvas, (left, top), (right, bottom), (60, 60, 66), -1)
    probability = shown.reward.probability
    if probability is not None:
        end = left + round((right - left) * probability)
        colour = _YES if probability >= threshold else _NO
        cv2.rectangle(canvas, (left, top), (end, bottom), colour, -1)
    at = left + round((right - left) * threshold)
    cv2.line(canvas, (at, top - 8), (at, bottom + 8), _INK, 2)
    said = "no probability" if probability is None else f"probability {probability:.3f}"
    _text(canvas, f"{said}   threshold {threshold:.2f}", left, HEIGHT + 26, 0.55, _INK)
    _text(canvas, HELP, left, HEIGHT + 104, 0.42, _SOFT)


HELP = "+ -  threshold    s  have the service use it    v  record a video    q  quit"
