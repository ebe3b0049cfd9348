"""`gripwire delay`: where the time goes between the moment in front of the camera and a message here."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gripwire import clock
from gripwire.bus import Received
from gripwire.cli import options
from gripwire.cli.follow import topic_named
from gripwire.messages import Message, Reward, RobotAction
from gripwire.survey import Survey

TO_PUBLISH, TO_HERE, IN_ALL = "capture to publish", "publish to here", "capture to here"
BEFORE = "camera and waiting"
"""Of a reward: until its frame was published, and what it waited in between."""


@dataclass(frozen=True)
class Figures:
    """Of the milliseconds that one stage took."""

    median: float
    p90: float
    max: float

    @classmethod
    def of(cls, times: list[float]) -> "Figures":
        """At least one is needed."""
        return cls(
            median(times),
            quantiles(times, n=10, method="inclusive")[8] if len(times) > 1 else times[0],
            max(times),
        )


def stages(received: Received[Message]) -> dict[str, float]:
    """Milliseconds by stage, in their order, as far as the message and the clocks tell. Pure."""
    message = received.message
    out: dict[str, float] = {}
    to_publish = (message.t_publish - message.t_capture) / 1e6
    if isinstance(message, Reward) and message.stages_ms:
        known = message.stages_ms
        out = {BEFORE: max(0.0, to_publish - sum(known.values())), **known}
    here = message.host == clock.host_id()
    to_here = {TO_HERE: (received.t_receive - message.t_publish) / 1e6} if here else {}
    if isinstance(message, RobotAction):  # repeated until there is another: how old a goal is, is no delay
        led = message.latency_ms
        return ({"leader read to goal written": led} if led is not None else {}) | to_here
    out[TO_PUBLISH] = to_publish  # both are readings of the publisher's own clock, wherever it runs
    return out | to_here | ({IN_ALL: (received.t_receive - message.t_capture) / 1e6} if here else {})


def figures(batch: list[Received[Message]]) -> dict[str, Figures]:
    """Median, 90th percentile and maximum of every stage that any of these messages tells of."""
    times: dict[str, list[float]] = {}
    for received in batch:
        for stage, ms in stages(received).items():
            times.setdefault(stage, []).append(ms)
    last = [TO_PUBLISH, TO_HERE, IN_ALL]
    order = [stage for stage in times if stage not in last] + [stage for stage in last if stage in times]
    return {stage: Figures.of(times[stage]) for stage in order}


def delay(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="Stage by stage; without one, a line per topic.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many seconds.")] = None,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """How long from capture to publication and to here, and where that goes, once a second."""
    settings = options.load(config, data, port_base)
    if topic is not None:
        topic_named(settings, topic)
    # What comes when something changes has no rate at which to be late; latched ones come again.
    names = [topic] if topic else [t.name for t in settings.topics if t.rate_hz and not t.latched]
    survey = Survey([settings.topics[name] for name in names])
    console = Console(highlight=False)
    try:
        with suppress(KeyboardInterrupt):
            if as_json:
                for second in _seconds(survey, n):
                    options.emit({name: _plain(batch) for name, batch in second.items()})
            elif console.is_terminal:
                with Live(console=console, auto_refresh=False) as live:
                    for second in _seconds(survey, n):
                        live.update(_draw(topic, second), refresh=True)
            else:
                for second in _seconds(survey, n):
                    console.print(_draw(topic, second), soft_wrap=True)
    finally:
        survey.close()


def _seconds(survey: Survey, n: int | None) -> Iterator[dict[str, list[Received[Message]]]]:
    """What arrived by topic, second by second, from the first message on; says so once when none comes."""
    since, warned, given = time.monotonic(), False, 0
    while n is None or given < n:
        batch: dict[str, list[Received[Message]]] = {name: [] for name in survey.meters}
        for name, received in survey.listen(1.0 if given else 0.1):
            batch[name].append(received)
        if given == 0:  # whole seconds only: the first begins with the first message
            if any(batch.values()):
                for name, received in survey.listen(0.9):
                    batch[name].append(received)
            else:
                if not warned and time.monotonic() - since > 3:
                    warned = True
                    where = ", ".join(f"`{n}` at {m.topic.endpoint}" for n, m in survey.meters.items())
                    typer.echo(f"waiting for {where}: {survey.barred() or 'nothing yet'}", err=True)
                continue
        given += 1
        yield batch


def _plain(batch: list[Received[Message]]) -> dict[str, Any]:
    told = {stage: {k: round(v, 3) for k, v in vars(f).items()} for stage, f in figures(batch).items()}
    return {"messages": len(batch), "stages_ms": told}


def _draw(topic: str | None, second: dict[str, list[Received[Message]]]) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=True)
    if topic:
        batch = second[topic]
        table.add_column(f"{topic}, {len(batch)} messages", no_wrap=True, min_width=32)
        for column in ("median", "p90", "max"):
            table.add_column(column, justify="right")
        for stage, f in figures(batch).items():
            total = stage in (TO_PUBLISH, IN_ALL)
            table.add_row(
                Text(stage if total else f"  {stage}", "bold" if total else ""), *_times(f)
            )  # fmt: skip
        return Group(table, *_unknown(batch))
    table.add_column("topic", no_wrap=True)
    for column in ("messages", "to publish", "max", "to here", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, batch in second.items():
        known = figures(batch)
        cells = [
            cell
            for stage in (TO_PUBLISH, TO_HERE)
            for cell in (_times(known[stage])[::2] if stage in known else ["–"] * 2)
        ]
        table.add_row(name, str(len(batch)), *cells)
    return Group(table, *_unknown([r for batch in second.values() for r in batch]))


def _times(f: Figures) -> list[str]:
    return [f"{ms:.2f} ms" if ms < 100 else f"{ms:.0f} ms" for ms in (f.median, f.p90, f.max)]


def _unknown(batch: list[Received[Message]]) -> list[Text]:
    if not batch:
        return [Text("nothing in the last second")]
    if any(r.message.host != clock.host_id() for r in batch):
        return [Text("unknown from there to here: it comes from another machine, whose clock is not ours")]
    return []
