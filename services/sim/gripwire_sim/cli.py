"""`gripwire sim`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gripwire.cli import options

app = typer.Typer(no_args_is_help=True, help="The virtual bench: a simulated SO-101 and its gripper camera.")


class FaultName(StrEnum):
    """What can break."""

    CAMERA_DROP = "camera-drop"
    CAMERA_FREEZE = "camera-freeze"
    SERVO_SILENT = "servo-silent"
    SERVO_HOT = "servo-hot"
    SERVO_JAM = "servo-jam"
    PORT_GONE = "port-gone"
    LEADER_GONE = "leader-gone"
    CORRUPT = "corrupt"
    LAMP = "lamp"
    SUPPLY = "supply"
    CLEAR = "clear"


class KindName(StrEnum):
    """What the demonstrator can do."""

    GRASP_HOLD = "grasp_hold"
    GRASP_RELEASE = "grasp_release"
    CLOSE_ON_AIR = "close_on_air"
    NEAR_MISS = "near_miss"
    PUSH = "push"
    PRESS_ON_TOP = "press_on_top"


Seed = Annotated[int, typer.Option(min=0, help="The scene: cube, lamp, table.")]


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    rate_hz: Annotated[float | None, typer.Option(help="Pictures per second; 30.")] = None,
    seed: Annotated[int | None, typer.Option(help="The scene at the start; 0.")] = None,
) -> None:
    """Offer the bench's devices until Ctrl+C: two arms on serial ports in DATA/sim, a camera over HTTP."""
    from gripwire import service

    settings = options.load(config, data, port_base, sim__rate_hz=rate_hz, sim__seed=seed)
    from gripwire_sim.service import SimService

    raise typer.Exit(service.run("sim", settings, SimService))


@app.command(context_settings={"allow_interspersed_args": False})
def plug(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="What to run with the ports.")
    ],
    sockets: Annotated[Path, typer.Option(help="The folder in which the bench offers its serial lines.")],
    ports: Annotated[Path, typer.Option(help="The folder in which the serial ports shall stand.")],
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for the bench before COMMAND runs.")
    ] = 60.0,
) -> None:
    """Run COMMAND with serial ports `follower` and `leader` that lead to a bench in another container."""
    from gripwire_sim.plug import plug

    arms = ("follower", "leader")
    plug({sockets / arm: ports / arm for arm in arms}, command, patience)


@app.command()
def reset(
    seed: Seed = 0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    as_json: options.Json = False,
) -> None:
    """Lay out a fresh scene at a running bench and say where the cube is."""
    from gripwire import control
    from gripwire.messages import Bench, ResetBench

    settings = options.load(config, data, port_base)
    bench: Bench = control.request(settings.topics.control("sim"), "sim", ResetBench(seed=seed))
    if as_json:
        options.emit(bench.model_dump())
    else:
        x, y, _ = bench.cube
        typer.echo(f"scene {bench.seed}: cube at ({x:.3f}, {y:.3f}) m, turned {bench.cube_yaw:.2f} rad")


@app.command()
def fault(
    what: Annotated[FaultName, typer.Argument(help="What to break; `clear` mends everything.")],
    joint: Annotated[str, typer.Option(help="servo-*: the joint's name or number, 1 to 6.")] = "",
    value: Annotated[
        float | None,
        typer.Option(
            help="corrupt: share of packets (0.05); lamp: of its light (0.3); supply: volts (12); "
            "servo-hot: Celsius (85); *-gone: seconds (until `clear`)."
        ),
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Break something at a running bench."""
    from gripwire import control
    from gripwire.messages import Done, Fault

    settings = options.load(config, data, port_base)
    usual = {FaultName.CORRUPT: 0.05, FaultName.LAMP: 0.3, FaultName.SUPPLY: 12.0}
    much = usual.get(what, 0.0) if value is None else value
    done: Done = control.request(
        settings.topics.control("sim"), "sim", Fault(what=what.value, value=much, joint=joint)
    )
    typer.echo(done.text)


@app.command()
def leader(
    position: Annotated[
        list[str], typer.Argument(metavar="JOINT=DEGREES...", help="e.g. wrist_roll=30 gripper=80")
    ],
    seconds: Annotated[float, typer.Option(help="How long the hand takes.")] = 1.0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Be the hand that moves the bench's leader arm; joints that are not named stay."""
    from gripwire import control
    from gripwire.errors import UserError
    from gripwire.messages import Done, MoveLeader

    try:
        wanted = {joint: float(value) for joint, value in (text.split("=") for text in position)}
    except ValueError:
        raise UserError(f"{' '.join(position)}: write each joint as in wrist_roll=30") from None
    settings = options.load(config, data, port_base)
    command = MoveLeader(position=wanted, seconds=seconds)
    done: Done = control.request(settings.topics.control("sim"), "sim", command)
    typer.echo(done.text)


@app.command()
def demonstrate(
    kind: Annotated[KindName, typer.Option(help="What to do.")] = KindName.GRASP_HOLD,
    seed: Seed = 0,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    as_json: options.Json = False,
) -> None:
    """Perform one scripted episode through a running bench and robot service, and say what came of it."""
    settings = options.load(config, data, port_base)
    from gripwire import clock
    from gripwire_sim import truth
    from gripwire_sim.session import Session

    session = Session(settings.topics)
    try:
        script = session.prepare(kind.value, seed)
        typer.echo(f"{kind.value}, seed {seed}: {script.seconds:.1f} s", err=as_json)
        began = clock.monotonic_ns()
        late_s = session.perform(script)
    finally:
        session.close()
    topics = settings.topics
    records = [r for r in truth.fetch(topics.host("sim"), topics.sim_truth_port()) if r.t >= began]
    grasped = sum(r.grasped for r in records)
    if as_json:
        result = {"kind": kind.value, "seed": seed, "exposures": len(records), "grasped": grasped}
        options.emit(result | {"late_s": late_s})
    else:
        late = f"worst waypoint {late_s * 1000:.0f} ms late"
        typer.echo(f"grasped in {grasped} of {len(records)} exposures; {late}")
