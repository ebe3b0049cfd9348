"""`gripwire echo`: a topic's messages as they come; a camera's in a terminal as pictures."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from gripwire.bus import Latest, Received
from gripwire.cli import options
from gripwire.cli.follow import Name, follow, topic_named
from gripwire.cli.keys import Keys
from gripwire.errors import UserError
from gripwire.messages import Frame
from gripwire.topics import Topic

_MOST_HZ = 15.0
"""Pictures a second: more than an SSH connection gets through is only later."""


def echo(
    topic: Name,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many messages.")] = None,
    picture: Annotated[
        bool | None,
        typer.Option(
            "--picture/--no-picture",
            help="A camera's pictures, in half blocks of 24-bit colour or, where there is none, in plain "
            "characters; in a terminal the default.",
        ),
    ] = None,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Print a topic's messages as they come; of a camera, in a terminal, show its pictures."""
    settings = options.load(config, data, port_base)
    chosen = topic_named(settings, topic)
    console = Console(highlight=False)
    camera = chosen.message is Frame
    if picture and (not camera or as_json):
        raise UserError(f"--picture: {'it does not go with --json' if camera else f'`{topic}` has none'}")
    with suppress(KeyboardInterrupt):
        if camera and not as_json and (console.is_terminal if picture is None else picture):
            _show(chosen, n, console)
            return
        for received in follow(chosen, n):
            if as_json:
                options.emit(_fields(received))
            else:
                lines = [
                    f"[bold]{key}[/bold]: {escape(str(value))}" for key, value in _fields(received).items()
                ]
                console.print("\n".join(lines))
                console.print("---", style="dim")


def _fields(received: Received[Any]) -> dict[str, Any]:
    fields: dict[str, Any] = received.message.model_dump()
    if received.payload is not None:
        fields["payload"] = f"{len(received.payload)} bytes"
    return fields


def _show(topic: Topic, n: int | None, console: Console) -> None:
    """Draw the newest picture over the one before until `q`; into a file, one below the other."""
    coloured = (
        console.is_terminal and not console.no_color and os.environ.get("TERM") not in ("dumb", "linux")
    )
    shown, since, warned, seen = 0, time.monotonic(), False, None
    with Latest(topic, topic.message) as latest, Keys() as keys, _screen(console) as home:
        while (n is None or shown < n) and keys.pressed() != "q":
            received = latest.wait(0.2, after=seen)
            if received is None:
                if seen is None and not warned and time.monotonic() - since > 3:
                    warned = True
                    why = latest.barred or f"at {topic.endpoint}: nothing yet"
                    typer.echo(f"waiting for `{topic.name}` {why}", err=True)
                continue
            seen = received
            begun = time.monotonic()
            lines = _drawn(received, console.width, console.height - 2, coloured)
            end = "\x1b[K\r\n" if home else "\n"
            sys.stdout.write(home + end.join(lines) + ("\x1b[K\x1b[J" if home else "\n"))
            sys.stdout.flush()
            shown += 1
            time.sleep(max(0.0, 1 / _MOST_HZ - (time.monotonic() - begun)))


def _drawn(received: Received[Any], columns: int, lines: int, coloured: bool) -> list[str]:
    """The picture at the size of the terminal, and a line about it."""
    from gripwire.cli import pictures  # numpy, which other topics do without

    frame: Frame = received.message
    wide, high = pictures.fit(frame.width, frame.height, columns, max(1, lines))
    said = "" if frame.valid else f"  NOT VALID: {frame.reason}"
    about = (
        f"{frame.camera} {frame.width}x{frame.height} {frame.encoding}, frame {frame.seq}, "
        f"{received.age_ms():.0f} ms old{said}"
    )
    try:
        image = pictures.decode(frame, received.payload or b"", wide)
    except ValueError as e:
        return [f"{about}  {e}"[:columns]]
    draw = pictures.half_blocks if coloured else pictures.shades
    return [*draw(image, wide, high), about[:columns]]


@contextmanager
def _screen(console: Console) -> Iterator[str]:
    """The terminal's other screen for as long as pictures are drawn; gives what leads back to its top."""
    if not console.is_terminal or os.environ.get("TERM") == "dumb":
        yield ""
        return
    with console.screen(hide_cursor=True):
        yield "\x1b[H"
