"""Has the pictures of each episode in the dataset: a link, else a copy, else made anew."""

from itertools import islice
from pathlib import Path
from typing import Any

import av

from gripwire.errors import UserError
from gripwire_reward.datasets import frames
from gripwire_trainer.datasets import layout, pictures, videos
from gripwire_trainer.datasets.ingredients import Ingredients
from gripwire_trainer.datasets.parts import Parts
from gripwire_trainer.datasets.pictures import Stats
from gripwire_trainer.datasets.plan import Plan, Planned


class Footage:
    """The videos of a dataset under way in the folder ``root``; several episodes may share one file.

    ``restamped`` says which videos were not taken as they are, and why; ``encoded`` those that were cropped.
    """

    def __init__(self, plan: Plan, made_of: Ingredients, parts: Parts, root: Path) -> None:
        self._plan, self._made_of, self._parts, self._root = plan, made_of, parts, root
        self._numbers: dict[str, dict[str, int]] = {camera: {} for camera in plan.cameras}
        self._times: dict[Path, videos.Times] = {}
        self._even: dict[Path, str] = {}
        self._told: dict[Path, dict[tuple[int, str], Stats]] = {}
        self.infos: dict[str, dict[str, dict[str, Any]]] = {camera: {} for camera in plan.cameras}
        self.copied, self.linked = 0, 0
        self.restamped: list[str] = []
        self.encoded: list[str] = []

    def place(self, index: int, camera: str) -> tuple[dict[str, Any], Stats]:
        """Have an episode's pictures in the dataset; where LeRobot finds them, and their statistics.

        Raises:
            UserError: the video is damaged. OSError: the dataset cannot be written.
        """
        planned, ingredients = self._plan.episodes[index], self._made_of.videos[index][camera]
        record = self._parts.record(ingredients)
        if record is None or not self._take(planned, camera, record["content"]):
            record = self._make(planned, camera)
            self._parts.note(ingredients, record)
        self.infos[camera].setdefault(record["content"], record["info"])
        place = layout.place(f"videos/{camera}", self._numbers[camera][record["content"]])
        place[f"videos/{camera}/from_timestamp"] = record["start_s"]
        place[f"videos/{camera}/to_timestamp"] = record["start_s"] + len(planned.reward) / self._plan.fps
        return place, pictures.arrays(record["stats"])

    def _take(self, planned: Planned, camera: str, content: str) -> bool:
        """Have the file of that SHA-256 in the dataset; False when it is no source's and has to be made."""
        source = planned.episode.videos[camera].path
        if content in self._numbers[camera]:
            return True
        file = self._next_file(camera)
        if self._parts.link(content, file):
            self.linked += 1
        elif content == self._made_of.sources[source]:
            videos.copy(source, file)
            if self._parts.hashes.of(source) != content:
                raise UserError(f"{source}: it changed while it was copied; try again when it is whole")
            self._parts.share(content, file)
            self.copied += 1
        else:
            return False
        self._numbers[camera][content] = len(self._numbers[camera])
        return True

    def _make(self, planned: Planned, camera: str) -> dict[str, Any]:
        """Look into a video for the first time and have what comes of it in the dataset; the record of it."""
        episode, source = planned.episode, planned.episode.videos[camera].path
        where = f"{source}: episode {episode.index}"
        if source not in self._times:
            self._times[source] = videos.picture_times(source, where)
        times = self._times[source]
        first = videos.first_picture(times, planned.dataset, episode, camera, where)
        if camera in self._plan.cuts:
            return self._cut_out(planned, camera, source)
        if videos.is_even(times[first : first + episode.length], self._plan.fps):
            content, start_s = self._made_of.sources[source], float(times[first])
            self._take(planned, camera, content)
        else:
            content, start_s = self._restamp(source, camera, where), first / self._plan.fps
        told = self._told_by(planned).get((episode.index, camera))
        stats = told or pictures.by_looking(frames(planned.dataset, episode, camera), episode.length)
        return self._record(planned, camera, content, start_s, stats)

    def _restamp(self, source: Path, camera: str, where: str) -> str:
        """Have a copy with even time stamps in the dataset; its SHA-256."""
        if source in self._even:
            return self._even[source]
        file = self._next_file(camera)
        try:
            videos.copy_evenly(source, file, self._plan.fps)
        except av.FFmpegError as e:
            videos.raise_if_full(e, file)
            raise UserError(f"{where}: the video cannot be copied ({e}); leave that episode out") from e
        self.restamped.append(
            f"{source}: its pictures do not come at {self._plan.fps:g} a second sharp, where LeRobot looks "
            "for them; copied with even time stamps, not encoded again"
        )
        self._even[source] = self._adopt(file, camera)
        return self._even[source]

    def _cut_out(self, planned: Planned, camera: str, source: Path) -> dict[str, Any]:
        """Put the pictures, cropped and resized, into the dataset; the record of them."""
        from gripwire_trainer.datasets import writer

        cut, file = self._plan.cuts[camera], self._next_file(camera)
        shown = islice(frames(planned.dataset, planned.episode, camera), len(planned.reward))
        seen = writer.cut_out(shown, cut.box, cut.size)
        try:
            videos.encode(seen, file, self._plan.fps)
        except av.FFmpegError as e:
            videos.raise_if_full(e, file)
            raise
        self.encoded.append(str(source))
        stats = pictures.by_looking(iter(seen), len(seen))
        return self._record(planned, camera, self._adopt(file, camera), 0.0, stats)

    def _adopt(self, file: Path, camera: str) -> str:
        """Count a file that was made under the next number, unless there is one like it; its SHA-256."""
        content = self._parts.hashes.of(file)
        if content in self._numbers[camera]:
            file.unlink()
        else:
            self._parts.share(content, file)
            self._numbers[camera][content] = len(self._numbers[camera])
        return content

    def _record(
        self, planned: Planned, camera: str, content: str, start_s: float, stats: Stats
    ) -> dict[str, Any]:
        from gripwire_trainer.datasets import writer

        as_it_is = camera not in self._plan.cuts
        described = (planned.dataset.features[camera].get("info") or {}) if as_it_is else {}
        file = layout.file(self._root, f"videos/{camera}", self._numbers[camera][content], "mp4")
        info = writer.video_info(file, described)
        return {"content": content, "start_s": start_s, "info": info, "stats": pictures.plain(stats)}

    def _told_by(self, planned: Planned) -> dict[tuple[int, str], Stats]:
        path = planned.dataset.path
        if path not in self._told:
            self._told[path] = pictures.of_source(planned.dataset)
        return self._told[path]

    def _next_file(self, camera: str) -> Path:
        return layout.file(self._root, f"videos/{camera}", len(self._numbers[camera]), "mp4")
