"""The `gripwire` command: the verbs of this package, and one per installed service.

A service's distribution registers its typer app under the entry point group ``gripwire.commands``; it is
imported only when it is called (or listed).
"""

import sys
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from gripwire import __version__
from gripwire.errors import UserError

ENTRY_POINTS = "gripwire.commands"


class _Commands(TyperGroup):
    """Adds the installed services' commands to the built-in ones, loaded on use."""

    def list_commands(self, ctx: Any) -> list[str]:
        plugins = {point.name for point in entry_points(group=ENTRY_POINTS)}
        return [*super().list_commands(ctx), *sorted(plugins - set(self.commands))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
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


def _register() -> None:
    from gripwire.cli import inspect, up

    app.command("up")(up.up)
    app.command("topics")(inspect.topics)
    app.command("echo")(inspect.echo)
    app.command("hz")(inspect.hz)
    app.command("delay")(inspect.delay)


def main() -> None:
    """Entry point: a ``UserError`` becomes one sentence and exit code 1."""
    _register()
    command = typer.main.get_command(app)
    try:
        command(prog_name="gripwire")
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `gripwire echo reward | head`
        sys.stderr.close()
        sys.exit(0)
