"""`gripwire record-session`: so many episodes in a row, steered from the keyboard."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from gripwire.bus import Latest
from gripwire.cli import options
from gripwire.cli.keys import Keys
from gripwire.errors import UserError
from gripwire.messages import Command, EpisodeState, MarkEpisode, StartSession, SteerSession
from gripwire.settings import Settings
from gripwire_recorder import flags
from gripwire_recorder.cli import ask

app = typer.Typer(add_completion=False)

_COMMANDS: dict[str, Callable[[], Command]] = {
    " ": lambda: SteerSession(what="next"),
    "n": lambda: SteerSession(what="next"),
    "r": lambda: SteerSession(what="redo"),
    "q": lambda: SteerSession(what="end"),
    "s": lambda: MarkEpisode(success=True, by="person"),
    "f": lambda: MarkEpisode(success=False, by="person"),
}
_HELP = "space next   r once more   s success   f failure   q end"
_SAY = ("spd-say", "espeak-ng", "espeak", "say")
_SILENT_S = 5.0


@app.command()
def record_session(
    task: flags.Task,
    dataset: flags.Dataset = "recording",
    episodes: flags.Episodes = 10,
    seconds: flags.Seconds = 8.0,
    reset_seconds: flags.ResetSeconds = 5.0,
    append: flags.Append = False,
    success: flags.Success = None,
    speak: Annotated[bool, typer.Option("--speak", help="Say the cues aloud.")] = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Record a session: reset, record, and again, with keys to steer it; Ctrl+C or `q` ends it."""
    settings = options.load(config, data, port_base)
    say = _voice(speak)
    with Latest(settings.topics["episode"], EpisodeState) as states:
        known = states.wait(3.0)  # the topic is latched: it comes at once
        if known is None:
            raise UserError(
                states.barred or "no recorder is running here; `gripwire recorder run` starts one"
            )
        plan = StartSession(
            task=task, dataset=dataset, episodes=episodes, seconds=seconds, reset_seconds=reset_seconds,
            append=append, success=success,
        )  # fmt: skip
        typer.echo(ask(settings, plan))
        try:
            with Keys() as keys:
                typer.echo(_HELP if keys.there else "Ctrl+C ends it")
                _follow(settings, states, keys, say)
        except KeyboardInterrupt:
            with suppress(UserError):
                ask(settings, SteerSession(what="end"))
        state = _until_idle(states)
    typer.echo(f"{state.saved - known.message.saved} episodes are saved in `{dataset}`" + _room(state))


def _follow(settings: Settings, states: Latest[EpisodeState], keys: Keys, say: Callable[[str], None]) -> None:
    """Show and steer until the session is over."""
    cue, received, begun = "", None, False
    while True:
        received = states.wait(0.2, after=received) or received
        if received is None or received.age_ms() > _SILENT_S * 1e3:
            raise UserError("the recorder does not answer any more; what it had recorded is in its journals")
        state = received.message
        if state.session_episodes == 0:
            if begun:
                _line("")
                return
            continue
        begun = True
        if (now := _cue(state)) != cue:
            cue = now
            _line("")
            typer.echo(cue)
            say(cue)
        _line(_status(state))
        if (key := keys.pressed()) in _COMMANDS:
            _line("")
            try:
                typer.echo(ask(settings, _COMMANDS[key]()))
            except UserError as e:
                typer.echo(f"! {e}")


def _cue(state: EpisodeState) -> str:
    number = state.session_done + 1
    if state.session_phase == "recording":
        return f"episode {number} of {state.session_episodes}: go"
    return f"reset, then episode {number} of {state.session_episodes}"


def _status(state: EpisodeState) -> str:
    what = f"recording {state.rows} rows" if state.session_phase == "recording" else "reset"
    verdict = f"  {state.verdict}" if state.verdict != "none" and state.session_phase == "recording" else ""
    problem = f"  ! {state.problem}" if state.problem else ""
    return f"{what}  {state.session_left_s:4.0f} s left{verdict}{problem}"


def _line(text: str) -> None:
    """Draw over the line of progress, where somebody sees it."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r{text[:width]}\x1b[K")
        sys.stdout.flush()


def _until_idle(states: Latest[EpisodeState]) -> EpisodeState:
    received = states.get()
    while received is None or received.message.state != "idle":
        received = states.wait(60.0, after=received)
        if received is None:
            raise UserError(
                "the last episode is not saved after a minute; `gripwire recorder status` tells more"
            )
        if received.message.state == "saving" and received.message.problem:
            raise UserError(received.message.problem)
    return received.message


def _room(state: EpisodeState) -> str:
    return (
        "" if state.minutes_left is None else f"; the disk has room for {state.minutes_left:g} minutes more"
    )


def _voice(wanted: bool) -> Callable[[str], None]:
    """Says a text aloud, without waiting; rings the terminal's bell where that is not asked for."""
    if not wanted:
        return lambda _: _bell()
    speaker = next((path for name in _SAY if (path := shutil.which(name))), None)
    if speaker is None:
        raise UserError(f"nothing here can speak: install one of {', '.join(_SAY)}, or leave out --speak")

    def say(text: str) -> None:
        subprocess.Popen([speaker, text], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return say


def _bell() -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\a")
        sys.stdout.flush()
