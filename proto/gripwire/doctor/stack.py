"""The services that run on these ports, by what they say of themselves."""

from collections.abc import Iterator

from gripwire import __version__, clock
from gripwire.doctor.finding import Finding, Here
from gripwire.messages import Health, Message

SLOW_START_S = 60.0
LATE_MS = 200.0


def check(here: Here) -> Iterator[Finding]:
    """Each service that is heard."""
    if not here.beats and here.barred:
        yield Finding(
            "stack", "fail", "a stack runs here that does not let this terminal listen", here.barred
        )
        return
    if not here.beats:
        base = here.settings.topics.port_base
        yield Finding(
            "stack", "ok", f"no service is heard on ports {base} and up; `gripwire up` starts all of them"
        )
        return
    for name, beat in here.beats.items():
        yield from service(name, beat)
    yield from versions(here.beats, __version__)
    yield from hosts(here.beats, clock.host_id())
    yield from silent(here)


def service(name: str, beat: Health) -> Iterator[Finding]:
    """What one heartbeat says. Pure."""
    logs = "its log tells more (`gripwire up` names the folder)"
    who = f"{name} (pid {beat.pid})"
    if beat.state == "degraded":
        yield Finding("stack", "warn", f"{who} is degraded: {beat.problem}", f"docs/debugging.md; {logs}")
    elif beat.state == "starting" and beat.uptime_s > SLOW_START_S:
        yield Finding("stack", "warn", f"{who} has been starting for {beat.uptime_s:.0f} s", logs)
    else:
        yield Finding("stack", "ok", f"{who} is {beat.state}")
    if beat.state == "ready" and beat.lag_ms > LATE_MS:
        yield Finding(
            "stack", "warn", f"{who} runs {beat.lag_ms:.0f} ms behind its own schedule",
            "the machine is too busy: see what takes it with `gripwire top`",
        )  # fmt: skip
    kinds = {"refused_messages": "messages", "refused_commands": "commands", "refused_peers": "machines"}
    for key, what in kinds.items():
        if refused := beat.counts.get(key, 0):
            yield Finding(
                "stack", "warn", f"{who} has refused {refused} {what} since it started",
                "something on these ports speaks another version, lacks the keys or the role: its log says "
                "what; `gripwire topics --watch` shows whether it goes on",
            )  # fmt: skip


def versions(beats: dict[str, Health], ours: str) -> Iterator[Finding]:
    """Whether all run the same gripwire, and it is the one installed here. Pure."""
    theirs = {name: beat.versions.get("gripwire", "?") for name, beat in beats.items()}
    other = {name: version for name, version in theirs.items() if version != ours}
    if other:
        told = ", ".join(f"{name} runs {version}" for name, version in other.items())
        yield Finding(
            "versions", "warn", f"gripwire here is {ours}, but {told}",
            "stop the stack, bring all machines and images to one version, start it again",
        )  # fmt: skip
    else:
        yield Finding("versions", "ok", f"every service runs gripwire {ours}, as installed here")
    yield from engines(beats)


def engines(beats: dict[str, Health]) -> Iterator[Finding]:
    """Whether services that build on the same package have the same one: what is trained by one engine and
    served by another may score otherwise. Pure."""
    found: dict[str, dict[str, str]] = {}
    for name, beat in beats.items():
        for package, version in beat.versions.items():
            if package not in ("gripwire", "python"):
                found.setdefault(package, {})[name] = version
    for package, by_service in found.items():
        if len(set(by_service.values())) > 1:
            told = ", ".join(f"{version} in {name}" for name, version in by_service.items())
            yield Finding(
                "versions", "warn", f"{package} is {told}",
                "install all services from one requirements.lock (`make install`), or build all images anew",
            )  # fmt: skip


def hosts(beats: dict[str, Health], ours: str) -> Iterator[Finding]:
    """Which services run on another kernel: their clocks are not ours. Pure."""
    away = [name for name, beat in beats.items() if beat.host != ours]
    if away:
        yield Finding(
            "hosts", "ok",
            f"on another machine: {', '.join(away)}; how old their messages are cannot be known from here",
        )  # fmt: skip


def silent(here: Here) -> Iterator[Finding]:
    """Services without which nothing is rewarded, while others run."""
    needed = [f"camera/{name}" for name in here.settings.cameras] + ["robot", "reward"]
    missing = [name for name in needed if name not in here.beats]
    if missing and len(missing) < len(needed):
        commands = " and ".join(f"`{_start(name)}`" for name in missing)
        yield Finding(
            "stack", "warn", f"a part of the stack runs, but not {', '.join(missing)}",
            f"start it with {commands}, or the whole stack with `gripwire up`",
        )  # fmt: skip
    for name, message in here.latest.items():
        if reason := _why_not(name, message):
            yield Finding("stack", "warn", f"`{name}` is not valid: {reason}", "docs/debugging.md")


def _start(service: str) -> str:
    kind, _, name = service.partition("/")
    return f"gripwire {kind} run" + (f" --name {name}" if name else "")


def _why_not(name: str, message: Message) -> str:
    if isinstance(message, Health) or message.valid:
        return ""
    return str(getattr(message, "reason", "")) or "it says nothing of why"
