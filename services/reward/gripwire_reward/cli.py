"""`gripwire reward ...`"""

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gripwire import control
from gripwire.bus import Latest
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import Freeze, ModelState, Override, Reward, Rollback, Swap, Thaw
from gripwire.settings import Settings
from gripwire_reward.ask import ask
from gripwire_reward.settings import RewardSettings

if TYPE_CHECKING:
    from gripwire_reward.datasets import Dataset
    from gripwire_reward.scorer import Scorer

Kind = Literal["decision", "above", "probability"]
Where = Literal["auto", "window", "page", "terminal"]

app = typer.Typer(
    no_args_is_help=True, help="Score every camera frame with a verified model and publish the reward."
)

BundleArg = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or its id (a unique start will do).")
]


DatasetArg = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="A LeRobot dataset's folder, or its name under the data folder's datasets/."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Even while somebody holds the model.")]


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    camera: Annotated[
        str | None, typer.Option(help="Camera slot to judge; the first one by default.")
    ] = None,
    rate_hz: Annotated[
        float | None, typer.Option(help="Rewards per second; one for every frame by default.")
    ] = None,
) -> None:
    """Run the reward service in the foreground."""
    from gripwire import service
    from gripwire_reward.service import RewardService

    settings = options.load(config, data, port_base, reward__camera=camera, reward__rate_hz=rate_hz)
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
    force: Force = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the outcome.")] = 30.0,
    as_json: options.Json = False,
) -> None:
    """Return to the bundle that served before."""
    settings = options.load(config, data, port_base)
    _report(ask(settings, Rollback(force=force), timeout), as_json)


@app.command()
def freeze(
    by: Annotated[str, typer.Option(help="Who holds it; only the same name renews and lets go.")],
    lease: Annotated[float, typer.Option(help="Seconds after which it ends by itself.")] = 3600.0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Hold the serving model and its rule: swaps wait until `thaw`, or until the lease is over."""
    settings = options.load(config, data, port_base)
    _tell(settings, Freeze(by=by, lease_s=lease))


@app.command()
def thaw(
    by: Annotated[str, typer.Option(help="Who holds it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Whoever holds it.")] = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Let go of the model; a bundle that waits is verified and serves."""
    settings = options.load(config, data, port_base)
    _tell(settings, Thaw(by=by, force=force))


@app.command()
def override(
    threshold: Annotated[float | None, typer.Option(help="A frame counts for success from here on.")] = None,
    release: Annotated[float | None, typer.Option(help="A frame counts against it below this.")] = None,
    window_s: Annotated[float | None, typer.Option(help="Length of the window, seconds.")] = None,
    needed_s: Annotated[float | None, typer.Option(help="How much of it must agree, seconds.")] = None,
    min_steps_s: Annotated[
        float | None, typer.Option(help="Seconds of an episode before success can count.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="Condition on the robot, e.g. '5 < gripper < 60'; '' for none.")
    ] = None,
    latch: Annotated[
        bool | None, typer.Option("--latch/--no-latch", help="Success stays for the rest of an episode.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="First forget what was overridden before.")] = False,
    force: Force = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Decide otherwise than the bundle says, from now on and after restarts; every reward shows it."""
    settings = options.load(config, data, port_base)
    changes = Override(
        threshold=threshold, release=release, window_s=window_s, needed_s=needed_s, min_steps_s=min_steps_s,
        gate=gate, latch=latch, clear=clear, force=force,
    )  # fmt: skip
    _tell(settings, changes)


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
    dataset: DatasetArg,
    out: Annotated[
        Path, typer.Option("--out", metavar="SCORES.parquet", help="One row per frame is written here.")
    ],
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Score every frame of a dataset with a bundle, by the code that serves."""
    from gripwire_reward.score import score_dataset, write_scores

    source, scorer = _opened(dataset, bundle, options.load(config, data))
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


@app.command()
def rescore(
    dataset: DatasetArg,
    bundle: BundleArg,
    out: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.parquet",
            help="A new dataset with these rewards, under the data folder's datasets/ or where a path says; "
            "or a file with one row per frame.",
        ),
    ],
    reward: Annotated[
        Kind, typer.Option(help="What becomes the reward of a frame: 0 or 1, or the probability itself.")
    ] = "decision",
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Recompute the rewards of a recording or a replay buffer with another bundle. The source stays."""
    from gripwire_reward import rescore as again
    from gripwire_reward.score import score_dataset, write_scores

    settings = options.load(config, data)
    target = Path(out).expanduser()
    if target.suffix != ".parquet":
        target = target if target.parent != Path() else settings.data / "datasets" / out
        if target.exists():
            raise UserError(f"{target} exists already and is never overwritten; choose another name")
    source, scorer = _opened(dataset, bundle, settings)
    scores = list(score_dataset(scorer, source))
    if target.suffix == ".parquet":
        write_scores(scores, target)
    else:
        again.write_dataset(source, scores, reward, scorer.bundle.id, target)
    summary = {
        "bundle": scorer.bundle.id,
        "dataset": str(source.path),
        "out": str(target),
        "episodes": len(scores),
        "frames": sum(len(s.logit) for s in scores),
        "changed": again.changed_rows(source, scores, reward),
        "not_valid": sum(bool(why) for s in scores for why in s.reason),
    }
    if as_json:
        options.emit(summary)
        return
    changed = "the source has no rewards" if summary["changed"] is None else f"{summary['changed']} changed"
    counted = f"{summary['frames']} rewards of {len(scores)} episodes"
    typer.echo(f"{counted}, {changed}, {summary['not_valid']} not valid -> {target}")


@app.command()
def preview(
    source: Annotated[
        str | None, typer.Option(help="Camera slot; the one that is judged, else the first.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Judge with this bundle here, in place of what the service says.")
    ] = None,
    where: Annotated[
        Where, typer.Option(help="auto: a window where there is a display, else a page for a browser.")
    ] = "auto",
    port: Annotated[int, typer.Option(help="Of the page; 0 for any.")] = 0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Watch the live picture, the model's exact input, its probability and the decision."""
    from gripwire_reward import bundle as bundles
    from gripwire_reward.preview import run as showing
    from gripwire_reward.preview.feed import BundleFeed, ServiceFeed
    from gripwire_reward.preview.session import Session

    settings = options.load(config, data, port_base)
    camera = source or settings.section("reward", RewardSettings).camera or settings.cameras[0]
    if camera not in settings.cameras:
        raise UserError(f"no camera `{camera}`; there are: {', '.join(settings.cameras)}")
    if bundle:
        found = bundles.load(bundles.find(bundle, settings.data / "bundles", allow_path=True))
        session = Session(settings, BundleFeed(settings, camera, found), found.manifest.decision.threshold)
    else:
        session = Session(settings, ServiceFeed(settings, camera))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        showing.run(session, showing.choose(where), settings.bus.bind, port, stopped.is_set)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()
        if session.said:
            typer.echo(session.said)


def _opened(dataset: str, bundle: str, settings: Settings) -> "tuple[Dataset, Scorer]":
    """A dataset, and a bundle to score it with, as a person names them."""
    from gripwire_reward import bundle as bundles
    from gripwire_reward.datasets import open_dataset, resolve
    from gripwire_reward.scorer import Scorer

    source = open_dataset(resolve(dataset, settings.data / "datasets"))
    found = bundles.find(bundle, settings.data / "bundles", allow_path=True)
    return source, Scorer(bundles.load(found))


def _tell(settings: Settings, command: Freeze | Thaw | Override) -> None:
    typer.echo(control.request(settings.topics.control("reward"), "reward", command).text)


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
    elif state.event == "waiting":
        typer.echo(f"{state.offer} waits: {state.reason}; {state.serving or 'no bundle'} goes on serving")
    else:
        if state.shadow_frames:
            differ = len(state.disagreements)
            typer.echo(f"compared on {state.shadow_frames} live frames: {differ or 'no'} disagreements")
        for d in state.disagreements:
            typer.echo(f"  frame {d.frame_seq}: before {_shown(d.serving)}, now {_shown(d.offered)}")
        typer.echo(f"serving {state.serving}, epoch {state.epoch} (before: {state.previous or 'none'})")


def _shown(probability: float | None) -> str:
    return "not valid" if probability is None else f"{probability:.3f}"


def _print_status(state: ModelState, last: Reward | None) -> None:
    typer.echo(
        f"serving   {state.serving or 'no bundle'}   epoch {state.epoch}   before {state.previous or 'none'}"
    )
    if state.event == "refused":
        typer.echo(f"refused   {state.offer}: {state.reason}")
    if state.frozen_by:
        typer.echo(f"held      by {state.frozen_by}, at most {state.frozen_s:.0f} s more")
    if state.waiting:
        typer.echo(f"waiting   {state.waiting}")
    if state.overrides:
        listed = ", ".join(f"{name} = {value}" for name, value in state.overrides.items())
        typer.echo(f"overrides {listed}")
    if last is None:
        typer.echo("reward    nothing published within 1 s")
    elif not last.valid:
        typer.echo(f"reward    not valid: {last.reason}")
    else:
        verdict = "success" if last.decision else "no success"
        typer.echo(f"reward    {verdict}, probability {last.probability:.3f}, threshold {last.threshold:.2f}")
