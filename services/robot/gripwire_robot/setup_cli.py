"""`gripwire robot ports`, `check` and `calibrate`: from a box of parts to an arm that can be driven."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gripwire.cli import options

if TYPE_CHECKING:
    from gripwire_robot.checks import Finding
    from gripwire_robot.ports import Port
    from gripwire_robot.settings import Robot

PortFlag = Annotated[
    str | None, typer.Option("--port", help="Serial port: a path, serial:XXXX or usb:VID:PID:SERIAL.")
]
IdFlag = Annotated[str | None, typer.Option("--id", help="LeRobot's id: the calibration file's name.")]
FolderFlag = Annotated[
    Path | None, typer.Option("--calibration-dir", help="Folder of <id>.json; LeRobot's own.")
]


def ports(config: options.Config = None, json: options.Json = False) -> None:
    """List the serial ports, and what to write in gripwire.toml to mean one wherever it is plugged in."""
    from gripwire.errors import UserError
    from gripwire_robot import ports as serial_ports

    robot = _section(options.load(config))
    found = serial_ports.present()
    rows = [_row(port, found, robot) for port in found]
    if json:
        options.emit({"ports": rows})
    else:
        _print_ports(rows)
    if not any(row["usb"] for row in rows):
        raise UserError(
            "there is no USB serial port on this machine: plug the arm's adapter in, and see whether `dmesg` "
            "tells of it (in a container or a virtual machine it must be passed through)"
        )


def _row(port: "Port", found: "list[Port]", robot: "Robot") -> dict[str, Any]:
    from gripwire_robot import ports as serial_ports

    return {
        "device": port.device,
        "serial": port.serial,
        "usb": port.usb,
        "description": port.description,
        "used_by": serial_ports.users(port.device),
        "set_as": [
            key
            for key in ("port", "leader_port")
            if (name := getattr(robot, key)) and _means(name, port, found)
        ],
        "port": serial_ports.setting(port, found),
    }


def _means(name: str, port: "Port", found: "list[Port]") -> bool:
    from gripwire.errors import UserError
    from gripwire_robot import ports as serial_ports

    try:
        return Path(serial_ports.find(name, lambda: found)).resolve() == Path(port.device).resolve()
    except UserError:  # `check` says why
        return False


def _print_ports(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        serial = f"serial number {row['serial']}" if row["serial"] else "no serial number"
        typer.echo(f"{row['device']}  " + (f"{row['description']}, {serial}" if row["usb"] else "not USB"))
        for key in row["set_as"]:
            typer.echo(f"    is `{key}` in [robot] now")
        for user in row["used_by"]:
            typer.echo(f"    in use by {user}")
        if not row["set_as"]:
            typer.echo(f'    port = "{row["port"]}"')


def check(
    config: options.Config = None,
    port: PortFlag = None,
    id: IdFlag = None,
    calibration_dir: FolderFlag = None,
    json: options.Json = False,
) -> None:
    """Look at port, motors, calibration and supply; exit code 0 only when all is well. Nothing moves."""
    from dataclasses import asdict

    from gripwire_robot import connect

    robot = _section(
        options.load(
            config, robot__port=port, robot__id=id, robot__calibration_dir=calibration_dir
        )
    )  # fmt: skip
    devices = [connect.follower(robot), *([connect.leader(robot)] if robot.leader_port else [])]
    found = {device.what: connect.examine(device) for device in devices}
    well = all(finding.well for findings in found.values() for finding in findings)
    if json:
        told = {what: [asdict(finding) for finding in findings] for what, findings in found.items()}
        options.emit({"well": well} | told)
    else:
        for what, findings in found.items():
            _print_findings(what, findings)
    raise typer.Exit(0 if well else 1)


def _print_findings(what: str, findings: "list[Finding]") -> None:
    typer.echo(f"the {what}")
    marks = {True: "ok   ", False: "WRONG", None: "-    "}
    for finding in findings:
        typer.echo(f"  {marks[finding.well]}  {finding.check:<12} {finding.text}")


def calibrate(
    leader: Annotated[bool, typer.Option("--leader", help="The leader arm.")] = False,
    config: options.Config = None,
    port: PortFlag = None,
    id: IdFlag = None,
    calibration_dir: FolderFlag = None,
) -> None:
    """Calibrate by hand, with LeRobot's own procedure; the file before is kept, dated."""
    from gripwire_robot import connect
    from gripwire_robot.calibrate import calibrate as by_hand

    whose = "leader_" if leader else ""
    flags: dict[str, Any] = {"port": port, "id": id, "calibration_dir": calibration_dir}
    robot = _section(options.load(config, **{f"robot__{whose}{key}": value for key, value in flags.items()}))
    device = connect.leader(robot) if leader else connect.follower(robot)
    file = by_hand(device, typer.echo, typer.confirm)
    typer.echo(f"the calibration is in {file}; `gripwire robot check` looks at all of it")


def _section(settings: Any) -> "Robot":
    from gripwire_robot.settings import Robot

    section: Robot = settings.section("robot", Robot)
    return section
