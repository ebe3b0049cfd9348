"""`gripwire up`: the whole stack, supervised, on one screen."""

import signal
import threading
import time
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gripwire import logs, supervise
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.messages import EpisodeState, Health, ModelState, Reward, TrainerState
from gripwire.settings import Settings
from gripwire.survey import Survey

STATE_COLOUR = {"ready": "green", "starting": "cyan", "degraded": "yellow", "stopping": "cyan"}


def up(
    profile: Annotated[
        str, typer.Option("--profile", help="robot: the hardware in gripwire.toml; sim: the virtual bench.")
    ] = "robot",
    no_sim: Annotated[bool, typer.Option("--no-sim", help="The bench runs elsewhere.")] = False,
    no_camera: Annotated[bool, typer.Option("--no-camera")] = False,
    no_robot: Annotated[bool, typer.Option("--no-robot")] = False,
    no_reward: Annotated[bool, typer.Option("--no-reward")] = False,
    no_recorder: Annotated[bool, typer.Option("--no-recorder")] = False,
    no_trainer: Annotated[bool, typer.Option("--no-trainer")] = False,
    no_capsule: Annotated[
        bool, typer.Option("--no-capsule", help="Keep no ring of the last minutes.")
    ] = False,
    metrics: Annotated[
        bool | None, typer.Option("--metrics/--no-metrics", help="Serve Prometheus metrics as well.")
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Start every service, restart what dies, show one screen of state; Ctrl+C stops all of it."""
    if profile not in ("sim", "robot"):
        raise UserError(f"--profile {profile}: there are `robot` and `sim`")
    # gripwire.toml describes the hardware here; the bench is other hardware.
    bare = profile == "sim" and config is None
    settings = options.load(config, data, port_base, ignore_file=bare, metrics__enabled=metrics)
    logs.configure("up", settings.bus.log)
    off = {"sim": no_sim, "camera": no_camera, "robot": no_robot, "reward": no_reward}
    off |= {"recorder": no_recorder, "trainer": no_trainer, "capsule": no_capsule}
    without = frozenset(name for name, flag in off.items() if flag)
    table = supervise.stack(settings, cast(supervise.Profile, profile), without)
    if not table:
        raise UserError("nothing to run: every service is switched off or not installed")
    supervise.refuse_taken_ports(settings.topics, bench=any(p.service == "sim" for p in table))
    console = Console(stderr=True)
    log_dir = settings.data / "runs" / time.strftime("up-%Y%m%d-%H%M%S") if console.is_terminal else None
    env = supervise.bench_environment(settings) if profile == "sim" else {}
    run(settings, supervise.Supervisor(settings, table, env, log_dir), console, log_dir)


def run(settings: Settings, supervisor: supervise.Supervisor, console: Console, log_dir: Path | None) -> None:
    """Supervise until SIGINT or SIGTERM. With ``log_dir`` draw the screen, else leave stderr to the logs."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    shown = ("reward", "episode", "model", "trainer")
    names = [f"health/{service}" for service in supervisor.children] + list(shown)
    survey = Survey([settings.topics[name] for name in names])
    screen = Live(console=console, refresh_per_second=4, transient=False) if log_dir else None
    if log_dir:  # lines printed between redraws would tear the screen
        logs.configure("up", settings.bus.log, log_dir / "up.log")
    try:
        if screen:
            screen.start()
        while not stopping.is_set():
            supervisor.poll(_ready(supervisor, survey))
            survey.listen(0.1)
            for topic in ("episode", "model"):
                logs.context.see(survey.latest.get(topic))
            if screen:
                screen.update(draw(supervisor, survey, log_dir))
    finally:
        if screen:
            screen.update(Text("stopping every service ..."))
        supervisor.stop()
        if screen:
            screen.stop()
        survey.close()
        codes = {name: c.last_exit for name, c in supervisor.children.items() if c.last_exit}
        console.print(f"stopped{f'; ended with an error: {codes}' if codes else ''}")


def _ready(supervisor: supervise.Supervisor, survey: Survey) -> set[str]:
    return {
        name
        for name, child in supervisor.children.items()
        if (health := _health(child, survey)) and health.state in ("ready", "degraded")
    }


def _health(child: supervise.Child, survey: Survey) -> Health | None:
    """The heartbeat of this very process, not of the one before it."""
    health = survey.latest.get(f"health/{child.process.service}")
    if isinstance(health, Health) and child.popen and health.pid == child.popen.pid:
        return health
    return None


def draw(supervisor: supervise.Supervisor, survey: Survey, log_dir: Path | None) -> Group:
    """The one screen of state."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "state", "up", "rates", "restarts", "what is wrong"):
        table.add_column(column, justify="right" if column in ("up", "restarts") else "left")
    for name, child in supervisor.children.items():
        table.add_row(name, *_cells(child, _health(child, survey)))
    lines = [Text(line) for line in _summary(survey)]
    foot = Text(f"logs: {log_dir}    Ctrl+C stops everything", style="dim")
    return Group(table, Text(""), *lines, foot)


def _cells(child: supervise.Child, health: Health | None) -> tuple[Text | str, ...]:
    restarts = str(child.restarts or "")
    if child.given_up:
        return Text("given up", "red"), "", "", restarts, Text(child.last_words(), "red")
    if not child.running:
        return Text("waiting", "dim"), "", "", restarts, Text(child.last_words() if child.restarts else "")
    if health is None:
        return Text("starting", "cyan"), "", "", restarts, ""
    rates = "  ".join(f"{name} {rate:g}/s" for name, rate in health.rates.items() if rate)
    state = Text(health.state, STATE_COLOUR[health.state])
    return state, f"{health.uptime_s:.0f} s", Text(rates), restarts, Text(health.problem)


def _summary(survey: Survey) -> list[str]:
    lines = []
    match survey.latest.get("reward"):
        case Reward(valid=True, probability=float(p), threshold=t, decision=d):
            lines.append(f"reward    {p:6.3f} (threshold {t:.2f})  {'SUCCESS' if d else 'not yet'}")
        case Reward(reason=reason):
            lines.append(f"reward    not valid: {reason}")
    match survey.latest.get("model"):
        case ModelState(serving=s, epoch=e, event=event, reason=reason):
            lines.append(f"model     {s or 'none yet'}, epoch {e}  {event} {reason}")
    match survey.latest.get("episode"):
        case EpisodeState(state=s, dataset=ds, rows=rows, saved=saved):
            lines.append(f"episode   {s}  {ds}  {rows} rows, {saved} saved")
    match survey.latest.get("trainer"):
        case TrainerState(stage=stage, progress=p, done=False) if stage != "idle":
            lines.append(f"trainer   {stage} {p:.0%}")
        case TrainerState(error=error) if error:
            lines.append(f"trainer   failed: {error}")
    return lines
