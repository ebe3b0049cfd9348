"""`gripwire stack`: the containers of `docker compose`, for people who should not need its flags."""

import contextlib
import os
import shutil
import sys
from typing import Annotated

import typer

from gripwire import containers
from gripwire.cli import options
from gripwire.errors import UserError

stack = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The stack that `docker compose up` started: how its containers are, their logs, and a way in.",
)

Service = Annotated[str, typer.Argument(help="robot, reward, camera, ...")]
Project = Annotated[str, typer.Option("--project", metavar="NAME", help="The compose project.")]

COLOUR = {"healthy": "green", "starting": "cyan", "unhealthy": "red", "exited": "red", "restarting": "yellow"}


@stack.command()
def status(project: Project = containers.PROJECT, as_json: options.Json = False) -> None:
    """Every container: running, healthy, since when, how often started anew, what it says of itself."""
    found = containers.of_project(project)
    if as_json:
        options.emit([_row(c) for c in found])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "state", "up", "restarts", "image", "says"):
        right, whole = column in ("up", "restarts"), column in ("service", "state")
        table.add_column(column, justify="right" if right else "left", no_wrap=whole)
    for c in found:
        state = c.health or c.state if c.state == "running" else c.state
        up = "" if c.up_s is None else _duration(c.up_s)
        table.add_row(
            c.service, Text(state, COLOUR.get(state, "")), up, str(c.restarts or ""), c.image, Text(c.says)
        )
    Console().print(table)


@stack.command()
def logs(
    service: Service,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl+C.")] = False,
    lines: Annotated[int, typer.Option("-n", min=0, help="How many lines back.")] = 100,
    project: Project = containers.PROJECT,
) -> None:
    """What a service has written."""
    container = containers.of_service(service, project)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for chunk in containers.lines(container, lines, follow):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


@stack.command()
def restart(service: Service, project: Project = containers.PROJECT) -> None:
    """End a service as Ctrl+C would, and start it again; devices are looked for anew."""
    container = containers.of_service(service, project)
    containers.restart(container)
    typer.echo(f"{container.service} has been started again; `gripwire stack status` shows how it is")


@stack.command()
def shell(service: Service, project: Project = containers.PROJECT) -> None:
    """A shell in a service's container; `exit` leaves it. Only /tmp and /data can be written there."""
    container = containers.of_service(service, project)
    if container.state != "running":
        raise UserError(
            f"{container.service} does not run ({container.says}): `gripwire stack logs {service}`"
        )
    docker = shutil.which("docker")
    if docker is None:
        raise UserError(f"there is no `docker` command here; what it would run is `bash` in {container.name}")
    sys.stdout.flush()
    os.execv(docker, [docker, "exec", "-it", container.name, "bash"])


def _row(c: containers.Container) -> dict[str, object]:
    return {
        "service": c.service, "container": c.name, "state": c.state, "health": c.health, "up_s": c.up_s,
        "restarts": c.restarts, "image": c.image, "says": c.says,
    }  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
