"""Label files in the standard format, written from the bench's truth as a person would from the pictures."""

import json
from pathlib import Path
from typing import Any

from gripwire.errors import UserError
from gripwire.files import write_whole


def episode_label(success: list[bool]) -> dict[str, Any] | None:
    """One episode's rows as a label: None (all failure), ``success_start``, or ``ranges``, ends inclusive."""
    ranges: list[list[int | None]] = []
    for i, now in enumerate(success):
        if now and (i == 0 or not success[i - 1]):
            ranges.append([i, None])
        elif not now and i and success[i - 1]:
            ranges[-1][1] = i - 1
    if not ranges:
        return None
    if len(ranges) == 1 and ranges[0][1] is None:
        return {"success_start": ranges[0][0]}
    return {"ranges": ranges}


def rows_by_episode(dataset: Path, camera: str) -> dict[int, list[int]]:
    """Per episode the exposure number of ``camera`` in every row, from a dataset that the recorder wrote."""
    import pyarrow.parquet as pq

    files = sorted((dataset / "data").glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{dataset}: no recorded rows there; did the recorder save any episode?")
    rows: dict[int, list[int]] = {}
    exposures = f"gripwire.{camera}.exposure"
    for file in files:
        table = pq.read_table(file, columns=["episode_index", exposures]).to_pydict()
        for episode, exposure in zip(table["episode_index"], table[exposures], strict=True):
            rows.setdefault(episode, []).append(exposure[0] if isinstance(exposure, list) else exposure)
    return rows


def write(labels: Path, datasets: list[Path], camera: str, grasped: dict[int, bool], name: str) -> Path:
    """A source file per dataset and the merge file ``name``; the merge file's path.

    Raises:
        UserError: a recorded row whose exposure the bench does not remember.
    """
    for dataset in datasets:
        episodes: dict[str, Any] = {}
        for episode, exposures in sorted(rows_by_episode(dataset, camera).items()):
            unknown = [e for e in exposures if e not in grasped]
            if unknown:
                raise UserError(
                    f"{dataset}: episode {episode} has pictures the bench has no truth for "
                    f"(exposure {unknown[0]}): was the bench restarted while it was recorded? Record it anew"
                )
            episodes[str(episode)] = episode_label([grasped[e] for e in exposures])
        source = {"dataset_path": f"../datasets/{dataset.name}", "episodes": episodes}
        write_whole(labels / f"{dataset.name}.json", json.dumps(source, indent=2) + "\n")
    merge = {"output_repo_id": f"bench/{name}", "sources": [dataset.name for dataset in datasets]}
    path = labels / f"{name}.json"
    write_whole(path, json.dumps(merge, indent=2) + "\n")
    return path
