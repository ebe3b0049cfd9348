"""`gripwire reward ...`"""

import signal
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from gripwire import control
from gripwire.bus import Latest
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import Freeze, ModelState, Override, Reward, Rollback, Swap, Thaw
from gripwire.settings import Settings
from gripwire_reward import offline_cli
from gripwire_reward.ask import ask
from gripwire_reward.offline_cli import BundleArg
from gripwire_reward.settings import RewardSettings

Where = Literal["auto", "window", "page", "terminal"]

app = typer.Typer(
    no_args_is_help=True, help="Score every camera frame with a verified model and publish the reward."
)

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
    replay: options.Replay = None,
    rate: options.Rate = 1.0,
    loop: options.Loop = False,
    bundle: Annotated[
        str | None,
        typer.Option(help="--replay: judge by this bundle; the one that the recording's rewards name."),
    ] = None,
) -> None:
    """Run the reward service in the foreground."""
    from gripwire import service
    from gripwire_reward.service import RewardService

    flags = {"reward__camera": camera, "reward__rate_hz": rate_hz}
    if replay is None:
        raise typer.Exit(service.run("reward", options.load(config, data, port_base, **flags), RewardService))
    from gripwire.recording import alone
    from gripwire_reward.alone import scratch, wait_for_model

    alone.know_cameras(replay, options.load(config, data, port_base))
    settings = options.load(config, data, port_base, **flags)
    judge = bundle and _install(bundle, settings.data / "bundles")
    with scratch(settings, replay, judge) as folder:
        private = alone.private(settings, port_base, folder)
        played = alone.Run(replay, rate, loop)
        raise typer.Exit(alone.run("reward", private, RewardService, played, begin=wait_for_model))


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
            model.barred
            or f"no reward service at {topics['model'].endpoint}; start it with `gripwire reward run` or "
            "`gripwire up`"
        )
    valid = last is not None and last.message.valid
    if as_json:
        verdict = last.message.model_dump(mode="json") if last else None
        options.emit({"model": state.message.model_dump(mode="json"), "reward": verdict})
    else:
        _print_status(state.message, last.message if last else None)
    raise typer.Exit(0 if valid else 1)


app.command()(offline_cli.score)
app.command()(offline_cli.rescore)


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
        showing.run(session, showing.choose(where), settings.plain_bind, port, stopped.is_set)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()
        if session.said:
            typer.echo(session.said)


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
