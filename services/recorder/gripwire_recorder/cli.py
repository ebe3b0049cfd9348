"""`gripwire recorder ...`: flags only."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gripwire import control
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    DiscardEpisode,
    Done,
    EpisodeState,
    Health,
    MarkEpisode,
    StartEpisode,
    StartSession,
    SteerSession,
    StopEpisode,
)
from gripwire.settings import Settings
from gripwire_recorder import flags

if TYPE_CHECKING:
    from gripwire.bus import Queued

app = typer.Typer(no_args_is_help=True, help="Record episodes as LeRobot datasets.")

_SAVE_TIMEOUT_S = 120.0


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    fps: Annotated[int | None, typer.Option(help="Rows per second of the datasets; 10.")] = None,
    replay: options.Replay = None,
    rate: options.Rate = 1.0,
    loop: options.Loop = False,
) -> None:
    """Run the recorder in the foreground. With --replay, what was asked of it then is asked again, into a
    folder of its own unless --data names one."""
    from gripwire import service
    from gripwire_recorder.service import build

    if replay is None:
        settings = options.load(config, data, port_base, recorder__fps=fps)
        raise typer.Exit(service.run("recorder", settings, build))
    from gripwire.recording import alone
    from gripwire_recorder.alone import Again, scratch

    alone.know_cameras(replay, options.load(config, data, port_base))
    settings = options.load(config, data, port_base, recorder__fps=fps)
    private = alone.private(settings, port_base, data or scratch())
    typer.echo(f"what is recorded goes to {private.data / 'datasets'}", err=True)
    again = Again(replay)
    played = alone.Run(replay, rate, loop)
    raise typer.Exit(alone.run("recorder", private, build, played, again.begin, again.end))


@app.command()
def start(
    task: flags.Task,
    dataset: flags.Dataset = "recording",
    append: flags.Append = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Begin an episode."""
    settings = options.load(config, data, port_base)
    typer.echo(ask(settings, StartEpisode(task=task, dataset=dataset, append=append)))


@app.command()
def stop(
    wait: Annotated[bool, typer.Option(help="Wait until the episode is durable.")] = True,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """End the episode and save it."""
    from gripwire.bus import Queued

    settings = options.load(config, data, port_base)
    with Queued(settings.topics["episode"], EpisodeState) as reader:
        before = reader.receive(5.0)  # the topic is latched
        text = ask(settings, StopEpisode())
        if not wait or before is None:
            typer.echo(text)
            return
        state = _until_saved(reader, before.message)
    typer.echo(f"episode {state.episode} of dataset `{state.dataset}` is saved: {state.rows} rows")
    if state.drops:
        lost = ", ".join(f"{n} of {topic}" for topic, n in sorted(state.drops.items()))
        typer.echo(f"messages lost on the way: {lost}", err=True)
    if state.problem:
        typer.echo(f"but look at it: {state.problem}", err=True)


@app.command()
def redo(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """Throw away what is being recorded and begin it anew; in a session also the episode that just ended."""
    typer.echo(ask(options.load(config, data, port_base), SteerSession(what="redo")))


session = typer.Typer(no_args_is_help=True, help="Episodes in a row; `gripwire record-session` has keys.")
app.add_typer(session, name="session")


@session.command("start")
def session_start(
    task: flags.Task,
    dataset: flags.Dataset = "recording",
    episodes: flags.Episodes = 10,
    seconds: flags.Seconds = 8.0,
    reset_seconds: flags.ResetSeconds = 5.0,
    append: flags.Append = False,
    success: flags.Success = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Begin a session and return; it goes on by itself."""
    plan = StartSession(
        task=task, dataset=dataset, episodes=episodes, seconds=seconds, reset_seconds=reset_seconds,
        append=append, success=success,
    )  # fmt: skip
    typer.echo(ask(options.load(config, data, port_base), plan))


@session.command("next")
def session_next(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """End the present phase at once: begin, or end the episode and count it."""
    typer.echo(ask(options.load(config, data, port_base), SteerSession(what="next")))


@session.command("end")
def session_end(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """End the session; what is being recorded is kept."""
    typer.echo(ask(options.load(config, data, port_base), SteerSession(what="end")))


class Verdict(StrEnum):
    """What a person says of an episode."""

    success = "success"
    failure = "failure"
    reject = "reject"


@app.command()
def mark(
    verdict: Annotated[Verdict, typer.Argument(help="`reject`: the last episode is not to be used.")],
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Say that it is a success from now on (or not), or, when it is over, that the last episode was one."""
    settings = options.load(config, data, port_base)
    command = MarkEpisode(success=verdict == Verdict.success, reject=verdict == Verdict.reject, by="person")
    typer.echo(ask(settings, command))


@app.command()
def labels(
    dataset: Annotated[str, typer.Argument(help="A folder, or a name under datasets/.")],
    out: Annotated[Path, typer.Option(help="The label file to write.")],
    config: options.Config = None,
    data: options.Data = None,
) -> None:
    """Make a label file of the verdicts that were given while a dataset was recorded."""
    from gripwire_recorder import verdicts

    settings = options.load(config, data, None)
    named = settings.data / "datasets" / dataset
    folder = named if named.is_dir() else Path(dataset)
    count, left = verdicts.label_file(folder.absolute(), settings.data / "labels", out.absolute())
    typer.echo(f"{out}: {count} episodes are labelled")
    if left:
        numbers = ", ".join(map(str, left))
        typer.echo(f"nobody has said from when on these succeeded, or that they failed: {numbers}", err=True)


@app.command()
def discard(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """Throw away the episode that is being recorded."""
    typer.echo(ask(options.load(config, data, port_base), DiscardEpisode()))


@app.command()
def status(
    json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Say what the recorder is doing."""
    from gripwire.bus import Latest

    topics = options.load(config, data, port_base).topics
    with (
        Latest(topics["episode"], EpisodeState) as states,
        Latest(topics["health/recorder"], Health) as beats,
    ):
        health = beats.wait(3.0)
        if health is None:
            raise UserError(
                states.barred or "no recorder is running here; `gripwire recorder run` starts one"
            )
        latest = states.wait(1.0)
    state = latest.message if latest else None
    if json:
        options.emit(
            {
                "health": health.message.state, "problem": health.message.problem,
                "ready_to_save": "lerobot" in health.message.versions,
                "episode": state.model_dump() if state else None,
            }
        )  # fmt: skip
        return
    typer.echo(f"{health.message.state}{': ' if health.message.problem else ''}{health.message.problem}")
    if state and state.dataset:
        typer.echo(
            f"{state.state}: episode {state.episode} of `{state.dataset}`, {state.rows} rows, {state.task!r}"
        )
        typer.echo(
            f"saved since start: {state.saved}; worst skew {state.worst_skew_ms:.1f} ms; lost: {state.drops}"
        )
    if state and state.session_episodes:
        typer.echo(
            f"session: {state.session_done} of {state.session_episodes} episodes, {state.session_phase} for "
            f"another {state.session_left_s:.0f} s"
        )
    if state and state.minutes_left is not None:
        typer.echo(f"the disk has room for {state.minutes_left:g} minutes of recording")
    if state and state.problem:
        typer.echo(f"problem: {state.problem}")


def ask(settings: Settings, command: Command) -> str:
    """What the recorder answers, in words."""
    done = control.request(settings.topics.control("recorder"), "recorder", command, timeout_s=15.0)
    return done.text if isinstance(done, Done) else ""


def _until_saved(reader: "Queued[EpisodeState]", before: EpisodeState) -> EpisodeState:
    """The state that says that the episode which ``before`` showed being recorded is durable.

    Earlier ones may still be on their way to the disk. They are reported first, one message each, and the
    recorder is idle with the last one's outcome.

    Raises:
        UserError: it was not saved, or that cannot be told.
    """
    stopped, saved, deadline = False, before.saved, time.monotonic() + _SAVE_TIMEOUT_S
    while (left := deadline - time.monotonic()) > 0:
        received = reader.receive(min(left, 1.0))
        if received is None:
            continue
        state = received.message
        if state.state == "recording":
            if stopped:
                raise UserError(
                    "the next episode was begun before this one was durable; "
                    "`gripwire recorder status` tells how many are saved"
                )
        elif state.state == "saving" and state.problem:
            raise UserError(state.problem)
        elif state.state == "idle":
            # `saved` alone would count an earlier episode for this one; one that failed has no rows.
            if state.saved > saved and state.rows > 0:
                return state
            why = state.problem if state.rows == 0 else ""
            raise UserError(why or "the episode was not saved; `gripwire recorder status` tells more")
        stopped, saved = stopped or state.state != "recording", state.saved
    raise UserError(
        f"the episode is not saved after {_SAVE_TIMEOUT_S:g} s; `gripwire recorder status` tells more"
    )
