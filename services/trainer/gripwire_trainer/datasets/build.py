"""Builds a reward dataset, or demonstrations, so that only what changed since the last build costs anything.

What a dataset will be is known before any of it is made: from the sources' hashes and the labels. So one of
the same content is simply found. Otherwise unchanged videos are links, unchanged rows are copies of what is
kept under cache/, and a changed label makes its own episode's rows anew.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gripwire.errors import UserError
from gripwire_trainer.datasets import layout, pictures, plan
from gripwire_trainer.datasets.demonstrations import Demonstrations
from gripwire_trainer.datasets.footage import Footage
from gripwire_trainer.datasets.ingredients import Ingredients
from gripwire_trainer.datasets.parts import Parts
from gripwire_trainer.datasets.plan import Plan
from gripwire_trainer.datasets.publish import published, sweep
from gripwire_trainer.labels import Labels

if TYPE_CHECKING:
    from gripwire_trainer.datasets.writer import EpisodeStats

PROVENANCE = "gripwire_build.json"
"""Beside LeRobot's description, in meta/."""

Progress = Callable[[float], None]


@dataclass
class Summary:
    """What was built. ``found``: it was there already. Rows and videos are counted in files."""

    dataset: str
    id: str
    episodes: int
    frames: int
    success_frames: int
    found: bool = False
    rows_made: int = 0
    videos_copied: int = 0
    videos_linked: int = 0
    videos_restamped: list[str] = field(default_factory=list)
    videos_encoded: list[str] = field(default_factory=list)
    codecs: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """For a person: what is where, and what was done to have it there."""
        success = f"{self.success_frames} success"
        lines = [f"{self.episodes} episodes, {self.frames} frames ({success}) -> {self.dataset}"]
        if self.found:
            lines.append("it was there already, of the same content")
        else:
            kinds = ", ".join(sorted({codec for found in self.codecs.values() for codec in found}))
            lines.append(f"rows     of {self.rows_made} episodes written anew")
            lines.append(
                f"videos   {self.videos_linked} linked, {self.videos_copied} copied as they are "
                f"({kinds or 'none'})"
            )
        if self.videos_encoded:
            lines.append(f"         {len(self.videos_encoded)} encoded again, for their crop and size")
        lines += [f"         {why}" for why in self.videos_restamped]
        if self.left_out:
            why = "not alike in all sources, or neither video nor numbers nor text"
            lines.append(f"columns  left out: {', '.join(self.left_out)} ({why})")
        return "\n".join(lines)


def build(
    merge: Labels,
    data: Path,
    name: str | None = None,
    replace: bool = False,
    demonstrations: Demonstrations | None = None,
    progress: Progress = lambda part: None,
) -> Summary:
    """Write the labelled episodes of all sources as one dataset under ``data``/datasets.

    Without a ``name`` its folder is named after the merge and what it is made of. Sources are read in place
    and never changed. The dataset appears whole or not at all; one that is there already is kept unless
    ``replace`` asks for it by name, and then until the new one is complete. ``progress`` may raise to give
    up.

    Raises:
        UserError: bad labels, sources that do not fit together or are damaged, an existing dataset, or a
            full disk.
    """
    parts = Parts(data / "cache" / "datasets")
    lock = parts.root / ".lock"
    if name and (data / "datasets" / name).exists() and not replace:
        raise UserError(
            f"{data / 'datasets' / name} exists already and is never overwritten unasked; choose another "
            "--out NAME, or add --replace"
        )
    sweep(data / "datasets", lock)
    planned = plan.make(merge, demonstrations)
    made_of = Ingredients(planned, parts)
    parts.hashes.save()
    kind = "-demonstrations" if demonstrations else ""
    out = data / "datasets" / (name or f"{merge.name}{kind}-{made_of.id}")
    summary = _summary(planned, out, made_of.id)
    if _is_there(out, made_of.id, replace):
        summary.found = True
        return summary
    try:
        with published(out, replace, lock) as aside:
            _write(planned, made_of, parts, aside, merge, summary, progress)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e.strerror or e}); check that folder") from e
    except UserError:
        if name or not _is_there(out, made_of.id, replace):
            raise
        summary.found = True  # another build of the same was quicker
    finally:
        parts.tidy()  # also of what a build left that a full disk ended
        parts.hashes.save()
    return summary


def _summary(planned: Plan, out: Path, identity: str) -> Summary:
    rewards = np.concatenate([episode.reward for episode in planned.episodes])
    summary = Summary(str(out), identity, len(planned.episodes), len(rewards), int(rewards.sum()))
    summary.left_out = planned.left_out
    if not rewards.any():
        summary.warnings.append("no frame is labelled success: nothing can be learned from that alone")
    elif rewards.all():
        summary.warnings.append("every frame is labelled success: nothing can be learned from that alone")
    return summary


def _is_there(out: Path, identity: str, replace: bool) -> bool:
    """Whether ``out`` is what is to be built.

    Raises:
        UserError: it was, somebody changed it since, and it is not to be replaced.
    """
    try:
        provenance = json.loads((out / "meta" / PROVENANCE).read_text())
        same, files = provenance["id"] == identity, provenance["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if same and files == _files(out):
        return True
    if same and not replace:
        raise UserError(
            f"{out} was built of these labels and has been changed since; choose an --out NAME, or remove it"
        )
    return False


def _write(
    planned: Plan,
    made_of: Ingredients,
    parts: Parts,
    root: Path,
    merge: Labels,
    summary: Summary,
    progress: Progress,
) -> None:
    """Write all of the dataset into the empty folder ``root``, and what it took into ``summary``.

    Raises:
        UserError: a source is damaged. OSError: the folder cannot be written.
    """
    from gripwire_trainer.datasets import writer

    root.rmdir()  # LeRobot wants to make it
    meta = writer.create(root, planned)
    footage = Footage(planned, made_of, parts, root)
    places: list[dict[str, Any]] = []
    stats: list[EpisodeStats] = []
    for index, episode in enumerate(planned.episodes):
        found, made = _write_rows(planned, made_of, parts, root, index)
        summary.rows_made += made
        place: dict[str, Any] = layout.place("data", index)
        place["dataset_from_index"] = episode.start
        place["dataset_to_index"] = episode.start + len(episode.reward)
        for camera in planned.cameras:
            where, found[camera] = footage.place(index, camera)
            place |= where
        places.append(place)
        stats.append(found)
        progress((index + 1) / len(planned.episodes))
    infos = {camera: list(seen.values()) for camera, seen in footage.infos.items()}
    writer.describe(meta, planned, places, stats, infos)
    _tell_provenance(planned, made_of.id, merge, root)
    summary.videos_copied, summary.videos_linked = footage.copied, footage.linked
    summary.videos_restamped, summary.videos_encoded = footage.restamped, footage.encoded
    summary.codecs = {
        camera: sorted({str(info.get("video.codec")) for info in seen}) for camera, seen in infos.items()
    }


def _write_rows(
    planned: Plan, made_of: Ingredients, parts: Parts, root: Path, index: int
) -> tuple["EpisodeStats", bool]:
    """Write an episode's rows; their statistics, and whether they had to be made."""
    from gripwire_trainer.datasets import writer

    record = parts.record(made_of.rows[index])
    data = parts.rows(record["content"]) if record else None
    kept = record is not None and data is not None
    if record is None or data is None:
        table = writer.rows(planned, index)
        data = writer.save_rows(table)
        found = {key: pictures.plain(s) for key, s in writer.statistics(table, planned).items()}
        record = {"content": parts.keep_rows(data), "stats": found}
        parts.note(made_of.rows[index], record)
    layout.file(root, "data", index, "parquet").write_bytes(data)
    return {key: pictures.arrays(stats) for key, stats in record["stats"].items()}, not kept


def _tell_provenance(planned: Plan, identity: str, merge: Labels, root: Path) -> None:
    """Beside LeRobot's description: of what this was built, and what belongs to it."""
    taken = [
        {"dataset": str(e.dataset.path), "episode": e.episode.index, "frames": len(e.reward)}
        for e in planned.episodes
    ]
    demonstrations = any(e.done is not None for e in planned.episodes)
    told = {"id": identity, "demonstrations": demonstrations, "labels": str(merge.file),
            "episodes": taken, "left_out": planned.left_out, "files": _files(root)}  # fmt: skip
    (root / "meta" / PROVENANCE).write_text(json.dumps(told, indent=1))


def _files(root: Path) -> dict[str, int]:
    """The dataset's files and their sizes; those whose names begin with a dot do not belong to it."""
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != PROVENANCE)
    sizes = {path.relative_to(root): path.stat().st_size for path in found}
    return {str(p): size for p, size in sizes.items() if not any(name.startswith(".") for name in p.parts)}


def are_demonstrations(dataset: Path) -> bool:
    """Whether a dataset was built for HIL-SERL: its rewards say what the next picture shows."""
    with suppress(OSError, ValueError):
        return bool(json.loads((dataset / "meta" / PROVENANCE).read_text()).get("demonstrations"))
    return False
