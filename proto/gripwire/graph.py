"""Who talks to whom, by what the heartbeats of the live bus say: a pure function of messages.

Each service names the topics that it reads, and for each topic that it publishes how many readers are
connected (docs/wire.md, Health). Sockets do not say who they belong to, so readers without a heartbeat of
their own (a learner, a notebook, `gripwire record`) appear as a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gripwire.messages import Health, Message, ModelState, RobotAction
from gripwire.service import IN_LOGS
from gripwire.topics import Topics

OTHERS = "others"


@dataclass(frozen=True)
class Service:
    """A service that is heard, or one that is only known to be read from."""

    name: str
    state: str = "silent"
    pid: int = 0
    host: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Edge:
    """A topic on its way from its publisher to a reader.

    ``reader``: a service, or `others` with their number in ``count``. ``rate_hz``: what the reader took of
    it between two heartbeats; None where that is not known. ``silent``: nobody publishes what it waits for.
    """

    topic: str
    publisher: str
    reader: str
    count: int = 1
    rate_hz: float | None = None
    silent: bool = False


@dataclass
class Graph:
    """The services, what flows between them, and who holds arm and model."""

    services: dict[str, Service] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    """Topic -> the service that is heard to publish it."""
    edges: list[Edge] = field(default_factory=list)
    driver: str = ""
    frozen_by: str = ""
    barred: str = ""
    """Why nothing is heard where that is the keys' fault."""

    def readers(self, topic: str) -> list[Edge]:
        """Where a topic goes."""
        return [edge for edge in self.edges if edge.topic == topic]


def draw(
    topics: Topics, beats: Mapping[str, list[Health]], latest: Mapping[str, Message], own: Mapping[str, int]
) -> Graph:
    """The graph of what was heard.

    ``beats``: each service's heartbeats in order, of one process each; ``latest``: other topics' last
    messages; ``own``: subscriptions of whoever looks, by topic, which are not to be counted.
    """
    graph = Graph()
    for name, heard in beats.items():
        if heard:
            last = heard[-1]
            graph.services[name] = Service(name, last.state, last.pid, last.host, last.problem)
            graph.published |= {topic: name for topic in last.subscribers}
    for name, heard in beats.items():
        for topic in heard[-1].reads if heard else ():
            if topic in topics and not topic.startswith("health/"):
                graph.edges.append(_edge(topic, topics[topic].owner, name, heard, graph))
    for publisher, heard in beats.items():
        for topic, connected in heard[-1].subscribers.items() if heard else ():
            known = sum(edge.topic == topic for edge in graph.edges)
            known += (len(graph.services) - 1) * (topic in IN_LOGS)
            others = connected - known - own.get(topic, 0)
            if others > 0 and not topic.startswith("health/"):
                graph.edges.append(Edge(topic, publisher, OTHERS, others))
    match latest.get("robot/action"):
        case RobotAction(driver=driver):
            graph.driver = driver
    match latest.get("model"):
        case ModelState(frozen_by=by):
            graph.frozen_by = by
    return graph


def _edge(topic: str, owner: str, reader: str, heard: list[Health], graph: Graph) -> Edge:
    rate, silent = None, topic not in graph.published
    if len(heard) > 1:
        seconds = heard[-1].uptime_s - heard[0].uptime_s
        taken = heard[-1].reads[topic] - heard[0].reads.get(topic, 0)
        rate = round(taken / seconds, 1) if seconds > 0 else None
    return Edge(topic, graph.published.get(topic, owner), reader, rate_hz=rate, silent=silent)


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart, as Markdown viewers draw it."""
    ids = {name: f"n{i}" for i, name in enumerate(_nodes(graph))}
    lines = ["flowchart LR"]
    lines += [f'    {id}["{name}{_state(graph, name)}"]' for name, id in ids.items()]
    for edge in graph.edges:
        arrow = "-.->" if edge.silent else "-->"
        lines.append(f'    {ids[edge.publisher]} {arrow}|"{_words(edge)}"| {ids[_node(edge)]}')
    return "\n".join(lines)


def to_dot(graph: Graph) -> str:
    """Graphviz: `gripwire graph --dot | dot -Tsvg`."""
    lines = ["digraph gripwire {", "    rankdir=LR;", "    node [shape=box];"]
    lines += [f'    "{name}" [label="{name}{_state(graph, name)}"];' for name in _nodes(graph)]
    for edge in graph.edges:
        style = ", style=dashed" if edge.silent else ""
        lines.append(f'    "{edge.publisher}" -> "{_node(edge)}" [label="{_words(edge)}"{style}];')
    return "\n".join([*lines, "}"])


def _node(edge: Edge) -> str:
    """Readers that nobody knows are as many groups as topics: they need not be the same."""
    return edge.reader if edge.reader != OTHERS else f"{edge.count} more of {edge.topic}"


def _nodes(graph: Graph) -> list[str]:
    names = [*graph.services, *(n for edge in graph.edges for n in (edge.publisher, _node(edge)))]
    return list(dict.fromkeys(names))


def _state(graph: Graph, name: str) -> str:
    if name in graph.services:
        return "" if graph.services[name].state == "ready" else f" ({graph.services[name].state})"
    return "" if " more of " in name else " (silent)"


def _words(edge: Edge) -> str:
    return edge.topic + (f" {edge.rate_hz:g}/s" if edge.rate_hz else "")
