"""`gripwire labels ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gripwire.cli import options

app = typer.Typer(no_args_is_help=True, help="Label files: check them against their datasets.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A label file or a merge file.")],
    as_json: options.Json = False,
) -> None:
    """Validate labels against the datasets they speak of. Exit code 0 only when all is right."""
    from gripwire_reward.datasets import open_dataset
    from gripwire_trainer import labels

    rows: list[dict[str, Any]] = []
    for source in labels.read(file).sources:
        dataset = open_dataset(source.dataset)
        lengths = {number: episode.length for number, episode in dataset.episodes.items()}
        marks = labels.truth(source, lengths)
        frames = sum(len(m) for m in marks.values())
        success = sum(int(m.sum()) for m in marks.values())
        rows.append(
            {
                "file": str(source.file),
                "dataset": str(source.dataset),
                "episodes": len(marks),
                "skipped": len(lengths) - len(marks),
                "frames": frames,
                "success_frames": success,
                "doubtful": [
                    f"episode {n}: frame {a} alone"
                    for n, r in source.episodes.items()
                    for a, b in r
                    if a == b
                ],
            }
        )
    if as_json:
        options.emit({"sources": rows})
        return
    for row in rows:
        share = row["success_frames"] / max(1, row["frames"])
        typer.echo(
            f"{Path(row['file']).name}: {row['episodes']} episodes ({row['skipped']} skipped), "
            f"{row['frames']} frames, {share:.1%} success"
        )
        for place in row["doubtful"]:
            typer.echo(f"  doubtful: {place}")
