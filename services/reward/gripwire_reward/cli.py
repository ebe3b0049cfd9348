"""`gripwire reward ...`"""

import time
from pathlib import Path
from typing import Annotated

import typer

from gripwire.bus import Latest
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import ModelState, Reward, Rollback, Swap
from gripwire_reward.ask import ask

app = typer.Typer(
    no_args_is_help=True, help="Score every camera frame with a verified model and publish the reward."
)

BundleArg = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or its id (a unique start will do).")
]


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    camera: Annotated[
        str | None, typer.Option(help="Camera slot to judge; the first one by default.")
    ] = None,
) -> None:
    """Run the reward service in the foreground."""
    from gripwire import service
    from gripwire_reward.service import RewardService

    settings = options.load(config, data, port_base, reward__camera=camera)
    raise typer.Exit(service.run("reward", settings, RewardService))


@app.command()
def swap(
    bundle: BundleArg,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the outcome.")] = 30.0,
    as_json: options.Json = False,
) -> None:
    """Serve this bundle from now on. The service verifies it first and keeps the old one for `rollback`."""
    settings = options.load(config, data, port_base)
    bundle_id = _install(bundle, settings.data / "bundles")
    _report(ask(settings, Swap(bundle=bundle_id), timeout), as_json)


@app.command()
def rollback(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the outcome.")] = 30.0,
    as_json: options.Json = False,
) -> None:
    """Return to the bundle that served before."""
    settings = options.load(config, data, port_base)
    _report(ask(settings, Rollback(), timeout), as_json)


@app.command()
def status(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    as_json: options.Json = False,
) -> None:
    """What serves now, and what the last frame got. Exit code 0 only when rewards are valid."""
    settings = options.load(config, data, port_base)
    topics = settings.topics
    with Latest(topics["model"], ModelState) as model, Latest(topics["reward"], Reward) as reward:
        state, last = model.wait(3.0), reward.wait(1.0)
    if state is None:
        raise UserError(
            f"no reward service at {topics['model'].endpoint}; start it with `gripwire reward run` or "
            "`gripwire up`"
        )
    valid = last is not None and last.message.valid
    if as_json:
        verdict = last.message.model_dump(mode="json") if last else None
        options.emit({"model": state.message.model_dump(mode="json"), "reward": verdict})
    else:
        _print_status(state.message, last.message if last else None)
    raise typer.Exit(0 if valid else 1)


@app.command()
def score(
    bundle: BundleArg,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A LeRobot dataset's folder, or its name under the data folder's datasets/.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="SCORES.parquet", help="One row per frame is written here.")
    ],
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Score every frame of a dataset with a bundle, by the code that serves."""
    from gripwire_reward import bundle as bundles
    from gripwire_reward.datasets import open_dataset, resolve
    from gripwire_reward.score import score_dataset, write_scores
    from gripwire_reward.scorer import Scorer

    settings = options.load(config, data)
    source = open_dataset(resolve(dataset, settings.data / "datasets"))
    scorer = Scorer(bundles.load(bundles.find(bundle, settings.data / "bundles", allow_path=True)))
    start = time.monotonic()
    scores = list(score_dataset(scorer, source))
    rows = write_scores(scores, out)
    successes = sum(bool(s.decision.any()) for s in scores)
    summary = {
        "bundle": scorer.bundle.id,
        "dataset": str(source.path),
        "out": str(out),
        "episodes": len(scores),
        "frames": rows,
        "episodes_decided_success": successes,
        "seconds": round(time.monotonic() - start, 2),
    }
    if as_json:
        options.emit(summary)
    else:
        typer.echo(f"{rows} frames of {len(scores)} episodes scored, {successes} decided as success -> {out}")


def _install(bundle: str, bundles_root: Path) -> str:
    """The id of a bundle under the data root; one that lies elsewhere is verified and copied there first,
    because paths never travel to a service."""
    from gripwire_reward import bundle as bundles

    folder = bundles.find(bundle, bundles_root, allow_path=True)
    if folder.resolve().parent == bundles_root.resolve():
        return folder.name
    return bundles.install(bundles.load(folder.resolve()), bundles_root).name


def _report(state: ModelState, as_json: bool) -> None:
    if as_json:
        options.emit(state.model_dump(mode="json"))
    else:
        typer.echo(f"serving {state.serving}, epoch {state.epoch} (before: {state.previous or 'none'})")


def _print_status(state: ModelState, last: Reward | None) -> None:
    typer.echo(
        f"serving   {state.serving or 'no bundle'}   epoch {state.epoch}   before {state.previous or 'none'}"
    )
    if state.event == "refused":
        typer.echo(f"refused   {state.offer}: {state.reason}")
    if last is None:
        typer.echo("reward    nothing published within 1 s")
    elif not last.valid:
        typer.echo(f"reward    not valid: {last.reason}")
    else:
        verdict = "success" if last.decision else "no success"
        typer.echo(f"reward    {verdict}, probability {last.probability:.3f}, threshold {last.threshold:.2f}")
