"""`gripwire keys`: this machine's keys, and which other machines may come in."""

from typing import Annotated, Any

import typer

from gripwire import keys as keys_
from gripwire import settings
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.keys import Keys, Machine
from gripwire.messages import Role
from gripwire.topics import LOOPBACK

keys = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Keys of this machine, and which other machines may come in. With keys every endpoint of the stack "
    "is encrypted; without, it is served on loopback only.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What that machine is called here.")]


def _settings(config: Any, data: Any) -> settings.Settings:
    # Not the address that is bound: to bind it without keys is what this is the remedy for.
    return options.load(config, data, bind=LOOPBACK)


def _own(config: Any, data: Any) -> Keys:
    loaded = _settings(config, data)
    if loaded.keys is None:
        raise UserError(f"{loaded.data / settings.KEYS}: no keys yet: `gripwire keys new` makes them")
    return loaded.keys


@keys.command()
def new(
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Nothing to do where there are keys already.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of those there are; tell every other machine.")
    ] = False,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
) -> None:
    """Make this machine's keys. What runs on this data folder must be started anew to use them."""
    loaded = _settings(config, data)
    folder = loaded.data / settings.KEYS
    try:
        made = keys_.load(folder) if if_missing and not replace else None
        made = made or keys_.create(folder, replace)
    except UserError:
        made = keys_.load(folder) if if_missing else None  # another was quicker
        if made is None:
            raise
    _show(made, as_json)


@keys.command()
def show(as_json: options.Json = False, config: options.Config = None, data: options.Data = None) -> None:
    """Print this machine's public key, for `gripwire keys allow` on another machine."""
    _show(_own(config, data), as_json)


def _show(own: Keys, as_json: bool) -> None:
    if as_json:
        options.emit({"public": own.public, "folder": str(own.folder)})
    else:
        typer.echo(own.public)


@keys.command()
def allow(
    name: Name,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="As `gripwire keys show` prints it there; a known machine's stays."
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="watch (all have it), label, drive or train; give several. As before by default."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where its services are found from here, as in [hosts]; NAME by default.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="That machine has a new key.")] = False,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
) -> None:
    """Let a machine in, with these roles in place of those it had. Counts from now on, also in what runs."""
    own = _own(config, data)
    machine = keys_.allow(own, name, key, _roles(role or []), host, replace)
    if as_json:
        options.emit(_row(machine))
    else:
        typer.echo(f"{machine.name} may {', '.join(machine.roles)}", err=True)


@keys.command()
def revoke(
    name: Name, as_json: options.Json = False, config: options.Config = None, data: options.Data = None
) -> None:
    """Let a machine in no more, from now on, also in what runs: its connections are cut."""
    machine = keys_.revoke(_own(config, data), name)
    if as_json:
        options.emit(_row(machine))
    else:
        typer.echo(f"{name} is let in no more", err=True)


@keys.command("list")
def list_(as_json: options.Json = False, config: options.Config = None, data: options.Data = None) -> None:
    """This machine and those that are let in."""
    own = _own(config, data)
    machines = keys_.read_allowed(own.allowed.path).values()
    if as_json:
        options.emit({"public": own.public, "machines": [_row(machine) for machine in machines]})
        return
    typer.echo(f"{'this machine':20} {own.public}  {', '.join(keys_.ROLES)}")
    for machine in machines:
        where = f"  at {machine.host}" if machine.host else ""
        typer.echo(f"{machine.name:20} {machine.key}  {', '.join(machine.roles)}{where}")


def _row(machine: Machine) -> dict[str, Any]:
    return {"name": machine.name, "key": machine.key, "roles": machine.roles, "host": machine.host}


def _roles(given: list[str]) -> tuple[Role, ...]:
    words = [word for text in given for word in text.split(",")]
    if unknown := [word for word in words if word not in keys_.ROLES]:
        raise UserError(f"--role {unknown[0]}: there are {', '.join(keys_.ROLES)}")
    return tuple(role for role in keys_.ROLES if role in words or role == "watch") if words else ()
