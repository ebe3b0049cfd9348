"""Labels held against their datasets: how much there is, what is wrong, and what is worth a look."""

from dataclasses import dataclass, field
from pathlib import Path

from gripwire.errors import UserError
from gripwire_reward.datasets import Dataset, open_dataset
from gripwire_trainer import labels
from gripwire_trainer.labelling.damage import damage
from gripwire_trainer.labelling.doubt import Doubt, coarse, doubts


@dataclass(frozen=True)
class Row:
    """One source in figures: episodes and frames that count."""

    file: Path
    dataset: Path
    episodes: int
    skipped: int
    frames: int
    success_frames: int
    reading_step: int


@dataclass
class Report:
    """What a check found. The labels can be trained on when there are no ``errors``."""

    rows: list[Row] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    doubtful: list[Doubt] = field(default_factory=list)
    reading_step: int = 1


def check(file: Path) -> Report:
    """Hold a label or merge file against the datasets it speaks of; all errors are gathered.

    Raises:
        UserError: the file itself, or a source it names, cannot be read as labels.
    """
    read = labels.read(file)
    report = Report(reading_step=labels.reading_step(read.sources))
    opened: list[Dataset] = []
    for source in read.sources:
        try:
            dataset = open_dataset(source.dataset)
        except UserError as e:
            report.errors.append(f"{source.file}: `dataset_path`: {e}")
            continue
        _check_source(source, dataset, report)
        opened.append(dataset)
    report.errors += _unlike(opened)
    report.doubtful = [*_of_all(file, report), *report.doubtful]
    return report


def _check_source(source: labels.Source, dataset: Dataset, report: Report) -> None:
    lengths = {number: episode.length for number, episode in dataset.episodes.items()}
    errors, success = [], {}
    for episode in source.excluded:
        try:
            labels.check_known(source, episode, lengths, labels.EXCLUDED)
        except UserError as e:
            errors.append(str(e))
    for episode in source.episodes:
        try:
            success[episode] = labels.episode_truth(source, episode, lengths)
        except UserError as e:
            errors.append(str(e))
    report.errors += errors + damage(dataset, sorted(success))
    good = labels.Source(source.file, source.dataset, {n: source.episodes[n] for n in success})
    step = labels.reading_step([source])
    report.doubtful += doubts(good, lengths, max(step, report.reading_step))
    report.rows.append(
        Row(
            file=source.file,
            dataset=source.dataset,
            episodes=len(success),
            skipped=len(lengths) - len(success),
            frames=sum(len(s) for s in success.values()),
            success_frames=sum(int(s.sum()) for s in success.values()),
            reading_step=step,
        )
    )


def _unlike(datasets: list[Dataset]) -> list[str]:
    """Cameras and rate must be the same in all sources of a merge."""
    out = []
    for other in datasets[1:]:
        first = datasets[0]
        if other.fps != first.fps:
            out.append(
                f"{other.path} has {other.fps:g} frames per second, {first.path} {first.fps:g}; "
                "merge only like with like"
            )
        if other.cameras != first.cameras:
            out.append(
                f"{other.path} has other cameras ({_cameras(other)}) than {first.path} ({_cameras(first)}); "
                "merge only like with like"
            )
    return out


def _cameras(dataset: Dataset) -> str:
    return ", ".join(f"{k} {w}x{h}" for k, (h, w) in sorted(dataset.cameras.items())) or "none"


def _of_all(file: Path, report: Report) -> list[Doubt]:
    """What is said of the file as a whole, before the places in it."""
    if report.reading_step > 1:
        out = coarse(file, report.reading_step)
    else:
        out = [doubt for row in report.rows for doubt in coarse(row.file, row.reading_step)]
    frames, success = sum(r.frames for r in report.rows), sum(r.success_frames for r in report.rows)
    missing = "success" if success == 0 else "failure" if success == frames else ""
    if missing and not report.errors:
        out.insert(0, Doubt(file, f"no {missing} at all: training will refuse it"))
    return out
