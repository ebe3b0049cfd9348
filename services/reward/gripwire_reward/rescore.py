"""Gives a dataset the rewards of another bundle: what a replay buffer needs after the model was changed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.files import folder_whole
from gripwire_reward.datasets import REWARD, Dataset, columns
from gripwire_reward.score import EpisodeScores

Kind = Literal["decision", "above", "probability"]


def rewards(scores: EpisodeScores, kind: Kind) -> NDArray[np.float32]:
    """The reward of each row (n,): 0 where the frame is not valid."""
    if kind == "probability":
        valid = np.array([not why for why in scores.reason])
        return np.where(valid, scores.probability, 0.0).astype(np.float32)
    return np.asarray(getattr(scores, kind), np.float32)


def changed_rows(dataset: Dataset, scores: Sequence[EpisodeScores], kind: Kind) -> int | None:
    """Rows whose reward is another than the dataset has; None where it has none."""
    if REWARD not in dataset.features:
        return None
    old = [columns(dataset.episodes[s.episode], [REWARD])[REWARD].reshape(-1) for s in scores]
    return sum(int((~np.isclose(rewards(s, kind), o)).sum()) for s, o in zip(scores, old, strict=True))


def write_dataset(
    dataset: Dataset, scores: Sequence[EpisodeScores], kind: Kind, model: str, out: Path
) -> None:
    """A copy of the dataset, in the same version, whose `next.reward` is that of the scores.

    Nothing else changes, but the statistics of that column; `meta/gripwire_rescore.json` names the model.

    Raises:
        UserError: ``out`` exists, the disk is full, or the dataset has no rewards to replace.
    """
    if REWARD not in dataset.features:
        raise UserError(
            f"{dataset.path}: it has no `{REWARD}` to replace; write the rewards to a file: --out X.parquet"
        )
    given = {s.episode: rewards(s, kind) for s in scores}
    with folder_whole(out) as aside:
        shutil.copytree(dataset.path, aside, dirs_exist_ok=True)
        for file in {episode.data for episode in dataset.episodes.values()}:
            _replace(aside / file.relative_to(dataset.path), given)
        _renew_statistics(aside, given)
        note = {"model": model, "reward": kind, "from": str(dataset.path)}
        (aside / "meta" / "gripwire_rescore.json").write_text(json.dumps(note, indent=1) + "\n")


def _replace(file: Path, given: dict[int, NDArray[np.float32]]) -> None:
    table = pq.read_table(file)
    episode, frame = (np.asarray(table[name]) for name in ("episode_index", "frame_index"))
    at, field = table.schema.get_field_index(REWARD), table.schema.field(REWARD)
    values = np.asarray(table[REWARD].to_pylist(), np.float64)
    flat = values.reshape(len(values), -1)
    for number, new in given.items():
        flat[episode == number, 0] = new[frame[episode == number]]
    column = pa.array(flat.tolist() if pa.types.is_nested(field.type) else flat[:, 0]).cast(field.type)
    pq.write_table(table.set_column(at, field, column), file)


def _statistics(values: NDArray[np.float32]) -> dict[str, list[float]]:
    """LeRobot's: of a column of one number."""
    numbers = {"min": values.min(), "max": values.max(), "mean": values.mean(), "std": values.std()}
    numbers |= {f"q{q:02d}": np.quantile(values, q / 100) for q in (1, 10, 50, 90, 99)}
    return {name: [float(number)] for name, number in numbers.items()} | {"count": [len(values)]}


def _renew_statistics(root: Path, given: dict[int, NDArray[np.float32]]) -> None:
    """Wherever the two versions keep them: for all rows, and by episode."""
    whole = root / "meta" / "stats.json"
    if whole.is_file():
        kept = json.loads(whole.read_text())
        kept[REWARD] = _like(kept.get(REWARD), _statistics(np.concatenate(list(given.values()))))
        whole.write_text(json.dumps(kept, indent=4))
    lines = root / "meta" / "episodes_stats.jsonl"
    if lines.is_file():
        entries = [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
        for entry in entries:
            new = _statistics(given[entry["episode_index"]])
            entry["stats"][REWARD] = _like(entry["stats"].get(REWARD), new)
        lines.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    for file in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        table = pq.read_table(file)
        by_episode = [_statistics(given[number]) for number in table["episode_index"].to_pylist()]
        for at, field in enumerate(table.schema):
            prefix, _, name = field.name.rpartition("/")
            if prefix == f"stats/{REWARD}" and name in by_episode[0]:
                column = pa.array([stats[name] for stats in by_episode]).cast(field.type)
                table = table.set_column(at, field, column)
        pq.write_table(table, file)


def _like(old: dict[str, Any] | None, new: dict[str, list[float]]) -> dict[str, list[float]]:
    """Those that the dataset's version of LeRobot keeps."""
    return {name: value for name, value in new.items() if old is None or name in old}
