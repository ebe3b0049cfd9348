"""`gripwire health`: one service's heartbeat, for a person, a container's health check or a script."""

from typing import Annotated

import typer

from gripwire.bus import Latest
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import Health


def health(
    service: Annotated[str, typer.Argument(help="robot, reward, camera/gripper_cam, ...")],
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for a heartbeat; one comes every second.")
    ] = 5.0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    as_json: options.Json = False,
) -> None:
    """Say how a service is; exit code 0 when it works, be it with a problem (`degraded`)."""
    topics = options.load(config, data, port_base).topics
    if service not in topics.services:
        raise UserError(f"there is no service `{service}`; there are: {', '.join(topics.services)}")
    reader = Latest(topics[f"health/{service}"], Health)
    beat = reader.wait(wait)
    reader.close()
    if beat is None:
        raise UserError(
            f"{service}: no heartbeat within {wait:g} s: it does not run, hangs, or does not let this "
            "machine in; look at its log, and at `gripwire topics`"
        )
    seen = beat.message
    if as_json:
        options.emit(seen.model_dump())
    else:
        typer.echo(f"{seen.state}{f': {seen.problem}' if seen.problem else ''}")
    raise typer.Exit(0 if seen.state in ("ready", "degraded") else 1)
