"""`gripwire robot`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gripwire.cli import options
from gripwire_robot import drive_cli, setup_cli

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
    max_speed: Annotated[
        float | None, typer.Option(help="Fastest goal, degrees (gripper: %) per second; 240.")
    ] = None,
    rest_seconds: Annotated[float | None, typer.Option(help="Longest move to the rest pose; 3.")] = None,
    leader_port: Annotated[str | None, typer.Option(help="Serial port of the leader arm.")] = None,
    leader_id: Annotated[str | None, typer.Option(help="LeRobot's id of the leader arm.")] = None,
    leader_calibration_dir: Annotated[Path | None, typer.Option(help="Folder of its <id>.json.")] = None,
    takeover: Annotated[
        bool | None, typer.Option(help="Moving the leader by hand takes over from a policy.")
    ] = None,
    in_container: Annotated[
        bool,
        typer.Option(
            "--in-container",
            help="End only after the guard that cuts torque: a container's end would end it too.",
        ),
    ] = False,
    replay: options.Replay = None,
) -> None:
    """Drive the arm until Ctrl+C; then it goes to its rest pose and its torque is cut."""
    from gripwire import service
    from gripwire.errors import UserError

    if in_container:
        from gripwire_robot.stay import stay

        arguments = [word for word in sys.argv[1:] if word != "--in-container"]
        raise typer.Exit(stay([sys.executable, "-m", "gripwire", *arguments]))
    if replay is not None:
        raise UserError(
            f"{replay} cannot be played to the robot service: it holds where the arm was, not what moved it "
            "there, and an arm does not take that from a file; try the service on the bench (`gripwire up "
            "--profile sim`, `gripwire sim fault --help`), and what reads the arm with `gripwire replay "
            f"{replay} --topics 'robot/*'`"
        )

    def build(runtime: Any) -> Any:
        from gripwire_robot.service import build  # its imports take a second: the heartbeat beats meanwhile

        return build(runtime)

    settings = options.load(
        config, data, port_base, robot__port=port, robot__id=id, robot__calibration_dir=calibration_dir,
        robot__rate_hz=rate_hz, robot__max_relative_target=max_relative_target,
        robot__max_speed=max_speed, robot__rest_seconds=rest_seconds, robot__leader_port=leader_port,
        robot__leader_id=leader_id, robot__leader_calibration_dir=leader_calibration_dir,
        robot__takeover=takeover,
    )  # fmt: skip
    raise typer.Exit(service.run("robot", settings, build))


@app.command()
def reset(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    jitter_xy: Annotated[
        float | None, typer.Option(metavar="M", help="Metres to stray in x and y; 0.01, 0: not at all.")
    ] = None,
    jitter_z: Annotated[
        float | None, typer.Option(metavar="M", help="Metres to stray up and down; 0.01.")
    ] = None,
    tip: Annotated[
        str | None, typer.Option(metavar="X,Y,Z", help="Where the tip goes, metres; the start pose's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Stray the same way each time.")] = None,
    seconds: Annotated[float, typer.Option(help="How long the move takes, at least.")] = 2.0,
    by: drive_cli.By = "",
    json: options.Json = False,
) -> None:
    """Move to the start pose, a little off at random; exit code 0 only when the arm is there."""
    from gripwire.errors import UserError
    from gripwire.messages import Reset
    from gripwire_robot import client

    settings = options.load(config, data, port_base)
    command = Reset(
        seconds=seconds, tip=_point(tip), jitter_xy=jitter_xy, jitter_z=jitter_z, seed=seed, by=by
    )  # fmt: skip
    with client.readers(settings.topics) as (states, actions):
        move = _ask(settings, command)
        if not json:
            typer.echo(move.text)
        arrival = client.wait_until_there(states, actions, move)
    if json:
        options.emit(client.report(move, arrival))
    if arrival.problem:
        raise UserError(f"the arm did not get there: {arrival.problem}; see `gripwire robot status`")
    if not json:
        typer.echo(client.words(move, arrival))


def _point(text: str | None) -> tuple[float, float, float] | None:
    from gripwire.errors import UserError

    if text is None:
        return None
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--tip {text}: give x, y and z in metres, as in --tip 0.25,0,0.07") from None
    return x, y, z


@app.command()
def hold(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """Torque on, keep the present pose."""
    from gripwire.messages import Hold

    typer.echo(_ask(options.load(config, data, port_base), Hold()).text)


@app.command()
def release(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None
) -> None:
    """Torque off: the arm goes limp, so hold it."""
    from gripwire.messages import Release

    typer.echo(_ask(options.load(config, data, port_base), Release()).text)


@app.command()
def status(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    json: options.Json = False,
) -> None:
    """Joints, temperatures, faults; exit code 0 only when the state is valid."""
    from gripwire.bus import Latest
    from gripwire.errors import UserError
    from gripwire.messages import Health
    from gripwire_robot import client

    topics = options.load(config, data, port_base).topics
    with client.readers(topics) as (states, actions), Latest(topics["health/robot"], Health) as beats:
        health, state, action = beats.wait(2.5), states.wait(1.0), actions.wait(1.0)
    if health is None:
        raise UserError(
            beats.barred or "the robot service is not running: start it with `gripwire robot run`"
        )
    if json:
        told = {"health": health, "state": state, "action": action}
        options.emit({name: t.message.model_dump() if t else None for name, t in told.items()})
    else:
        _print_status(health.message, state.message if state else None, action.message if action else None)
    raise typer.Exit(0 if state and state.message.valid else 1)


def _print_status(health: Any, state: Any, action: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from gripwire_robot import kinematics

    console = Console()
    console.print(f"robot {health.state}" + (f": {health.problem}" if health.problem else ""))
    if state is None:
        return
    table = Table(box=None)
    for column in ("joint", "position", "velocity", "temperature", "current", "fault or note"):
        table.add_column(column, justify="left" if column in ("joint", "fault or note") else "right")
    for joint, position in state.position.items():
        unit = "%" if joint == "gripper" else "°"
        temperature = state.temperature.get(joint)
        table.add_row(
            joint,
            f"{position:.1f} {unit}",
            f"{state.velocity.get(joint, 0.0):.1f} {unit}/s",
            f"{temperature:.0f} °C" if temperature is not None else "",
            f"{state.current.get(joint, 0.0):.0f} mA",
            state.faults.get(joint, "") or state.notes.get(joint, ""),
        )
    console.print(table)
    if state.tip:
        console.print(f"tip at {kinematics.millimetres(state.tip)} mm: forward, left and up from the base")
    if action:
        who = f"{action.driver} drives" if action.driver else "nobody drives"
        console.print(f"{who}; goal by {action.source}" + (f": {action.reason}" if action.reason else ""))
    console.print(f"torque {'on' if state.torque else 'off'}, {state.retries} retries, {health.rates}")


def _ask(settings: Any, command: Any) -> Any:
    from gripwire import control

    return control.request(settings.topics.control("robot"), "robot", command)


app.command()(drive_cli.teleop)
app.command()(drive_cli.intervene)
app.command()(drive_cli.drive)
app.command("yield")(drive_cli.yield_)
app.command()(setup_cli.ports)
app.command()(setup_cli.check)
app.command()(setup_cli.calibrate)
