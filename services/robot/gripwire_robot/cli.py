"""`gripwire robot`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gripwire.cli import options

app = typer.Typer(no_args_is_help=True, help="The arm: run its service, and move, hold or release it.")


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    port: Annotated[str | None, typer.Option(help="Serial port of the arm.")] = None,
    id: Annotated[str | None, typer.Option(help="LeRobot's id: the calibration file's name.")] = None,
    calibration_dir: Annotated[Path | None, typer.Option(help="Folder of <id>.json; LeRobot's own.")] = None,
    rate_hz: Annotated[float | None, typer.Option(help="States per second; 60.")] = None,
    max_relative_target: Annotated[
        float | None, typer.Option(help="How far from where it is a joint may be sent at once; 20.")
    ] = None,
    rest_seconds: Annotated[float | None, typer.Option(help="Longest move to the rest pose; 3.")] = None,
) -> None:
    """Drive the arm until Ctrl+C; then it goes to its rest pose and its torque is cut."""
    from gripwire import service
    from gripwire_robot.service import build

    settings = options.load(
        config, data, port_base, robot__port=port, robot__id=id, robot__calibration_dir=calibration_dir,
        robot__rate_hz=rate_hz, robot__max_relative_target=max_relative_target,
        robot__rest_seconds=rest_seconds,
    )  # fmt: skip
    raise typer.Exit(service.run("robot", settings, build))


@app.command()
def reset(
    config: options.Config = None,
    port_base: options.PortBase = None,
    seconds: Annotated[float, typer.Option(help="How long the move takes.")] = 2.0,
    json: options.Json = False,
) -> None:
    """Move to the start pose; exit code 0 only when the arm is there."""
    from gripwire.errors import UserError
    from gripwire.messages import Reset
    from gripwire_robot.client import wait_until_there

    settings = options.load(config, None, port_base)
    with _readers(settings) as (states, actions):
        asked_at = _now()
        _ask(settings, Reset(seconds=seconds))
        reached, off = wait_until_there(states, actions, asked_at, seconds + 3.0)
    if json:
        options.emit({"reached": reached, "off": off})
    if off:
        raise UserError(
            "the arm did not get there: "
            + ", ".join(f"{joint} is {by:+.1f} off" for joint, by in off.items())
            + "; see `gripwire robot status`"
        )
    if not json:
        typer.echo("at the start pose: " + ", ".join(f"{j} {p:.1f}" for j, p in reached.items()))


@app.command()
def hold(config: options.Config = None, port_base: options.PortBase = None) -> None:
    """Torque on, keep the present pose."""
    from gripwire.messages import Hold

    typer.echo(_ask(options.load(config, None, port_base), Hold()).text)


@app.command()
def release(config: options.Config = None, port_base: options.PortBase = None) -> None:
    """Torque off: the arm goes limp, so hold it."""
    from gripwire.messages import Release

    typer.echo(_ask(options.load(config, None, port_base), Release()).text)


@app.command()
def status(
    config: options.Config = None, port_base: options.PortBase = None, json: options.Json = False
) -> None:
    """Joints, temperatures, faults; exit code 0 only when the state is valid."""
    from gripwire.bus import Latest
    from gripwire.errors import UserError
    from gripwire.messages import Health, RobotState

    topics = options.load(config, None, port_base).topics
    with Latest(topics["robot/state"], RobotState) as states, Latest(topics["health/robot"], Health) as beats:
        health, state = beats.wait(2.5), states.wait(1.0)
    if health is None:
        raise UserError("the robot service is not running: start it with `gripwire robot run`")
    if json:
        options.emit(
            {"health": health.message.model_dump(), "state": state.message.model_dump() if state else None}
        )
    else:
        _print_status(health.message, state.message if state else None)
    raise typer.Exit(0 if state and state.message.valid else 1)


def _print_status(health: Any, state: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"robot {health.state}" + (f": {health.problem}" if health.problem else ""))
    if state is None:
        return
    table = Table(box=None)
    for column in ("joint", "position", "velocity", "temperature", "fault"):
        table.add_column(column, justify="left" if column in ("joint", "fault") else "right")
    for joint, position in state.position.items():
        unit = "%" if joint == "gripper" else "°"
        temperature = state.temperature.get(joint)
        table.add_row(
            joint,
            f"{position:.1f} {unit}",
            f"{state.velocity.get(joint, 0.0):.1f} {unit}/s",
            f"{temperature:.0f} °C" if temperature is not None else "",
            state.faults.get(joint, ""),
        )
    console.print(table)
    console.print(f"torque {'on' if state.torque else 'off'}, {state.retries} retries, {health.rates}")


def _ask(settings: Any, command: Any) -> Any:
    from gripwire import control

    return control.request(settings.topics.control("robot"), "robot", command)


def _now() -> int:
    from gripwire import clock

    return clock.monotonic_ns()


def _readers(settings: Any) -> Any:
    from gripwire_robot.client import readers

    return readers(settings.topics)
