"""`gripwire capsule`."""

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import CapsuleState
from gripwire.settings import Settings

if TYPE_CHECKING:
    from gripwire import control

app = typer.Typer(
    no_args_is_help=True,
    help="The last minutes of the bus, kept in a ring on the disk, for when something went wrong.",
)
Note = Annotated[str, typer.Option(help="What you saw, in your words; it is kept in the capsule.")]
Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Put it there; DATA/capsules otherwise.")
]
Before = Annotated[
    bool, typer.Option("--before", help="What the run before this one left: it was killed, or lost power.")
]
File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A file, or a name in DATA/capsules; the newest.")
]
_SAVE_S = 120.0
_ANSWER_S = 15.0
"""It comes after the arm and the reward: on a busy machine it takes its time."""


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    minutes: Annotated[float | None, typer.Option(help="Of the bus that are kept.")] = None,
    megabytes: Annotated[int | None, typer.Option(help="Of disk that they may take.")] = None,
    auto: Annotated[bool | None, typer.Option("--auto/--no-auto", help="Save when a service dies.")] = None,
) -> None:
    """Keep the ring until Ctrl+C (`gripwire up` does it)."""
    from gripwire import service
    from gripwire.capsule.service import CapsuleService

    ring: dict[str, Any] = {"capsule__minutes": minutes, "capsule__megabytes": megabytes}
    settings = options.load(config, data, port_base, capsule__auto=auto, **ring)
    raise typer.Exit(service.run("capsule", settings, CapsuleService))


@app.command()
def save(
    note: Note = "",
    out: Out = None,
    before: Before = False,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Make one file of the last minutes, with settings, versions, bundles and logs; waits for it."""
    settings = options.load(config, data, port_base)
    if out is not None and out.suffix != ".mcap":
        raise UserError(f"{out}: the name of a capsule ends in .mcap")
    if out is not None and out.exists():
        raise UserError(f"{out} exists already and is never overwritten; choose another name")
    running = not before and _is_running(settings)
    if running:
        path = _ask(settings, note)
    else:
        path = _from_the_disk(settings, note, before)
        if not before:
            typer.echo("the capsule service does not run: this is what it left on the disk", err=True)
    if out is not None:
        _move(path, out)
        path = out
    here = path.exists()
    if as_json:
        options.emit({"capsule": path.name, "path": str(path) if here else None, "service": running})
    elif here:
        typer.echo(f"saved {path}; `gripwire capsule show{f' {out}' if out else ''}` tells what is inside")
    else:
        typer.echo(
            f"saved {path.name} in the folder capsules/ of the data folder of the machine or container where "
            f"the capsule service runs (it is not under {settings.data})"
        )


def _is_running(settings: Settings) -> bool:
    """Whether its heart beats; the topic is latched, so that its last beat comes at once."""
    from gripwire.bus import Queued
    from gripwire.messages import Health

    with Queued(settings.topics["health/capsule"], Health) as reader:
        beat = reader.receive(3.0)
        return beat is not None and beat.message.state != "stopping"


def _ask(settings: Settings, note: str) -> Path:
    """The running service saves one; its place under this data folder. Paths never travel.

    Raises:
        UserError: it could not be saved, in the service's words.
    """
    from gripwire import control
    from gripwire.messages import SaveCapsule

    client = control.Client(settings.topics.control("capsule"), "capsule")
    try:
        _until_idle(client)  # one may have been begun by itself a moment ago
        name = client.ask(SaveCapsule(note=note), _ANSWER_S).saving
        state = _until_idle(client)
    finally:
        client.close()
    if state.failed:
        raise UserError(state.failed)
    return settings.data / "capsules" / Path(name or state.saved).name


def _until_idle(client: "control.Client") -> CapsuleState:
    """What the service says once it saves nothing."""
    from gripwire.messages import CapsuleStatus

    deadline = time.monotonic() + _SAVE_S
    while (state := client.ask(CapsuleStatus(), _ANSWER_S)).saving:
        if time.monotonic() > deadline:
            raise UserError(
                f"{state.saving} is not saved after {_SAVE_S:g} s; `gripwire capsule status` tells more"
            )
        time.sleep(0.1)
    assert isinstance(state, CapsuleState)
    return state


def _from_the_disk(settings: Settings, note: str, before: bool) -> Path:
    from gripwire.capsule import join, ring

    folder = settings.data / "capsules" / "ring"
    parts = ring.segments(folder / ring.BEFORE if before else folder)
    if not parts:
        what = "no ring of an earlier run" if before else "no ring, and the capsule service does not run"
        raise UserError(
            f"{folder}: there is {what}; `gripwire up` keeps one, and --data names another data folder"
        )
    out = settings.data / "capsules" / time.strftime("capsule-%Y%m%d-%H%M%S.mcap")
    return join.save(parts, out, settings, "left by an earlier run" if before else "asked for", note).path


def _move(path: Path, out: Path) -> None:
    """Whole or absent, and never over another file.

    Raises:
        UserError: the capsule is not on this machine, or cannot be put there; then it stays where it is.
    """
    from gripwire.files import fsync_dir, make_folder

    if not path.exists():
        raise UserError(
            f"saved {path.name}, but not on this machine: it lies in the folder capsules/ of the data folder "
            "where the capsule service runs; copy it from there"
        )
    make_folder(out.parent)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(path, out)
        except FileExistsError:
            raise
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(path, aside)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.rename(aside, out)
        fsync_dir(out.parent)
        path.unlink()
    except OSError as e:
        aside.unlink(missing_ok=True)
        raise UserError(f"{out}: cannot be written: {e.strerror}; the capsule is {path}") from e


@app.command()
def status(
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """What the ring holds, and which capsules there are."""
    from gripwire import control
    from gripwire.messages import CapsuleStatus

    settings = options.load(config, data, port_base)
    state: CapsuleState | None = None
    if _is_running(settings):
        state = control.request(settings.topics.control("capsule"), "capsule", CapsuleStatus(), _ANSWER_S)
    kept = sorted((settings.data / "capsules").glob("*.mcap"), key=lambda path: path.stat().st_mtime)
    if as_json:
        options.emit({"service": state.model_dump() if state else None, "capsules": [str(p) for p in kept]})
        return
    if state is None:
        typer.echo("the capsule service does not run: `gripwire up` or `gripwire capsule run` starts it")
    else:
        typer.echo(f"the ring holds {state.ring_s:.0f} s, {state.ring_mb:.0f} MB")
        for text in (state.paused, state.failed, state.saving and f"saving {state.saving}"):
            if text:
                typer.echo(text)
    for path in kept:
        typer.echo(f"{path}   {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def show(
    file: File = None,
    print_: Annotated[
        str | None, typer.Option("--print", metavar="NAME", help="Print one of its attachments instead.")
    ] = None,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """What is inside a capsule: topics, seconds, versions, note, bundles, logs."""
    from gripwire.capsule import show as showing

    path = _find(file, options.load(config, data, port_base).data / "capsules")
    inside = showing.read(path)
    if print_ is not None:
        typer.echo(inside.attachment(print_).decode(errors="replace"))
    elif as_json:
        options.emit(inside.summary())
    else:
        typer.echo(inside.text())


def _find(file: Path | None, folder: Path) -> Path:
    if file is None:
        newest = max(folder.glob("*.mcap"), key=os.path.getmtime, default=None)
        if newest is None:
            raise UserError(f"{folder}: there is no capsule; `gripwire capsule save` makes one")
        return newest
    return file if file.exists() or not (folder / file).exists() else folder / file
