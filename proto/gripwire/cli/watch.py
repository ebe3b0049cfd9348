"""The screen of `gripwire topics --watch`: state of every topic and service, and what changed."""

import re
import time
from collections import deque
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gripwire import clock
from gripwire.cli.keys import Keys
from gripwire.cli.top import duration
from gripwire.liveness import Liveness
from gripwire.messages import Health, Message
from gripwire.survey import Survey
from gripwire.topics import Topic, Topics

WIDE = 110
"""Columns from which the publishers' ids have room."""
REFUSALS = {
    "refused_messages": "messages that it refused",
    "refused_commands": "commands that it refused",
    "refused_peers": "machines that it did not let in",
}
"""Counts of a heartbeat, in the order of the screen."""
_REMEMBERED = 200
_REDRAW_S = 0.5


@dataclass(frozen=True)
class Change:
    """Something that is otherwise than it was."""

    at: float
    """Seconds since 1970."""
    topic: str
    text: str
    style: str


@dataclass
class Changes:
    """Notes what changes from one look to the next: states, publishers, losses, refusals.

    The first looks, for as long as heartbeats take to come, only learn how things are."""

    learn_s: float = 2.0
    noted: deque[Change] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _states: dict[str, str] = field(default_factory=dict)
    _boots: dict[str, str] = field(default_factory=dict)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def look(self, survey: Survey, verdicts: dict[str, Liveness]) -> list[Change]:
        """What has changed since the last look."""
        fresh: list[Change] = []
        for name, v in verdicts.items():
            latest = survey.latest.get(name)
            text = state(v, latest)
            # A reason that counts seconds is the same reason.
            kind = re.sub(r"[\d.]+", "#", text.plain)
            if kind != self._states.get(name, "silent"):
                fresh.append(Change(time.time(), name, text.plain, str(text.style)))
            self._states[name] = kind
            if latest is not None and self._boots.setdefault(name, latest.boot) != latest.boot:
                self._boots[name] = latest.boot
                if isinstance(latest, Health):
                    fresh.append(Change(time.time(), name, f"started anew, now pid {latest.pid}", "cyan"))
            fresh += self._grown(name, "lost", v.lost, "messages lost on the way here")
            refused = survey.readers[name].refused
            fresh += self._grown(name, "refused", refused, f"refused here: {survey.readers[name].refusal}")
            if isinstance(latest, Health):
                for count, words in REFUSALS.items():
                    said = latest.counts.get(count, 0)
                    fresh += self._grown(name, count, said, words)
        if time.monotonic() - self._began < self.learn_s:
            return []
        self.noted.extend(fresh)
        return fresh

    def _grown(self, topic: str, what: str, count: int, words: str) -> list[Change]:
        before = self._counts.get((topic, what), 0)
        self._counts[topic, what] = count
        return [Change(time.time(), topic, f"{count - before} {words}", "yellow")] if count > before else []


def watch(survey: Survey, topics: Topics) -> None:
    """Draw until `q` or Ctrl+C; into a file or pipe, a line for each change."""
    console = Console(highlight=False)
    changes = Changes()
    if not console.is_terminal:
        while True:
            survey.listen(_REDRAW_S)
            for change in changes.look(survey, survey.judge()):
                print(f"{_time(change.at)}  {change.topic}: {change.text}", flush=True)
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while keys.pressed() != "q":
            survey.listen(_REDRAW_S)
            verdicts = survey.judge()
            changes.look(survey, verdicts)
            live.update(screen(survey, verdicts, changes, topics, *console.size), refresh=True)


def screen(
    survey: Survey, verdicts: dict[str, Liveness], changes: Changes, topics: Topics, width: int, height: int
) -> Group:
    """As much as a terminal of that size holds: topics first, then services, then what changed last."""
    stack = f"gripwire on ports {topics.port_base} to {topics.port_base + 63}"
    head = Text.assemble((stack, "bold"), f"   {_time(time.time())}   ", ("q leaves", "dim"))
    head.no_wrap = True
    parts: list[RenderableType] = [head, topic_table(survey, verdicts, width)]
    used = 2 + sum(not is_health(survey, name) for name in verdicts)
    services = service_table(survey, verdicts, width)
    unheard = shut_out(survey) or silent_services(survey)
    if used + services.row_count + 3 <= height:
        parts += [Text(""), services, unheard]
        used += 3 + services.row_count
    parts += [Text(""), *_recent(changes, width, height - used - 1)]
    return Group(*parts)


def _recent(changes: Changes, width: int, room: int) -> list[Text]:
    """The last changes, newest first, in at most ``room`` lines: a reason is read to its end."""
    console, lines = Console(width=width), list[Text]()
    for change in reversed(changes.noted):
        lines += _line(change).wrap(console, width)
        if len(lines) >= room:
            break
    return lines[: max(0, room)]


def topic_table(survey: Survey, verdicts: dict[str, Liveness], width: int) -> Table:
    """What is published, but the heartbeats."""
    table = _table(("topic", "rate", "age", "delay", "lost"), width, "publisher" if width >= WIDE else "")
    pids = {m.boot: m.pid for m in survey.latest.values() if isinstance(m, Health)}
    for name, v in verdicts.items():
        if is_health(survey, name):
            continue
        topic, latest = survey.meters[name].topic, survey.latest.get(name)
        cells = [
            name,
            _rate(v, topic),
            seconds(v.age_s),
            seconds(v.delay_ms and v.delay_ms / 1e3),
            str(v.lost or "–"),
        ]
        cells += [publisher(latest, pids)] if width >= WIDE else []
        table.add_row(*cells, with_refusals(state(v, latest), survey, name))
    return table


def service_table(survey: Survey, verdicts: dict[str, Liveness], width: int) -> Table:
    """The heartbeats. Refused: messages, commands and machines, by the service itself since it started."""
    table = _table(
        ("service", "pid", "up", "cpu", "memory", "refused"), width, "publisher" if width >= WIDE else ""
    )
    for name, v in verdicts.items():
        beat = survey.latest.get(name)
        if not isinstance(beat, Health):
            continue
        service = name.removeprefix("health/")
        refused = [beat.counts.get(key, 0) for key in REFUSALS]
        cells = [service, str(beat.pid), duration(beat.uptime_s)]
        cells += [f"{beat.cpu_percent:.0f}%", f"{beat.rss_mb:.0f} MB"]
        cells += [" + ".join(map(str, refused)) if any(refused) else "–"]
        cells += [publisher(beat, {})] if width >= WIDE else []
        table.add_row(*cells, with_refusals(state(v, beat), survey, name))
    return table


def silent_services(survey: Survey) -> Text:
    """Those of which nothing has been heard; not all of them belong to every stack."""
    names = [
        n.removeprefix("health/") for n in survey.meters if is_health(survey, n) and n not in survey.latest
    ]
    return Text(f"not heard: {', '.join(names)}" if names else "", "dim", no_wrap=True, overflow="ellipsis")


def shut_out(survey: Survey) -> Text:
    """Why topics are not heard where that is the keys' fault, with the remedy; empty where it is not."""
    reasons = [reader.barred for reader in survey.readers.values() if reader.barred]
    more = f" (and {len(reasons) - 1} topics more)" if len(reasons) > 1 else ""
    return Text(f"{reasons[0]}{more}" if reasons else "", "red")


def _table(columns: tuple[str, ...], width: int, more: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for i, name in enumerate(columns):
        table.add_column(
            name, justify="right" if i else "left", no_wrap=True, min_width=18 if not i else None
        )
    if more:
        table.add_column(more, no_wrap=True)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def is_health(survey: Survey, name: str) -> bool:
    return survey.meters[name].topic.message is Health


def state(v: Liveness, latest: Message | None) -> Text:
    """What there is to say of a topic, and its colour."""
    if not v.seen:
        return Text("silent", "dim")
    if not v.alive:
        return Text(v.reason, "red")
    if isinstance(latest, Health):
        colour = {"ready": "green", "degraded": "yellow"}.get(latest.state, "cyan")
        return Text(latest.state + (f": {latest.problem}" if latest.problem else ""), colour)
    if not v.valid:
        return Text("not valid" + (f": {v.reason}" if v.reason else ""), "yellow")
    return Text("ok", "green") if v.on_rate else Text("off its rate", "yellow")


def with_refusals(said: Text, survey: Survey, name: str) -> Text:
    """And what this reader could not accept of the topic."""
    reader = survey.readers[name]
    if not reader.refused:
        return said
    return Text.assemble((f"{reader.refused} refused here ({reader.refusal}); ", "yellow"), said)


def publisher(latest: Message | None, pids: dict[str, int]) -> str:
    """`pid 4711, boot 5e0f`, and `elsewhere` if its kernel is not ours."""
    if latest is None:
        return ""
    pid = 0 if isinstance(latest, Health) else pids.get(latest.boot, 0)  # those have a column for it
    where = "" if latest.host == clock.host_id() else " elsewhere"
    return (f"pid {pid}, " if pid else "") + f"boot {latest.boot[:4]}{where}"


def _rate(v: Liveness, topic: Topic) -> str:
    if not topic.rate_hz:
        return "on change"
    return f"{'–' if v.rate_hz is None else f'{v.rate_hz:.1f}'} of {topic.rate_hz:g} Hz"


def seconds(value: float | None) -> str:
    """`12.3 ms`, `1.2 s`, `3 m`."""
    if value is None:
        return "–"
    if value >= 100:
        return duration(value)
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def _line(change: Change) -> Text:
    return Text.assemble((f"{_time(change.at)}  ", "dim"), f"{change.topic}  ", (change.text, change.style))


def _time(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
