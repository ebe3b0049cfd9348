"""`gripwire topics` and `hz`: look at a running stack from a second terminal."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console

from gripwire.bus import Received
from gripwire.cli import options
from gripwire.cli import watch as watching
from gripwire.cli.follow import Name, follow, topic_named
from gripwire.liveness import Liveness
from gripwire.messages import Message
from gripwire.survey import Survey

LOOK_S = 2.2
"""Long enough to see two heartbeats and a rate."""
FILE_WIDTH = 200


def topics(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until q or Ctrl+C; into a file, a line for each change.")
    ] = False,
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
            watching.watch(survey, settings.topics)
            return
        while True:
            survey.listen(1.0 if watch else LOOK_S)
            verdicts = survey.judge()
            if as_json:
                rows = [_row(survey, name, verdict) for name, verdict in verdicts.items()]
                control = {name: settings.topics.control(name) for name in settings.topics.services}
                options.emit({"topics": rows, "control": control})
            else:
                _print(survey, verdicts)
            if not watch:
                return
    except KeyboardInterrupt:
        return
    finally:
        survey.close()


def _print(survey: Survey, verdicts: dict[str, Liveness]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # a file has no width
        console.width = max(console.width, FILE_WIDTH)
    width = console.width
    parts = [
        watching.topic_table(survey, verdicts, width),
        "",
        watching.service_table(survey, verdicts, width),
    ]
    for part in [*parts, watching.shut_out(survey) or watching.silent_services(survey)]:
        console.print(part)


def _row(survey: Survey, name: str, verdict: Liveness) -> dict[str, Any]:
    topic, reader = survey.meters[name].topic, survey.readers[name]
    return {
        "topic": topic.name, "message": topic.message.__name__, "owner": topic.owner,
        "endpoint": topic.endpoint, "declared_hz": topic.rate_hz, "latched": topic.latched, **asdict(verdict),
        "refused": reader.refused, "refusal": reader.refusal, "barred": reader.barred,
    }  # fmt: skip


def hz(
    topic: Name,
    n: Annotated[int | None, typer.Option("-n", help="Stop after so many seconds.")] = None,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """A topic's rate and jitter, once a second."""
    with suppress(KeyboardInterrupt):
        for batch in _by_second(follow(topic_named(options.load(config, data, port_base), topic)), n):
            gaps = [(b.t_receive - a.t_receive) / 1e6 for a, b in pairwise(batch)]
            if not gaps:
                typer.echo(f"{len(batch)} message in the last second")
                continue
            typer.echo(
                f"{1000 * len(gaps) / sum(gaps):6.2f} Hz   between messages: median {median(gaps):.1f} ms, "
                f"min {min(gaps):.1f}, max {max(gaps):.1f}"
            )


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
