"""`gripwire doctor`: what is wrong here, and what to do about it."""

from collections.abc import Iterable
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gripwire.cli import options
from gripwire.doctor.finding import Finding, Here
from gripwire.errors import UserError
from gripwire.messages import Health
from gripwire.settings import Settings
from gripwire.survey import Survey

LOOK_S = 2.2
"""Two heartbeats, and time enough for frames and rewards."""
_COLOUR = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """What is wrong on this machine and in its stack, and what to do; exit code 1 if something fails."""
    console = Console(highlight=False)
    found: list[Finding] = []
    try:
        settings = options.load(config, data, port_base)
        _ = settings.topics  # which reads the keys
    except UserError as e:
        # Nothing else can be looked at: where would the data be, and which ports?
        found = [Finding("settings", "fail", str(e), "correct it; all else is looked at afterwards")]
        _show(console, found, as_json)
    else:
        for finding in _examine(settings):
            found.append(finding)
            if not as_json:
                _print(console, finding)
        if as_json:
            _show(console, found, as_json)
    counts = {level: sum(f.level == level for f in found) for level in ("ok", "warn", "fail")}
    if not as_json:
        console.print(
            f"{counts['ok']} well, {counts['warn']} to look at, {counts['fail']} that cannot work",
            style="bold",
        )
    raise typer.Exit(1 if counts["fail"] else 0)


def _examine(settings: Settings) -> Iterable[Finding]:
    from gripwire.doctor.table import examine

    return examine(listen(settings))


def listen(settings: Settings, seconds: float = LOOK_S) -> Here:
    """The last heartbeat of each service that is alive, and the last message of each other topic that is."""
    survey = Survey(list(settings.topics))
    try:
        survey.listen(seconds)
        alive = {name for name, verdict in survey.judge().items() if verdict.alive}
        heard = {name: message for name, message in survey.latest.items() if name in alive}
        barred = survey.barred()
    finally:
        survey.close()
    beats = {m.service: m for m in heard.values() if isinstance(m, Health) and m.state != "stopping"}
    others = {name: m for name, m in heard.items() if not isinstance(m, Health)}
    return Here(settings, beats, others, barred=barred)


def _show(console: Console, found: list[Finding], as_json: bool) -> None:
    if as_json:
        well = not any(finding.level == "fail" for finding in found)
        options.emit({"well": well, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            _print(console, finding)


def _print(console: Console, finding: Finding) -> None:
    """A line, broken under itself where the terminal is narrow, and the remedy below it."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=4, no_wrap=True)
    table.add_column(width=9, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        Text(finding.level, _COLOUR[finding.level]), Text(finding.check, "bold"), Text(finding.text)
    )
    if finding.remedy:
        table.add_row("", "", Text(f"→ {finding.remedy}", _COLOUR[finding.level]))
    console.print(table)
