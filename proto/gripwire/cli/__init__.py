"""The `gripwire` command: the verbs of this package, and one per installed service.

A service's distribution registers its typer app under the entry point group ``gripwire.commands``; it is
imported only when it is called (or listed).
"""

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from gripwire import __version__
from gripwire.errors import UserError

ENTRY_POINTS = "gripwire.commands"
BUILT_IN = {
    "up": "up", "doctor": "doctor", "topics": "inspect", "echo": "echo", "hz": "inspect", "delay": "delay",
    "graph": "graph", "top": "top",
    "record": "recording", "replay": "recording", "keys": "machine_keys",
    "health": "health", "stack": "stack",
}  # fmt: skip
"""Command to the module of this package that has the function, or the app, of that name."""


class _Commands(TyperGroup):
    """The built-in commands and the installed services', each loaded when it is used: a service that is
    restarted must not wait for tables and colours it never draws."""

    def list_commands(self, ctx: Any) -> list[str]:
        plugins = {point.name for point in entry_points(group=ENTRY_POINTS)}
        return [*BUILT_IN, *sorted(plugins - BUILT_IN.keys())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in BUILT_IN:
            member = getattr(importlib.import_module(f"gripwire.cli.{BUILT_IN[cmd_name]}"), cmd_name)
            if isinstance(member, typer.Typer):
                command = typer.main.get_command(member)
                command.name = cmd_name
                return command
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(member)
            return typer.main.get_command(single)
        for point in entry_points(group=ENTRY_POINTS, name=cmd_name):
            command = typer.main.get_command(point.load())
            command.name = cmd_name
            return command
        return None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A live, trustworthy success signal for robot arms.",
    epilog="Each service debugged alone: `gripwire <service> run`. The whole stack: `gripwire up`.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gripwire {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point: a ``UserError`` becomes one sentence and exit code 1."""
    command = typer.main.get_command(app)
    try:
        command(prog_name="gripwire")
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
