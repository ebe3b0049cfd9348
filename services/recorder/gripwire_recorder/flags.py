"""Flags that several of the recorder's commands share."""

from typing import Annotated

import typer

Task = Annotated[str, typer.Option("--task", help="What the robot does, in words.")]
Dataset = Annotated[str, typer.Option("--dataset", help="Name under datasets/.")]
Append = Annotated[bool, typer.Option("--append", help="To a dataset that exists already.")]
Episodes = Annotated[int, typer.Option("--episodes", help="How many.", min=1)]
Seconds = Annotated[float, typer.Option("--seconds", help="Of each episode.")]
ResetSeconds = Annotated[float, typer.Option("--reset-seconds", help="To put things back, before each.")]
Success = Annotated[
    bool | None,
    typer.Option(
        "--success/--failure", help="What every frame of it is: `gripwire recorder labels` writes it down."
    ),
]
