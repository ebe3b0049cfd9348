"""The stack's ports: free, ours, or somebody else's."""

import sys
from collections.abc import Iterator

from gripwire.doctor.finding import Finding, Here
from gripwire.doctor.listeners import Listener, listeners
from gripwire.messages import Health
from gripwire.topics import PORT_SPAN, Topics


def check(here: Here) -> Iterator[Finding]:
    """Who listens on the ports of this stack (Linux; elsewhere `gripwire up` says when one is taken)."""
    topics = here.settings.topics
    span = range(topics.port_base, topics.port_base + PORT_SPAN)
    if sys.platform != "linux":
        return
    yield from judge(listeners(span, here.root), here.beats, topics)


def judge(found: list[Listener], beats: dict[str, Health], topics: Topics) -> Iterator[Finding]:
    """What to think of those who listen. Pure."""
    first, last = topics.port_base, topics.port_base + PORT_SPAN - 1
    ours = {beat.pid for beat in beats.values()}
    strange = [one for one in found if one.pid not in ours and not (one.pid == 0 and beats)]
    if not strange:
        who = f"used by the {len(beats)} services that run" if found else "all free"
        yield Finding("ports", "ok", f"{first} to {last}: {who}")
        return
    uses = {t.port: f"topic `{t.name}`" for t in topics}
    uses |= {int(topics.control(s).rpartition(":")[2]): f"{s}'s control endpoint" for s in topics.services}
    by_process: dict[tuple[int, str], list[int]] = {}
    for one in strange:
        by_process.setdefault((one.pid, str(one)), []).append(one.port)
    for (pid, who), ports in by_process.items():
        what = ", ".join(f"{port} ({uses.get(port, 'kept for later')})" for port in ports[:3])
        what += f" and {len(ports) - 3} more" if len(ports) > 3 else ""
        if "gripwire" in who:
            yield Finding(
                "ports", "warn", f"{who} holds {what}, but no heartbeat of it is heard",
                f"it is stuck or has other settings: look at it, and end it with `kill {pid}`",
            )  # fmt: skip
        else:
            yield Finding(
                "ports", "fail", f"{who} holds {what}, which this stack wants",
                "stop it" + (f" (`kill {pid}`)" if pid else "") + ", or choose other ports: `port_base` in "
                "gripwire.toml, GRIPWIRE_PORT_BASE or --port-base",
            )  # fmt: skip
