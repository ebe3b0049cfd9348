"""Where a LeRobot v3.0 dataset has its files: numbered, in folders of a thousand."""

from pathlib import Path

_PER_FOLDER = 1000


def file(root: Path, what: str, number: int, ending: str) -> Path:
    """The file ``number`` of the dataset's folder ``what``; its folder is made."""
    chunk, index = divmod(number, _PER_FOLDER)
    found = root / what / f"chunk-{chunk:03d}" / f"file-{index:03d}.{ending}"
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def place(what: str, number: int) -> dict[str, int]:
    """The same as the description of an episode says it."""
    chunk, index = divmod(number, _PER_FOLDER)
    return {f"{what}/chunk_index": chunk, f"{what}/file_index": index}
