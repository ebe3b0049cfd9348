"""Text labels to JSON: a source file per dataset, and a merge file that names them."""

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gripwire.errors import UserError
from gripwire_trainer.labelling.text import Section, parse
from gripwire_trainer.labelling.write_together import write_together

NAMESPACE = "local"


@dataclass(frozen=True)
class Imported:
    """What was written; ``datasets`` are the folders the sources speak of."""

    merge: Path
    sources: list[Path]
    datasets: list[Path]
    episodes: int


def import_text(text: Path, out: Path, every: int = 1, replace: Collection[str] = ()) -> Imported:
    """Write the merge file ``out``, and beside it a source file for each dataset of the text form.

    All of it is written, or nothing. Files that are there already are kept, unless ``replace`` names them.

    Raises:
        UserError: the text is wrong (file and line), a file is there already, or cannot be written.
    """
    sections = parse(text, every)
    datasets = [_dataset(text, section) for section in sections]
    for i, dataset in enumerate(datasets):
        if dataset in datasets[:i]:
            raise UserError(
                f"{text}:{sections[i].line}: {sections[i].path} is the same dataset as "
                f"{sections[datasets.index(dataset)].path}; put its episodes together"
            )
    stems = _stems(datasets, taken=out.stem)
    files = {
        out.with_name(f"{stem}.json"): _source(section, dataset, out.parent)
        for stem, section, dataset in zip(stems, sections, datasets, strict=True)
    }
    sources = list(files)
    # Last: a merge file never names a source that is not there.
    files[out] = {"output_repo_id": f"{NAMESPACE}/{_repo_name(out.stem)}", "sources": stems}
    _refuse_existing(files, replace)
    write_together({path: json.dumps(value, indent=2) + "\n" for path, value in files.items()})
    return Imported(out, sources, datasets, sum(len(s.episodes) for s in sections))


def _dataset(text: Path, section: Section) -> Path:
    """The dataset's folder. The last part may be a link, and is then kept as one."""
    try:
        path = text.resolve().parent / Path(section.path).expanduser()
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as e:
        raise UserError(f"{text}:{section.line}: {section.path[:80]} leads nowhere ({e}); correct it") from e


def _source(section: Section, dataset: Path, folder: Path) -> dict[str, Any]:
    return {
        "dataset_path": _written(section.path, dataset, folder),
        "episodes": {str(number): _label(ranges) for number, ranges in sorted(section.episodes.items())},
    }


def _written(path: str, dataset: Path, folder: Path) -> str:
    """Relative stays relative, so that datasets and labels can move together, if they share any folder."""
    if Path(path).expanduser().is_absolute():
        return str(dataset)
    folder = folder.resolve()
    if os.path.commonpath([dataset, folder]) == dataset.anchor:
        return str(dataset)
    return os.path.relpath(dataset, folder)


def _label(ranges: list[tuple[int, int | None]]) -> dict[str, Any] | None:
    if not ranges:
        return None
    if len(ranges) == 1 and ranges[0][1] is None:
        return {"success_start": ranges[0][0]}
    return {"ranges": [list(span) for span in ranges]}


def _stems(datasets: list[Path], taken: str) -> list[str]:
    """A file name for each dataset: its folder's, with as many folders above as make it unlike all others."""
    out: list[str] = []
    for dataset in datasets:
        parts = [part for part in dataset.parts if part != dataset.anchor] or ["dataset"]
        names = ["_".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = {other.name for other in datasets if other != dataset}
        used = {*out, taken}
        free = (n for n in names if n not in used and (n != names[0] or n not in others))
        out.append(
            next(free, None) or next(n for i in range(2, 999) if (n := f"{names[-1]}_{i}") not in used)
        )
    return out


def _repo_name(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", stem).lstrip("_.-") or "labels"


def _refuse_existing(files: Collection[Path], replace: Collection[str]) -> None:
    names = [path.name for path in files]
    for name in replace:
        if name not in names:
            raise UserError(f"--replace {name}: that file is not written; these are: {', '.join(names)}")
    for path in files:
        if path.is_dir():
            raise UserError(f"{path}: a folder; name a file, such as --out {path / 'all.json'}")
    there = [path for path in files if path.name not in replace and os.path.lexists(path)]
    if there:
        flags = " ".join(f"--replace {path.name}" for path in there)
        raise UserError(
            f"{', '.join(map(str, there))}: already there and not overwritten unasked, nothing was written; "
            f"choose an --out in another folder, or add {flags}"
        )
