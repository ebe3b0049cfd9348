"""`gripwire top`: what each service takes of the machine it runs on, by its own heartbeat."""

from contextlib import suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gripwire import clock
from gripwire.cli import options
from gripwire.cli.follow import nobody
from gripwire.cli.keys import Keys
from gripwire.cli.up import STATE_COLOUR
from gripwire.messages import Health
from gripwire.settings import Settings
from gripwire.survey import Survey

LOOK_S = 2.2
"""Two heartbeats: the first, which a latched topic repeats, may be a second old."""
FILE_WIDTH = 160
"""Columns into a file or a pipe, which has none of its own."""


def top(
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """CPU, memory, threads, lag and rates of every service, until q or Ctrl+C; once into a file."""
    settings = options.load(config, data, port_base)
    survey = Survey([topic for topic in settings.topics if topic.message is Health])
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    try:
        if as_json or not console.is_terminal:
            survey.listen(LOOK_S)
            beats = _beats(survey)
            if as_json:
                options.emit({"services": [_row(beat) for beat in beats]})
            elif beats:
                console.print(_table(beats))
            if not beats:
                raise nobody(settings, survey.barred())
            return
        with (
            suppress(KeyboardInterrupt),
            Keys() as keys,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while keys.pressed() != "q":
                live.update(_screen(survey, settings), refresh=True)
                survey.listen(0.5)
    finally:
        survey.close()


def _beats(survey: Survey) -> list[Health]:
    """The last heartbeat of each service that is alive."""
    alive = {name for name, verdict in survey.judge().items() if verdict.alive}
    return [m for name, m in survey.latest.items() if name in alive and isinstance(m, Health)]


def _row(beat: Health) -> dict[str, Any]:
    keys = (
        "service",
        "state",
        "pid",
        "host",
        "uptime_s",
        "cpu_percent",
        "rss_mb",
        "threads",
        "lag_ms",
        "rates",
    )
    return {key: getattr(beat, key) for key in keys}


def _screen(survey: Survey, settings: Settings) -> Group:
    beats = _beats(survey)
    foot = Text(
        "q or Ctrl+C leaves; cpu: 100% is one core, with the processes a service started", style="dim"
    )
    if not beats:
        return Group(Text(str(nobody(settings, survey.barred()))), foot)
    return Group(_table(beats), Text(""), foot)


def _table(beats: list[Health]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column in ("service", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("pid", "up", "cpu", "memory", "threads", "lag"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("rates", overflow="ellipsis", no_wrap=True, ratio=1)
    for beat in beats:
        rates = "  ".join(f"{name} {rate:.3g}/s" for name, rate in beat.rates.items() if rate)
        table.add_row(
            beat.service, Text(beat.state, STATE_COLOUR[beat.state]), _pid(beat), duration(beat.uptime_s),
            f"{beat.cpu_percent:.0f}%" if beat.rss_mb else "–",
            f"{beat.rss_mb:.0f} MB" if beat.rss_mb else "–",
            str(beat.threads or "–"), f"{beat.lag_ms:.1f} ms", Text(rates, "dim"),
        )  # fmt: skip
    if beats:
        cpu, memory = sum(b.cpu_percent for b in beats), sum(b.rss_mb for b in beats)
        table.add_row(
            "all",
            "",
            "",
            "",
            f"{cpu:.0f}%",
            f"{memory:.0f} MB",
            str(sum(b.threads for b in beats)),
            style="bold",
        )
    return table


def _pid(beat: Health) -> str:
    return str(beat.pid) if beat.host == clock.host_id() else f"{beat.pid} elsewhere"


def duration(seconds: float) -> str:
    """`12 s`, `3 m`, `2.5 h`, `4 d`: two digits of it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
