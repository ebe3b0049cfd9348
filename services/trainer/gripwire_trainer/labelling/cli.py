"""`gripwire labels ...`"""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gripwire.cli import options
from gripwire.errors import UserError

if TYPE_CHECKING:
    from gripwire_trainer.labelling.check import Report, Row
    from gripwire_trainer.labelling.doubt import Doubt

_LARGEST = 4096

app = typer.Typer(
    no_args_is_help=True, help="Label files: check them, import older ones, see the frames to be labelled."
)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A label or merge file, or its name under the data folder's labels/."
        ),
    ],
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Hold labels against their datasets. Exit code 0 only when all is right; doubtful places are right."""
    from gripwire_trainer.labelling.check import check as check_labels

    report = check_labels(_label_file(file, options.load(config, data).data) or Path(file))
    if as_json:
        options.emit(_as_json(report))
    else:
        _print(report)
    for line in report.errors:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(1 if report.errors else 0)


def _label_file(name: str, data: Path) -> Path | None:
    """A label file as a person names it: a path, or a name under the data root's labels/."""
    return _first((Path(name), data / "labels" / name, data / "labels" / f"{name}.json"), Path.is_file)


def _first(paths: Iterable[Path], test: Callable[[Path], bool]) -> Path | None:
    for path in paths:
        with suppress(OSError):  # a name that no file can have
            if test(path):
                return path
    return None


def _as_json(report: "Report") -> dict[str, Any]:
    sources = [asdict(row) for row in report.rows]
    total = {key: sum(s[key] for s in sources) for key in ("episodes", "skipped", "frames", "success_frames")}
    return {"ok": not report.errors, "sources": sources, "total": total, "reading_step": report.reading_step,
            "errors": report.errors, "doubtful": [asdict(doubt) for doubt in report.doubtful]}  # fmt: skip


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("labels", overflow="fold")
    for name in ("episodes", "skipped", "frames", "success", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.file.stem, *_figures([row]))
    if len(report.rows) > 1:
        table.add_section()
        table.add_row("total", *_figures(report.rows), style="bold")
    Console().print(table)
    if report.doubtful:
        typer.echo("\ndoubtful places, worth a look:")
    for doubt in report.doubtful:
        typer.echo(f"  {_place(doubt)}: {doubt.why}")


def _figures(rows: "list[Row]") -> list[str]:
    frames, success = sum(r.frames for r in rows), sum(r.success_frames for r in rows)
    counts = (sum(r.episodes for r in rows), sum(r.skipped for r in rows), frames, success)
    return [*map(str, counts), f"{success / frames:.1%}" if frames else "–"]


def _place(doubt: "Doubt") -> str:
    place = doubt.file.name
    if doubt.episode is not None:
        place += f": episode {doubt.episode}"
    if doubt.frames is not None:
        first, last = doubt.frames
        place += f", frame {first}" if first == last else f", frames {first} to {last}"
    return place


@app.command("import")
def import_(
    text: Annotated[Path, typer.Argument(metavar="TEXTFILE", help="Lines such as `00: 34-`, frames from 1.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The merge file; its sources are written beside it.")
    ],
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Numbers count every K-th frame: n is frame (n-1)*K.")
    ] = 1,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            "--replace", metavar="NAME", help="Overwrite this file if it is there; may be repeated."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Turn the older text form into JSON: a source file per dataset, and the merge file that names them."""
    from gripwire_trainer.labelling.importing import import_text

    done = import_text(text, out, every, replace or ())
    for dataset in done.datasets:
        if not dataset.is_dir():
            typer.echo(f"note: {dataset} is not there (yet); the labels were written all the same", err=True)
    if as_json:
        options.emit(asdict(done))
        return
    several = "s" if len(done.datasets) > 1 else ""
    typer.echo(
        f"{done.episodes} episodes of {len(done.datasets)} dataset{several} -> {done.merge}, and beside it"
    )
    for source in done.sources:
        typer.echo(f"  {source.name}")
    typer.echo(f"next: gripwire labels check {done.merge}")


@app.command()
def frames(
    target: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A LeRobot dataset's folder or its name under the data folder's datasets/; or a label file, "
            "then success is marked.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder of its own.")],
    every: Annotated[int, typer.Option(min=1, metavar="K", help="Every K-th frame: 0, K, 2K ...")] = 1,
    episodes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Such as 0,3,7-9; all by default.")
    ] = None,
    crop: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(metavar="T L H W", help="In pixels; by default the trainer's crop, the central square."),
    ] = None,
    no_crop: Annotated[bool, typer.Option("--no-crop", help="The whole frame.")] = False,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Resized, e.g. 128 128 as the model has it; the crop's own size."),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(metavar="KEY", help="Of several cameras; by default the trainer's.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write episodes anew that are there.")] = False,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Extract frames as the model sees them, named by their true index, and a contact sheet per episode."""
    from gripwire_trainer.labelling import episode_frames, wanted_frames
    from gripwire_trainer.settings import TrainerSettings

    if crop and no_crop:
        raise UserError("--crop and --no-crop exclude each other; give one of them")
    if size and not all(0 < side <= _LARGEST for side in size):
        raise UserError(f"--size {size[0]} {size[1]}: height and width from 1 to {_LARGEST} pixels are due")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is half done goes with the process
    settings = options.load(config, data)
    own = settings.section("trainer", TrainerSettings)
    cut = wanted_frames.Cut(camera or own.camera or None, crop or own.crop, size, no_crop, own.interpolation)
    chosen = wanted_frames.numbers(episodes) if episodes else None
    root = settings.data
    if dataset := _first((Path(target), root / "datasets" / target), Path.is_dir):
        wanted = wanted_frames.of_dataset(dataset, out, cut, chosen)
    elif labels := _label_file(target, root):
        wanted = wanted_frames.of_labels(labels, out, cut, chosen)
    else:
        raise UserError(
            f"{target[:80]}: no dataset or label file of that name, neither as a path nor under "
            f"{root}/datasets or labels; check the name"
        )
    episode_frames.refuse_existing(out, wanted, replace)
    with _progress(sum(w.episode.length for w in wanted), as_json) as done:
        count = sum(episode_frames.extract(wanted, every, done))
    summary = {"out": out, "episodes": len(wanted), "frames": count, "sheets": [w.sheet for w in wanted]}
    if as_json:
        options.emit(summary)
    else:
        first = f", from {wanted[0].sheet} on" if wanted else ""
        typer.echo(f"{count} frames of {len(wanted)} episodes -> {out}\ncontact sheets beside them{first}")


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[], object]]:
    """A bar on stderr, if a person looks on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(
        BarColumn(), MofNCompleteColumn(), "frames", TimeRemainingColumn(), console=console, disable=hidden
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
