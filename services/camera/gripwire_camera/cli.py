"""`gripwire camera`."""

from typing import Annotated, Any

import typer

from gripwire.cli import options

app = typer.Typer(no_args_is_help=True, help="A camera on the bus, one process per camera.")


@app.callback()
def _root() -> None:
    pass


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    name: Annotated[str, typer.Option(help="The camera's slot.")] = "gripper_cam",
    source: Annotated[
        str | None,
        typer.Option(
            help="Device index or path, http(s):// MJPEG address, rtsp:// address, video file, or recording "
            "of the bus (.mcap)."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures per second that it has to give.")] = None,
    fourcc: Annotated[str | None, typer.Option(help="Pixel format asked of a device; MJPG.")] = None,
    exposure: Annotated[float | None, typer.Option(help="Fixed exposure, in the driver's units.")] = None,
    white_balance: Annotated[float | None, typer.Option(help="Fixed white balance, kelvin.")] = None,
    gain: Annotated[float | None, typer.Option(help="Fixed gain, in the driver's units.")] = None,
    encoding: Annotated[str | None, typer.Option(help="jpeg, or raw (RGB8).")] = None,
    quality: Annotated[int | None, typer.Option(help="JPEG quality, 1 to 100.")] = None,
    lerobot_port: Annotated[
        int | None, typer.Option(help="Also send LeRobot's own `zmq` camera format, on this port.")
    ] = None,
    loop: Annotated[
        bool | None, typer.Option("--loop/--no-loop", help="Play a video, or a recording, over and over.")
    ] = None,
    replay: options.Replay = None,
    rate: options.Rate = 1.0,
) -> None:
    """Publish one camera until Ctrl+C."""
    from gripwire import service

    if replay is not None:
        source = str(replay)
    flags: dict[str, Any] = {
        "source": source, "width": width, "height": height, "fps": fps, "fourcc": fourcc,
        "exposure": exposure, "white_balance": white_balance, "gain": gain,
        "encoding": encoding, "quality": quality, "lerobot_port": lerobot_port, "loop": loop,
    }  # fmt: skip
    settings = options.load(config, data, port_base, **{f"cameras.{name}.{k}": v for k, v in flags.items()})
    if name not in settings.cameras:
        from gripwire.errors import UserError

        raise UserError(
            f"there is no camera `{name}` in the settings (there are: {', '.join(settings.cameras)}); "
            f"add [cameras.{name}] with its source to gripwire.toml, or give --source"
        )
    from gripwire_camera.service import build

    if replay is not None:
        from gripwire.recording import alone

        settings = alone.private(settings, port_base)
        alone.say_where(f"camera/{name}", settings, alone.Run(replay, rate, bool(loop)), "its own frames")
    raise typer.Exit(service.run(f"camera/{name}", settings, build(name, rate)))
