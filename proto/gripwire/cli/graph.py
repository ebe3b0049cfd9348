"""`gripwire graph`: who publishes what, and who reads it."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from gripwire.cli import options
from gripwire.cli.follow import nobody
from gripwire.cli.up import STATE_COLOUR
from gripwire.graph import OTHERS, Edge, Graph, draw, to_dot, to_mermaid
from gripwire.messages import Health
from gripwire.settings import Settings
from gripwire.survey import Survey

LOOK_S = 2.5
"""Two heartbeats of everybody, for rates."""


def graph(
    dot: Annotated[bool, typer.Option("--dot", help="For Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="For Markdown.")] = False,
    as_json: options.Json = False,
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Who talks to whom, drawn from the live bus; readers without a heartbeat are counted as others."""
    settings = options.load(config, data, port_base)
    found = look(settings)
    if as_json:
        options.emit({"services": [asdict(s) for s in found.services.values()],
                      "topics": found.published, "edges": [asdict(e) for e in found.edges],
                      "driver": found.driver, "frozen_by": found.frozen_by})  # fmt: skip
    if not found.services:
        raise nobody(settings, found.barred)
    if dot or mermaid:
        typer.echo(to_dot(found) if dot else to_mermaid(found))
    elif not as_json:
        Console(highlight=False).print(_tree(found))


def look(settings: Settings, seconds: float = LOOK_S) -> Graph:
    """Listen to the heartbeats for a while."""
    others = ("robot/action", "model")
    health = [t for t in settings.topics if t.message is Health]
    survey = Survey([*health, *(settings.topics[name] for name in others)])
    beats: dict[str, list[Health]] = {t.owner: [] for t in health}
    try:
        for _, received in survey.listen(seconds):
            if isinstance(beat := received.message, Health):
                heard = beats.setdefault(beat.service, [])
                if heard and heard[-1].boot != beat.boot:
                    heard.clear()  # started anew while we looked
                if not heard or heard[-1].seq < beat.seq:
                    heard.append(beat)
        found = draw(settings.topics, beats, survey.latest, dict.fromkeys(survey.readers, 1))
        found.barred = survey.barred()
        return found
    finally:
        survey.close()


def _tree(found: Graph) -> Tree:
    tree = Tree("[bold]publisher → topic → readers[/bold]", guide_style="dim")
    publishers = dict.fromkeys([*found.services, *(edge.publisher for edge in found.edges)])
    for name in publishers:
        branch = tree.add(_service(found, name))
        shown = [t for t, owner in found.published.items() if owner == name and not t.startswith("health/")]
        waited = [e.topic for e in found.edges if e.publisher == name and e.silent]
        for topic in dict.fromkeys([*shown, *waited]):
            branch.add(_topic(found, topic))
    return tree


def _service(found: Graph, name: str) -> Text:
    service = found.services.get(name)
    if service is None:
        return Text.assemble(name, ("  silent", "red"))
    text = Text.assemble(name, "  ", (service.state, STATE_COLOUR[service.state]), f"  pid {service.pid}")
    if name == "robot" and found.driver:
        text.append(f"  driven by {found.driver}")
    if name == "reward" and found.frozen_by:
        text.append(f"  model held by {found.frozen_by}")
    return text.append(f"  {service.problem}", "yellow") if service.problem else text


def _topic(found: Graph, topic: str) -> Text:
    edges = found.readers(topic)
    if not edges:
        return Text.assemble(topic, ("  nobody reads it", "dim"))
    text = Text.assemble(topic, " → ")
    for i, edge in enumerate(edges):
        text.append(", " if i else "").append_text(_reader(edge))
    return text


def _reader(edge: Edge) -> Text:
    if edge.reader == OTHERS:
        return Text(f"{edge.count} other{'s' if edge.count > 1 else ''}", "dim")
    if edge.silent:
        return Text(f"{edge.reader} (waits for it)", "red")
    return Text.assemble(edge.reader, (f" {edge.rate_hz:g}/s" if edge.rate_hz else "", "dim"))
