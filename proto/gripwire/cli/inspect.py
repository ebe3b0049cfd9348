"""`gripwire topics`, `echo`, `hz`, `delay`: look at a running stack from a second terminal."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from statistics import median, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from gripwire import clock
from gripwire.bus import Queued, Received
from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.liveness import Liveness
from gripwire.messages import Health, Message
from gripwire.settings import Settings
from gripwire.survey import Survey
from gripwire.topics import Topic

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="As listed by `gripwire topics`.")]
LOOK_S = 2.2
"""Long enough to see two heartbeats and a rate."""


def topics(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl+C.")] = False,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Every topic, declared and measured: rate, age, delay, gaps, publisher."""
    settings = options.load(config, data, port_base)
    survey = Survey(list(settings.topics))
    try:
        if watch and not as_json:
            _watch(survey)
            return
        while True:
            survey.listen(1.0 if watch else LOOK_S)
            verdicts = survey.judge()
            if as_json:
                rows = [_row(survey.meters[name].topic, verdict) for name, verdict in verdicts.items()]
                control = {name: settings.topics.control(name) for name in settings.topics.services}
                options.emit({"topics": rows, "control": control})
            else:
                Console().print(_table(survey, verdicts))
            if not watch:
                return
    except KeyboardInterrupt:
        return
    finally:
        survey.close()


def _watch(survey: Survey) -> None:
    with Live(console=Console(), refresh_per_second=4, screen=Console().is_terminal) as live:
        while True:
            survey.listen(0.5)
            live.update(_table(survey, survey.judge()))


def _row(topic: Topic, verdict: Liveness) -> dict[str, Any]:
    return {
        "topic": topic.name, "message": topic.message.__name__, "owner": topic.owner,
        "endpoint": topic.endpoint, "declared_hz": topic.rate_hz, "latched": topic.latched, **asdict(verdict),
    }  # fmt: skip


def _table(survey: Survey, verdicts: dict[str, Liveness]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("topic", "rate (declared)", "age", "delay", "lost", "state"):
        right = name not in ("topic", "state")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "state")
    for name, v in verdicts.items():
        topic = survey.meters[name].topic
        rate = f"{_number(v.rate_hz)} ({topic.rate_hz:g}) Hz" if topic.rate_hz else "on change"
        delay = None if v.delay_ms is None else v.delay_ms / 1e3
        table.add_row(
            name, rate, _seconds(v.age_s), _seconds(delay), str(v.lost or "–"),
            _state(v, survey.latest.get(name)),
        )  # fmt: skip
    return table


def _state(v: Liveness, latest: Message | None) -> str:
    if not v.seen:
        return "[dim]silent[/dim]"
    if not v.alive:
        return f"[red]{escape(v.reason)}[/red]"
    if isinstance(latest, Health) and latest.state != "ready":
        return f"[yellow]{latest.state}[/yellow]{escape(': ' + latest.problem if latest.problem else '')}"
    if not v.valid:
        return f"[yellow]not valid[/yellow]{escape(': ' + v.reason if v.reason else '')}"
    return "[green]ok[/green]" if v.on_rate else "[yellow]off its rate[/yellow]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def echo(
    topic: Name,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many messages.")] = None,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Print a topic's messages as they come."""
    console = Console(highlight=False)
    with suppress(KeyboardInterrupt):
        for received in _follow(options.load(config, data, port_base), topic, n):
            fields = received.message.model_dump()
            if received.payload is not None:
                fields["payload"] = f"{len(received.payload)} bytes"
            if as_json:
                options.emit(fields)
            else:
                console.print(
                    "\n".join(f"[bold]{key}[/bold]: {escape(str(value))}" for key, value in fields.items())
                )
                console.print("---", style="dim")


def hz(
    topic: Name,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many seconds.")] = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """A topic's rate and jitter, once a second."""
    with suppress(KeyboardInterrupt):
        for batch in _by_second(_follow(options.load(config, data, port_base), topic), n):
            gaps = [(b.t_receive - a.t_receive) / 1e6 for a, b in pairwise(batch)]
            if not gaps:
                typer.echo(f"{len(batch)} message in the last second")
                continue
            typer.echo(
                f"{1000 * len(gaps) / sum(gaps):6.2f} Hz   between messages: median {median(gaps):.1f} ms, "
                f"min {min(gaps):.1f}, max {max(gaps):.1f}"
            )


def delay(
    topic: Name,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many seconds.")] = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """How long after capture a topic's messages arrive here, once a second."""
    with suppress(KeyboardInterrupt):
        for batch in _by_second(_follow(options.load(config, data, port_base), topic), n):
            if batch[0].message.host != clock.host_id():
                typer.echo("unknown: this topic comes from another machine, whose clock is not ours")
                continue
            ages = [(r.t_receive - r.message.t_capture) / 1e6 for r in batch]
            p99 = quantiles(ages, n=100)[98] if len(ages) > 1 else ages[0]
            typer.echo(f"capture to here: median {median(ages):.2f} ms, p99 {p99:.2f}, max {max(ages):.2f}")


def _follow(settings: Settings, name: str, n: int | None = None) -> Iterator[Received[Message]]:
    """Messages of a topic, ``n`` of them or for ever; says so once when nothing comes."""
    if name not in settings.topics:
        raise UserError(f"no topic `{name}`; there are: {', '.join(t.name for t in settings.topics)}")
    topic = settings.topics[name]
    seen, warned, since = 0, False, time.monotonic()
    with Queued(topic, topic.message) as reader:
        while n is None or seen < n:
            received = reader.receive(0.2)
            if received is not None:
                seen += 1
                yield received
            elif not seen and not warned and time.monotonic() - since > 3:
                warned = True
                typer.echo(f"waiting for `{name}` at {topic.endpoint}: nothing yet", err=True)


def _by_second(messages: Iterator[Received[Message]], n: int | None) -> Iterator[list[Received[Message]]]:
    """Batches of one second each, ``n`` of them."""
    batch: list[Received[Message]] = []
    given = 0
    for received in messages:
        batch.append(received)
        if received.t_receive - batch[0].t_receive >= 1_000_000_000:
            yield batch
            batch, given = [received], given + 1
            if n is not None and given >= n:
                return
