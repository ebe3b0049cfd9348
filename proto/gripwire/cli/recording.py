"""`gripwire record` and `gripwire replay`: the raw bus in a file, and back."""

import signal
import threading
import time
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from gripwire import service, sockets
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.recording.file import Recording
from gripwire.recording.record import Recorder
from gripwire.recording.replay import Replay
from gripwire.topics import Topics

_LAST_MS = 2000
"""The last messages have so long to reach a reader that is slow, before the command ends."""

Pattern = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TOPIC]...", help="Names or patterns (`camera/*`); all topics when none is given."
    ),
]


def record(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN.mcap", help="The file to write.")],
    topics: Pattern = None,
    seconds: Annotated[float | None, typer.Option(help="Stop by itself after so long.")] = None,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Record the raw bus into an MCAP file until Ctrl+C; Foxglove reads it, `gripwire replay` plays it."""
    if out.suffix != ".mcap":
        raise UserError(f"{out}: the name of a recording ends in .mcap")
    settings = options.load(config, data, port_base)
    chosen = [settings.topics[name] for name in _chosen(topics, [t.name for t in settings.topics])]
    recorder = Recorder(out, chosen)
    stopped, begun = _stopped_by_signal(), time.monotonic()
    due = begun + seconds if seconds is not None else float("inf")
    if not as_json:
        typer.echo(f"recording {len(chosen)} topics into {out}; Ctrl+C ends it", err=True)
    try:
        recorder.run(
            lambda: stopped.is_set() or time.monotonic() >= due, lambda now: _tell(now, begun, as_json)
        )
    finally:
        recorder.close()
        if not as_json and typer.get_text_stream("stderr").isatty():
            typer.echo(err=True)  # the line of progress is left as it stands
    took, size, counts = time.monotonic() - begun, out.stat().st_size, recorder.file.counts
    lost = recorder.lost()
    if as_json:
        summary = {"out": str(out), "seconds": round(took, 2), "bytes": size}
        options.emit(summary | {"messages": counts, "lost": lost})
        return
    if not counts:
        typer.echo(f"nothing was published in {took:.0f} s: is the stack running, on these ports?")
    for name, count in sorted(counts.items()):
        missing = f"   {lost[name]} lost" if name in lost else ""
        typer.echo(f"{name:24} {count:7} messages{missing}")
    typer.echo(f"{took:.1f} s, {size / 1e6:.1f} MB -> {out}")


def _tell(recorder: Recorder, begun: float, as_json: bool) -> None:
    if as_json or not typer.get_text_stream("stderr").isatty():
        return
    messages, lost = sum(recorder.file.counts.values()), sum(recorder.lost().values())
    typer.echo(
        f"\r{time.monotonic() - begun:6.0f} s  {messages} messages  {recorder.file.size() / 1e6:.1f} MB"
        + (f"  {lost} lost" if lost else ""),
        nl=False, err=True,
    )  # fmt: skip


def replay(
    recording: Annotated[Path, typer.Argument(metavar="RUN.mcap", help="What `gripwire record` wrote.")],
    topics: Annotated[
        list[str] | None,
        typer.Option(
            help="Names or patterns (`camera/*`), several with several flags or commas; when none "
            "is given, all but the health topics, and whatever a running service publishes itself."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="2 is twice as fast as it was.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Over and over, until Ctrl+C.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for the first reader before it begins.")
    ] = 10.0,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Play a recording onto the bus as if it were live, so that any service or client can be tried on it."""
    service.die_with_supervisor()  # it may stand in for others beside a service that is tried alone
    settings = options.load(config, data, port_base)
    source = Recording(recording)
    contents = source.contents()
    asked = [name for given in topics or () for name in given.split(",") if name]
    names = _chosen(asked, sorted(contents.counts)) if asked else _without_health(contents.counts)
    player = Replay(source, settings.topics, names, all_of_them=bool(asked))
    stopped, begun = _stopped_by_signal(), time.monotonic()
    try:
        _say_left_out(player, source, settings.topics)
        if not player.wait_for_readers(wait):
            typer.echo("nobody reads these topics yet; playing all the same", err=True)
        typer.echo(
            f"playing {contents.seconds / rate:.1f} s of {', '.join(player.names)}; Ctrl+C ends it", err=True
        )
        player.run(rate, stopped.is_set)
        while loop and not stopped.is_set():
            player.run(rate, stopped.is_set)
    finally:
        player.close(linger_ms=0 if stopped.is_set() else _LAST_MS)
        sockets.finish(2 * _LAST_MS / 1000)
    took = time.monotonic() - begun
    if source.problem:
        typer.echo(f"warning: {source.problem}", err=True)
    if as_json:
        summary = {"topics": player.names, "messages": player.sent, "seconds": round(took, 2)}
        options.emit(summary | {"problem": source.problem})
    else:
        typer.echo(f"{player.sent} messages played in {took:.1f} s")


def _say_left_out(player: Replay, source: Recording, topics: Topics) -> None:
    """Name what is not played, and why.

    Raises:
        UserError: nothing is left.
    """
    taken = [name for name in player.left_out if name in topics]
    others = [name for name in player.left_out if name not in topics]
    if taken:
        typer.echo(f"left out, a running service publishes it here: {', '.join(taken)}", err=True)
    if others:
        typer.echo(f"left out, no camera slot of this stack: {', '.join(others)}", err=True)
    if player.names:
        return
    remedy = (
        "stop what runs here, or play on other ports with --port-base" if taken else "see `gripwire topics`"
    )
    holds = "" if player.left_out else f", it holds {', '.join(source.contents().counts) or 'no message'}"
    raise UserError(f"{source.path}: nothing to play{holds}; {remedy}")


def _without_health(names: Collection[str]) -> list[str]:
    """A replayed service is not there to be asked: its heartbeat must not claim so."""
    return sorted(name for name in names if not name.startswith("health/"))


def _chosen(asked: Collection[str] | None, names: Collection[str]) -> list[str]:
    """Those of ``names`` that a person asked for by name or pattern; all, when nothing was asked for.

    Raises:
        UserError: something asked for matches nothing.
    """
    if not asked:
        return list(names)
    for pattern in asked:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"no topic `{pattern}`; there are: {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in asked)]


def _stopped_by_signal() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    return stopped
