"""What the tests of building share."""

import json
from pathlib import Path
from typing import Any

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from gripwire_trainer import labels
from gripwire_trainer.datasets.build import Summary
from gripwire_trainer.datasets.build import build as make

STARTS: list[int | None] = [5, None, 21]
"""Where success begins in each of the counted episodes."""


def build(data: Path, file: Path, name: str | None = None, **options: Any) -> Summary:
    return make(labels.read(file), data, name, **options)


def merged(folder: Path, *sources: Path) -> Path:
    file = folder / "merge.json"
    file.write_text(json.dumps({"sources": [s.name for s in sources], "output_repo_id": "me/both"}))
    return file


def opened(root: Path) -> LeRobotDataset:
    return LeRobotDataset("me/reward", root=root, video_backend="pyav", return_uint8=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
