"""Flags that every command shares, and how they become settings."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gripwire import settings

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file; ./gripwire.toml if it exists.")
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Root of all files gripwire writes; ./data.")
]
PortBase = Annotated[
    int | None, typer.Option("--port-base", metavar="N", help="First port of the stack; 7600.")
]
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        metavar="RUN.mcap",
        help="Alone against a recording, on ports of its own; ends with the recording.",
    ),
]
Rate = Annotated[float, typer.Option(min=0.01, max=100, help="--replay: 2 is twice as fast as it was.")]
Loop = Annotated[bool, typer.Option("--loop", help="--replay: over and over, until Ctrl+C.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: the last line is one JSON object.")]


def load(
    config: Path | None = None,
    data: Path | None = None,
    port_base: int | None = None,
    ignore_file: bool = False,
    **flags: Any,
) -> settings.Settings:
    """The settings with the shared flags and ``flags`` (section and key joined by ``__``) applied.

    ``ignore_file``: as if there were no gripwire.toml.
    """
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    env = dict(os.environ) | ({settings.CONFIG_VARIABLE: ""} if ignore_file else {})
    return settings.load(config, {"data": data, "port_base": port_base, **dotted}, env)


def emit(value: Any) -> None:
    """Print the one JSON line of ``--json``."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))
