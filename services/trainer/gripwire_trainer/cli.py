"""`gripwire trainer ...`"""

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.settings import Settings

_OUTCOME_S = 30.0
"""To wait for what the reward service makes of an offer."""

app = typer.Typer(
    no_args_is_help=True, help="From label files to a verified bundle, offered to the reward service."
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="DATASET|MERGE.json", help="A merge or label file, or a dataset with next.reward."
    ),
]


@app.command()
def run(config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None) -> None:
    """Run the trainer service in the foreground: it trains on the Train command."""
    from gripwire import service
    from gripwire_trainer.service import TrainerService

    raise typer.Exit(service.run("trainer", options.load(config, data, port_base), TrainerService))


@app.command()
def build(
    merge: Annotated[
        Path, typer.Argument(metavar="MERGE.json", help="A merge file, or the labels of one dataset.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="NAME", help="Under the data folder's datasets/; the merge's name."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the dataset of that name.")] = False,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Write the reward dataset: the labelled episodes with next.reward, in LeRobot v3.0."""
    from gripwire import service
    from gripwire_trainer import labels
    from gripwire_trainer.build import build as build_dataset
    from gripwire_trainer.build import sweep

    # A temporary folder goes with its process, also when that is told to end, and the process goes with the
    # trainer that started it, if one did.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    service._die_with_supervisor()
    settings = options.load(config, data)
    parsed = labels.read(merge)
    if replace and not out:
        raise UserError("--replace needs --out NAME: say which dataset is to be overwritten")
    target = settings.data / "datasets" / _safe(out or parsed.name)
    sweep(settings.data / "datasets")
    start = time.monotonic()
    summary = build_dataset(parsed, target, replace, None if as_json else _bar("build"))
    summary["seconds"] = round(time.monotonic() - start, 2)
    if as_json:
        options.emit(summary)
    else:
        typer.echo(
            f"{summary['episodes']} episodes, {summary['frames']} frames ({summary['success_frames']} "
            f"success) -> {target}"
        )


@app.command()
def train(
    target: Target,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    offer: Annotated[
        bool, typer.Option("--offer", help="Offer the bundle to the running reward service.")
    ] = False,
    label_every: Annotated[
        int | None, typer.Option(help="Labels were read off every so many frames; 1: every frame.")
    ] = None,
    views: Annotated[int | None, typer.Option(help="Augmented views of each frame, itself included.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the split and the weights.")] = None,
    build_dataset: Annotated[
        bool | None, typer.Option("--build/--no-build", help="Also write the reward dataset.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train a classifier, judge it on held-out episodes and write a bundle."""
    settings = options.load(
        config, data, port_base, trainer__label_every=label_every, trainer__views=views, trainer__seed=seed,
        trainer__build=build_dataset,
    )  # fmt: skip
    from gripwire_trainer import job
    from gripwire_trainer.settings import TrainerSettings

    task = job.Task(_target(target, settings), settings.data, settings.section("trainer", TrainerSettings))
    say = _quiet if as_json else _Progress()
    result = job.run(task, say, _offer(settings) if offer else None, _sealed)
    summary = {"bundle": result.bundle.id, "path": str(result.bundle.path), "metrics": result.metrics,
               "seconds": result.seconds, "dataset": result.dataset}  # fmt: skip
    if as_json:
        options.emit(summary)
    else:
        _print_result(result)
    if result.failures:  # after the summary: the bundle is there and must not be lost
        raise UserError("; ".join(result.failures))


def _target(name: str, settings: Settings) -> Path:
    """A label file or dataset as a person names it.

    Raises:
        UserError: nothing of that name.
    """
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        for path in (
            Path(name).expanduser(),
            settings.data / "labels" / name,
            settings.data / "labels" / f"{name}.json",
            settings.data / "datasets" / name,
        ):
            if path.exists():
                return path
    raise UserError(
        f"{name[:80]}: no such label file or dataset, neither as a path nor under {settings.data}/labels or "
        f"{settings.data}/datasets; check the name"
    )


def _offer(settings: Settings) -> Any:
    """Offers a bundle and waits for the reward service's verdict, as `gripwire reward swap` does."""
    from gripwire.messages import Offer
    from gripwire_reward.ask import ask

    def offer(bundle: str) -> None:
        try:
            ask(settings, Offer(bundle=bundle), _OUTCOME_S)
        except UserError as e:
            raise UserError(f"{e}; `gripwire reward swap {bundle}` offers it again") from e

    return offer


def _sealed(bundle: str) -> None:
    """At once: whatever happens to this command now, the id has been seen."""
    print(f"bundle    {bundle} written", file=sys.stderr, flush=True)


def _safe(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.strip():
        raise UserError(
            f"--out {name!r}: a name under the data folder's datasets/ is due, not a path elsewhere"
        )
    return name


def _quiet(stage: str, part: float, metrics: dict[str, float]) -> None:
    pass


def _bar(stage: str) -> Any:
    progress = _Progress()
    return lambda part: progress(stage, part, {})


class _Progress:
    """One line per stage, rewritten in place on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._stage = ""

    def __call__(self, stage: str, part: float, metrics: dict[str, float]) -> None:
        if stage != self._stage:
            self._stage, self._start = stage, time.monotonic()
        spent = time.monotonic() - self._start
        left = f", {spent / part - spent:.0f} s left" if 0.02 < part < 1 else ""
        line = f"{stage:<9} {part:4.0%}  {spent:5.1f} s{left}"
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="\n" if part >= 1 else "", file=sys.stderr, flush=True)
        elif part >= 1:
            print(line, file=sys.stderr, flush=True)


def _print_result(result: Any) -> None:
    m = result.metrics
    typer.echo(f"bundle {result.bundle.id}   {result.bundle.path}")
    typer.echo(
        f"held out: {m['frame_accuracy']:.2%} of frames right (always fail: "
        f"{m['always_fail_accuracy']:.2%}), "
        f"false successes {m['false_success_rate']:.1%} of failed episodes, AUROC {m['auroc']:.4f}"
    )
    if result.dataset:
        typer.echo(f"reward dataset {result.dataset}")
    typer.echo(f"report {result.bundle.path / 'report.html'}")
