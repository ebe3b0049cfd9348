"""What each part of a dataset is made of, and what all of it comes to, before any of it is made."""

import json
from importlib.metadata import version
from pathlib import Path

from gripwire.errors import UserError
from gripwire_trainer.datasets.hashes import Hashes
from gripwire_trainer.datasets.parts import Parts, key
from gripwire_trainer.datasets.plan import Plan, Planned

_VERSION = 1
"""Raise it with any change of what is made of the same ingredients."""

_ID_DIGITS = 8


class Ingredients:
    """Keys of an episode's ``rows`` and ``videos``, the ``sources``' SHA-256, and the dataset's ``id``.

    Raises:
        UserError: a source's file is missing or cannot be read.
    """

    def __init__(self, plan: Plan, parts: Parts) -> None:
        self.sources: dict[Path, str] = {}
        for planned in plan.episodes:
            episode = planned.episode
            files = [("video", episode.videos[camera].path) for camera in plan.cameras]
            for what, file in [("rows", episode.data), *files]:
                if file not in self.sources:
                    self.sources[file] = _hash(parts.hashes, file, f"episode {episode.index}", what)
        self._plan = plan
        features = json.dumps(plan.features, sort_keys=True)
        self._common = (_VERSION, version("lerobot"), plan.fps, features)
        self.rows = [self._rows(index, planned) for index, planned in enumerate(plan.episodes)]
        self.videos = [
            {camera: self._video(planned, camera) for camera in plan.cameras} for planned in plan.episodes
        ]
        self.id = key(self.rows, self.videos, plan.tasks, plan.robot, plan.name)[:_ID_DIGITS]

    def _rows(self, index: int, planned: Planned) -> str:
        done = planned.done.tobytes() if planned.done is not None else b""
        stands = (index, planned.start, self._plan.tasks.index(planned.task))
        source = (self.sources[planned.episode.data], planned.episode.index)
        return key("rows", self._common, source, stands, planned.reward.tobytes(), done)

    def _video(self, planned: Planned, camera: str) -> str:
        part = planned.episode.videos[camera]
        source = (self.sources[part.path], part.start_s, planned.episode.length)
        described = json.dumps(planned.dataset.features[camera].get("info"), sort_keys=True)
        cut = self._plan.cuts.get(camera)
        return key("video", self._common, source, described, cut and (cut, len(planned.reward)))


def _hash(hashes: Hashes, file: Path, episode: str, what: str) -> str:
    try:
        return hashes.of(file)
    except OSError as e:
        said = "missing" if isinstance(e, FileNotFoundError) else f"not readable ({e.strerror})"
        raise UserError(
            f"{file}: {episode}: its {what} {'are' if what == 'rows' else 'is'} {said}; copy the dataset "
            "again or leave that episode out"
        ) from e
