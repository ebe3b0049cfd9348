"""`gripwire robot drive`, `yield`, `teleop` and `intervene`: who drives the arm."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gripwire.cli import options

if TYPE_CHECKING:
    from gripwire.messages import RobotAction

By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who drives; this command's own name.")]


Name = Annotated[str, typer.Option("--by", metavar="NAME", help="Who drives.")]


class OnOff(StrEnum):
    """Whether the leader is to have the arm."""

    ON = "on"
    OFF = "off"


def drive(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    *,
    by: Name,
    lease_s: Annotated[float, typer.Option("--lease", help="Seconds; each goal begins them anew.")] = 5.0,
    force: Annotated[bool, typer.Option("--force", help="Take it from whoever has it.")] = False,
) -> None:
    """Take the arm for NAME, whose goals alone are obeyed then; again after it was stopped."""
    from gripwire.messages import Drive

    typer.echo(_ask(options.load(config, data, port_base), Drive(by=by, lease_s=lease_s, force=force)).text)


def yield_(
    config: options.Config = None, data: options.Data = None, port_base: options.PortBase = None, *, by: Name
) -> None:
    """Let go of the arm for NAME; it stays where it was sent."""
    from gripwire.messages import Yield

    typer.echo(_ask(options.load(config, data, port_base), Yield(by=by)).text)


def intervene(
    switch: Annotated[OnOff, typer.Argument(help="on: the leader takes over; off: it gives the arm back.")],
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Take over from a policy by the leader arm, or give the arm back."""
    from gripwire.messages import Intervene

    typer.echo(_ask(options.load(config, data, port_base), Intervene(on=switch is OnOff.ON)).text)


def teleop(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    by: By = "",
    json: options.Json = False,
) -> None:
    """Drive the follower by the leader arm until Ctrl+C; shows rate and latency.

    The latency is from reading the leader to the goal written. Exit code 1 when something else ended it: the
    leader was unplugged, a joint was blocked, somebody stopped the arm.
    """
    from gripwire.errors import UserError
    from gripwire.messages import Teleoperate

    settings = options.load(config, data, port_base)
    robot = _client(settings)
    typer.echo(robot.ask(Teleoperate(on=True, by=by)).text, err=json)
    summary, why = {}, ""
    try:
        with _until_signal() as stopped:
            summary, why = _show(settings, stopped, json)
    finally:
        with contextlib.suppress(UserError):
            robot.ask(Teleoperate(on=False, by=by))
        robot.close()
    if json:
        options.emit(summary | {"ended": why or "on request"})
    if why:
        raise UserError(f"teleoperation ended: {why}")
    if not json:
        typer.echo(
            f"{summary['goals']} goals in {summary['seconds']:.0f} s, {_words(summary)}; the arm holds"
        )


def _show(settings: Any, stopped: threading.Event, quiet: bool) -> tuple[dict[str, Any], str]:
    """Follow teleoperation on one line that is written over; its figures, and why it ended by itself."""
    import time

    from gripwire.bus import Latest, Queued
    from gripwire.messages import Health, RobotAction

    began, latencies, goals = time.monotonic(), [], 0
    rates: list[float] = []
    topics, why, shown, before = settings.topics, "", 0.0, -1
    with (
        Queued(topics["robot/action"], RobotAction) as actions,
        Latest(topics["health/robot"], Health) as beats,
    ):
        last = began
        beat = beats.get()
        while not stopped.is_set() and not why:
            received = actions.receive(0.1)
            now = time.monotonic()
            fresh = beats.get()
            if fresh is not beat and fresh is not None:
                beat = fresh
                count = fresh.message.counts.get("leader_goals", 0)
                goals += max(0, count - before) if before >= 0 else 0
                before = count
                if rate := fresh.message.rates.get("leader_goals"):
                    rates.append(rate)
            if received is None:
                why = "the robot service is gone; `gripwire robot status`" if now - last > 2.0 else ""
                continue
            last, action = now, received.message
            if action.latency_ms is not None and action.source == "leader":
                latencies.append(action.latency_ms)
            why = _ended(action, now - began)
            if not quiet and now - shown > 0.25 and sys.stderr.isatty():
                shown = now
                line = _words(_figures(rates[-1:], latencies[-60:]))
                typer.echo(f"\rleader drives: {line}  (Ctrl+C ends it)   ", nl=False, err=True)
    if not quiet and sys.stderr.isatty():
        typer.echo("", err=True)
    seconds = time.monotonic() - began
    return _figures(rates[1:], latencies) | {"goals": goals, "seconds": round(seconds, 2)}, why


def _ended(action: "RobotAction", after_s: float) -> str:
    """Why the leader drives no longer, as far as the action tells; empty while it does, or has just begun."""
    if action.source in ("leader", "reset") or after_s < 1.0:
        return ""
    return action.reason or f"the arm follows `{action.source}` now"


def _figures(rates: list[float], latencies: list[float]) -> dict[str, Any]:
    ordered = sorted(latencies)
    pick = (lambda share: round(ordered[int(share * (len(ordered) - 1))], 2)) if ordered else lambda _: None
    return {
        "rate_hz": round(sum(rates) / len(rates), 1) if rates else None,
        "latency_ms": {"median": pick(0.5), "p99": pick(0.99), "worst": pick(1.0)},
    }


def _words(figures: dict[str, Any]) -> str:
    rate, latency = figures["rate_hz"], figures["latency_ms"]
    if rate is None or latency["median"] is None:
        return "waiting for the first second"
    return f"{rate:.0f} Hz, latency {latency['median']:.1f} ms median, {latency['p99']:.1f} ms p99"


@contextlib.contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """An event that Ctrl+C, SIGTERM and a closed terminal set."""
    stopped = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _client(settings: Any) -> Any:
    from gripwire import control

    return control.Client(settings.topics.control("robot"), "robot")


def _ask(settings: Any, command: Any) -> Any:
    client = _client(settings)
    try:
        return client.ask(command)
    finally:
        client.close()
