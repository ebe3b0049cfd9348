"""`gripwire trainer ...`"""

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.settings import Settings
from gripwire_trainer import cache_cli
from gripwire_trainer.interop import cli as lerobot_cli

_LOOK_AT = 5

app = typer.Typer(
    no_args_is_help=True, help="From label files to a verified bundle, offered to the reward service."
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="DATASET|MERGE.json", help="A merge or label file, or a dataset with next.reward."
    ),
]


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file; ./gripwire.toml if it exists. Or a LeRobot training JSON of a classifier.",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER",
        help="efficientnet-lite0 (default), scratch, or the folder of a transformers ResNet.",
    ),
]
LabelEvery = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Labels were read off every so many frames; auto: as they show."),
]
BuildDataset = Annotated[
    bool | None, typer.Option("--build/--no-build", help="Also write the reward dataset.")
]

app.add_typer(cache_cli.app, name="cache")
app.command("export-lerobot")(lerobot_cli.export_lerobot)
app.command("import-lerobot")(lerobot_cli.import_lerobot)


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    replay: options.Replay = None,
) -> None:
    """Run the trainer service in the foreground: it trains on the Train command."""
    from gripwire import service

    if replay is not None:
        raise UserError(
            f"{replay} cannot be played to the trainer: it reads nothing on the bus but commands; what it "
            "was asked is done again with `gripwire trainer train LABELS.json`, and `gripwire recorder run "
            f"--replay {replay}` makes episodes of a recording"
        )
    from gripwire_trainer.service import TrainerService

    raise typer.Exit(service.run("trainer", options.load(config, data, port_base), TrainerService))


@app.command(hidden=True)
def job(order: str) -> None:
    """What runs in a training's own container ([trainer] run_in = "container")."""
    from gripwire_trainer import contained

    raise typer.Exit(contained.work(order))


@app.command()
def build(
    merge: Annotated[
        Path, typer.Argument(metavar="MERGE.json", help="A merge file, or the labels of one dataset.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="NAME",
            help="Under the data folder's datasets/; else the merge's name and content.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the dataset of that name.")] = False,
    offline_rl: Annotated[
        bool,
        typer.Option("--offline-rl", help="Demonstrations for HIL-SERL: each episode up to its success."),
    ] = False,
    episodes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SOURCE:]0,3,7-9",
            help="Only these demonstrations; `successful`: those that succeed. May be given more than once.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Demonstrations cropped as [trainer] says and resized to that many pixels either way."
        ),
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Write the reward dataset: the labelled episodes with next.reward, in LeRobot v3.0."""
    from gripwire import service
    from gripwire_trainer import labels
    from gripwire_trainer.datasets.build import build as build_dataset
    from gripwire_trainer.datasets.demonstrations import Demonstrations
    from gripwire_trainer.settings import TrainerSettings

    # A temporary folder goes with its process, also when that is told to end, and the process goes with the
    # trainer that started it, if one did.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    service.die_with_supervisor()
    start = time.monotonic()
    settings = options.load(config, data)
    if replace and not out:
        raise UserError("--replace needs --out NAME: say which dataset is to be overwritten")
    if (episodes or size) and not offline_rl:
        raise UserError("--episodes and --size are for demonstrations: add --offline-rl, or leave them out")
    crop = settings.section("trainer", TrainerSettings).crop
    demonstrations = Demonstrations(episodes or (), size, crop) if offline_rl else None
    progress = (lambda part: None) if as_json else _bar("build")
    name = _safe(out) if out else None
    summary = build_dataset(labels.read(merge), settings.data, name, replace, demonstrations, progress)
    for warning in summary.warnings:
        print(f"warning: {merge}: {warning}", file=sys.stderr)
    if as_json:
        options.emit(summary.as_dict() | {"seconds": round(time.monotonic() - start, 2)})
    else:
        typer.echo(summary.as_text())


@app.command()
def train(
    target: Target,
    config: ConfigFile = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    offer: Annotated[
        bool, typer.Option("--offer", help="Offer the bundle to the running reward service.")
    ] = False,
    backbone: Backbone = None,
    label_every: LabelEvery = None,
    views: Annotated[int | None, typer.Option(help="Views of each frame, itself included.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the split and the weights.")] = None,
    build_dataset: BuildDataset = None,
    as_json: options.Json = False,
) -> None:
    """Train a classifier, judge it on held-out episodes and write a bundle."""
    settings, found, chosen = _asked(
        target, config, data, port_base, backbone=backbone, label_every=label_every, views=views, seed=seed,
        build=build_dataset,
    )  # fmt: skip
    from gripwire_trainer import job
    from gripwire_trainer.progress import Progress, quiet

    task = job.Task(found, settings.data, chosen)
    result = job.run(task, quiet if as_json else Progress(), _offer(settings) if offer else None, _sealed)
    summary = {"bundle": result.bundle.id, "path": str(result.bundle.path), "metrics": result.metrics,
               "seconds": result.seconds, "dataset": result.dataset}  # fmt: skip
    if as_json:
        options.emit(summary)
    else:
        _print_result(result)
    if result.failures:  # after the summary: the bundle is there and must not be lost
        raise UserError("; ".join(result.failures))


@app.command()
def watch(
    target: Target,
    config: ConfigFile = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    backbone: Backbone = None,
    label_every: LabelEvery = None,
    build_dataset: BuildDataset = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line, one line an event.")
    ] = False,
) -> None:
    """Train anew on every saved label, and offer what is not worse than what serves. Ctrl+C ends it."""
    settings, found, chosen = _asked(
        target, config, data, port_base, backbone=backbone, label_every=label_every, build=build_dataset
    )
    if found.is_dir():
        raise UserError(f"{target}: a dataset has no label file to watch; name its label or merge file")
    from gripwire_trainer import job
    from gripwire_trainer.progress import Progress, quiet
    from gripwire_trainer.watch import Watch

    task = job.Task(found, settings.data, chosen)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    say = quiet if as_json or not sys.stderr.isatty() else Progress()
    tell = _tell_json if as_json else _tell
    with contextlib.suppress(KeyboardInterrupt):
        Watch(task, settings, tell, say, stopping.is_set).run()


def _tell_json(event: str, what: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **what}), flush=True)


def _tell(event: str, what: dict[str, Any]) -> None:
    """One or two lines an event, each with the time of day."""
    lines = {
        "saved": lambda: [f"saved: {', '.join(what['files'])}"],
        "waiting": lambda: ["waiting for a saved label; Ctrl+C ends"],
        "refused": lambda: [f"error: {what['why']}"],
        "decided": lambda: [
            f"bundle {what['bundle']} {'offered' if what['offered'] else 'not offered'} after "
            f"{what['seconds']['to_offer'] or what['seconds']['all']:.1f} s"
            + (f": {what['why']}" if what["why"] else ""),
            *([f"it waits to serve: {what['waits']}"] if what["waits"] else []),
            *([f"reward dataset {what['dataset']}"] if what["dataset"] else []),
            *(f"error: {failure}" for failure in what["failures"]),
        ],
    }[event]()
    for line in lines:
        typer.echo(f"{datetime.now():%H:%M:%S}  {line}")


def _asked(
    target: str, config: Path | None, data: Path | None, port_base: int | None, **flags: Any
) -> tuple[Settings, Path, Any]:
    """Settings, target and `[trainer]` as a command's flags ask for, checked before the engine is imported. A
    LeRobot training configuration stands for gripwire.toml's [trainer] section, and flags beat it."""
    from gripwire_trainer.interop import training_config as lerobot_config
    from gripwire_trainer.settings import TrainerSettings

    of_lerobot = config is not None and lerobot_config.is_lerobot_config(config)
    settings = options.load(None if of_lerobot else config, data, port_base)
    values = settings.section("trainer", TrainerSettings).model_dump()
    origins: dict[str, str] = {}
    if config is not None and of_lerobot:
        read = lerobot_config.read(config)
        values |= read.values | {"steps": read.steps}
        typer.echo(read.explain(), err=True)
        origins = read.origins
    given = {name: value for name, value in flags.items() if value is not None}
    origins |= {name: f"--{name.replace('_', '-')}" for name in given}
    return settings, _target(target, settings), _checked(values | given, origins)


def _checked(values: dict[str, Any], origins: dict[str, str]) -> Any:
    from gripwire_trainer.settings import TrainerSettings

    try:
        return TrainerSettings.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]["loc"][0]
        said = " or: ".join(dict.fromkeys(x["msg"] for x in e.errors() if x["loc"][0] == first))
        where = origins.get(str(first), f"[trainer] {first}")
        raise UserError(f"{where}: {said}; see `gripwire trainer train --help`") from e


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
    from gripwire_trainer.offer import offer

    def tell(result: Any) -> None:
        if waits := offer(settings, result.bundle.id):
            typer.echo(f"bundle    {result.bundle.id} waits to serve: {waits}", err=True)

    return tell


def _sealed(bundle: str) -> None:
    """At once: whatever happens to this command now, the id has been seen."""
    print(f"bundle    {bundle} written", file=sys.stderr, flush=True)


def _safe(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.strip():
        raise UserError(
            f"--out {name!r}: a name under the data folder's datasets/ is due, not a path elsewhere"
        )
    return name


def _bar(stage: str) -> Any:
    from gripwire_trainer.progress import Progress

    progress = Progress()
    return lambda part: progress(stage, part, {})


def _print_result(result: Any) -> None:
    m = result.metrics
    typer.echo(f"bundle {result.bundle.id}   {result.bundle.path}")
    typer.echo(
        f"held out: {m['frame_accuracy']:.2%} of frames right (always fail: "
        f"{m['always_fail_accuracy']:.2%}), "
        f"false successes {m['false_success_rate']:.1%} of failed episodes, AUROC {m['auroc']:.4f}"
    )
    for line in _doubtful(result.judged):
        typer.echo(line)
    if result.dataset:
        typer.echo(f"reward dataset {result.dataset}")
    typer.echo(f"report {result.bundle.path / 'report.html'}")


def _doubtful(judged: Any) -> Iterator[str]:
    """The labels that heads which never saw them contradict most."""
    from gripwire_trainer.disagreement import doubtful

    found = doubtful(judged)
    if found:
        yield "look at these frames first (label against heads that never saw it):"
    for d in found[:_LOOK_AT]:
        frames = f"frame {d.first}" if d.first == d.last else f"frames {d.first} to {d.last}"
        said = "success" if d.success else "no success"
        yield f"  {d.episode} {frames}: labelled {said}, judged {d.probability:.2f}"
    if len(found) > _LOOK_AT:
        yield f"  and {len(found) - _LOOK_AT} more in the report"
