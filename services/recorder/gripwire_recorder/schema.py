"""The columns of a recorded dataset (the package's docstring documents them for readers)."""

from typing import Any

from gripwire.errors import UserError
from gripwire.messages import JOINTS

ROBOT_TYPE = "so_follower"
_PER_CAMERA = {
    "t_capture": "int64", "seq": "int64", "exposure": "int64", "skew_ms": "float32", "gap_ms": "float32",
}  # fmt: skip
PER_ROW = {
    "next.reward": "float32", "next.done": "bool",
    "gripwire.state.gap_ms": "float32", "gripwire.intervention": "int64", "gripwire.verdict": "int64",
    "gripwire.reward.probability": "float32", "gripwire.reward.logit": "float32",
    "gripwire.reward.epoch": "int64",
}  # fmt: skip
# Written by LeRobot itself into every dataset.
_LEROBOTS_OWN = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def image_key(camera: str) -> str:
    return f"observation.images.{camera}"


def column(camera: str, name: str) -> str:
    """The column beside ``camera``'s pictures: t_capture, seq, exposure, skew_ms or gap_ms."""
    return f"gripwire.{camera}.{name}"


def features(sizes: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """LeRobot's feature table for these cameras; ``sizes`` are (height, width) by camera."""
    joints = [f"{joint}.pos" for joint in JOINTS]
    table: dict[str, dict[str, Any]] = {
        "observation.state": {"dtype": "float32", "shape": (len(joints),), "names": joints},
        "action": {"dtype": "float32", "shape": (len(joints),), "names": joints},
    }
    table |= {name: {"dtype": dtype, "shape": (1,), "names": None} for name, dtype in PER_ROW.items()}
    for camera, (height, width) in sizes.items():
        names = ["height", "width", "channels"]
        table[image_key(camera)] = {"dtype": "video", "shape": (height, width, 3), "names": names}
        for name, dtype in _PER_CAMERA.items():
            table[column(camera, name)] = {"dtype": dtype, "shape": (1,), "names": None}
    return table


def check_match(name: str, info: dict[str, Any], wanted: dict[str, dict[str, Any]], fps: int) -> None:
    """Whether episodes with ``wanted`` features at ``fps`` may be appended to the dataset of ``info.json``.

    Raises:
        UserError: they may not, and why.
    """

    def refuse(why: str) -> UserError:
        return UserError(f"dataset `{name}` cannot be appended to: {why}; name another dataset")

    if info.get("codebase_version") != "v3.0":
        raise refuse(f"its format is {info.get('codebase_version')}, and episodes are written as v3.0")
    if info.get("fps") != fps:
        raise refuse(f"it has {info.get('fps')} rows a second, the recorder is set to {fps}")
    have = {key: _shape(ft) for key, ft in info.get("features", {}).items() if key not in _LEROBOTS_OWN}
    want = {key: _shape(ft) for key, ft in wanted.items()}
    for key in sorted(want.keys() - have.keys()):
        raise refuse(f"it has no `{key}`")
    for key in sorted(have.keys() - want.keys()):
        raise refuse(f"it has `{key}`, which is not being recorded")
    for key in sorted(want):
        if have[key] != want[key]:
            raise refuse(f"its `{key}` is {_words(have[key])}, now it is {_words(want[key])}")


def _shape(feature: dict[str, Any]) -> tuple[Any, tuple[int, ...], Any]:
    names = feature.get("names")
    return feature.get("dtype"), tuple(feature.get("shape", ())), tuple(names) if names else None


def _words(shape: tuple[Any, tuple[int, ...], Any]) -> str:
    dtype, size, names = shape
    text = f"{dtype} {'x'.join(map(str, size))}"
    return text if dtype == "video" or not names else f"{text} ({', '.join(map(str, names))})"
