"""The loop every service runs in.

A service is a class with ``setup`` (heavy imports, devices), ``update`` (one tick) and ``close``; the loop
gives it a heartbeat that beats while it still imports, a control endpoint, a rate, and a clean end.
"""

import ctypes
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import zmq

from gripwire import __version__, bus, control, logs, sockets
from gripwire.errors import UserError
from gripwire.messages import Command, EpisodeState, Health, Message, ModelState, Reply
from gripwire.settings import Settings
from gripwire.survey import Survey
from gripwire.topics import Topic
from gripwire.usage import UsageMeter

log = logging.getLogger(__name__)

HUNG_AFTER_S = 5.0
"""A loop that has not turned for so long is reported as degraded."""

BEAT_S = 1.0
"""Between two heartbeats."""

IN_LOGS: dict[str, type[Message]] = {"episode": EpisodeState, "model": ModelState}
"""Topics that every service but their owner reads for its log lines, besides what it reads for itself."""

RECORDER_GONE_S = 10.0

MORE_MEMORY = "end other programs, or raise its limit (`ulimit -v`, a container's `mem_limit`)"
"""What to do about it, to go on in a sentence."""

EXIT_OK, EXIT_USER_ERROR, EXIT_BUG = 0, 1, 70


class Service(Protocol):
    """What :func:`run` drives. All methods are called from the main thread."""

    rate_hz: float | None
    """Ticks per second; None when ``update`` itself waits for data (at most 50 ms)."""

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        """The commands this service takes, and who handles them."""
        ...

    def setup(self) -> None:
        """Import what is heavy, open what can fail. A ``UserError`` ends the service with exit code 1."""
        ...

    def update(self) -> None:
        """One tick."""
        ...

    def close(self, failed: bool) -> None:
        """Let go of everything; ``failed`` when an exception ended the loop. Called even if setup failed."""
        ...


class Runtime:
    """What the loop gives to a service: settings, topics, and how to report on itself."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.topics = settings.topics
        self.stopping = threading.Event()
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, str] = {"gripwire": __version__, "python": platform.python_version()}
        self.last_error = ""
        self.turned = threading.Event()
        """Set when the first problem comes or the last one goes: the heartbeat says so at once."""
        self._problems: dict[str, str] = {}
        self._open: list[Any] = []
        self.server: control.Server | None = None

    def publisher(self, topic: str) -> bus.Publisher[Any]:
        """A publisher that the loop closes at the end."""
        return self._keep(bus.Publisher(self.topics[topic]))

    def latest[M: Message](self, topic: str, message: type[M]) -> bus.Latest[M]:
        """A reader of the newest message, closed at the end."""
        return self._keep(bus.Latest(self.topics[topic], message))

    def queued[M: Message](self, topic: str, message: type[M], depth: int | None = None) -> bus.Queued[M]:
        """A reader of every message, closed at the end."""
        return self._keep(bus.Queued(self.topics[topic], message, depth))

    def survey(self, topics: Sequence[Topic]) -> Survey:
        """Readers of several topics that are polled together, closed at the end."""
        survey = Survey(topics)
        for reader in survey.readers.values():
            self._keep(reader)
        return survey

    def reads(self) -> dict[str, int]:
        """Messages received by now, by topic that is read."""
        received: Counter[str] = Counter()
        for opened in tuple(self._open):
            if isinstance(opened, bus.Reader):
                received[opened.topic.name] += opened.received
        return dict(received)

    def subscribers(self) -> dict[str, int]:
        """Readers connected by now, by topic that is published."""
        opened = [one for one in tuple(self._open) if isinstance(one, bus.Publisher)]
        return {publisher.topic.name: publisher.subscribers() for publisher in opened}

    def _keep[T](self, closable: T) -> T:
        self._open.append(closable)
        return closable

    def count(self, name: str, n: int = 1) -> None:
        """Count an event; its total and rate go out with the heartbeat."""
        self.counts[name] += n

    def problem(self, key: str, text: str = "") -> None:
        """Say that ``key`` is wrong (state becomes `degraded`), or, with no text, right again."""
        well = not self._problems
        if text and self._problems.get(key) != text:
            if key not in self._problems:
                log.warning("%s", text)
            self._problems = self._problems | {key: text}
            self.last_error = text
        elif not text and key in self._problems:
            log.info("recovered: %s", self._problems[key])
            self._problems = {k: v for k, v in self._problems.items() if k != key}
        if well != (not self._problems):
            self.turned.set()

    @property
    def problems(self) -> str:
        return "; ".join(self._problems.values())

    def refusals(self) -> dict[str, int]:
        """Refused since the start: messages on topics, commands, and machines whose key is not allowed."""
        ends = [one for one in tuple(self._open) if isinstance(one, bus.Reader | bus.Publisher)]
        return {
            "refused_messages": sum(end.refused for end in ends),
            "refused_commands": self.server.refused if self.server else 0,
            "refused_peers": sockets.refused_peers(),
        }

    def close(self) -> None:
        for closable in reversed(self._open):
            closable.close()
        self._open.clear()


class RateKeeper:
    """Holds a loop to a rate on an absolute schedule, and knows how late it ran."""

    def __init__(self, rate_hz: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._period = 1.0 / rate_hz if rate_hz else 0.0
        self._now = now
        self._next = now()  # the first tick is due at once
        self.skipped = 0

    def remaining(self) -> float:
        """Seconds until the next tick is due, never negative."""
        return max(0.0, self._next - self._now()) if self._period else 0.0

    def tick(self) -> float:
        """Call when a tick begins: how late it is, in seconds. Whole periods that were missed are skipped
        and counted, so that a loop that stalled does not race to catch up."""
        if not self._period:
            return 0.0
        late = max(0.0, self._now() - self._next)
        missed = int(late / self._period)
        self.skipped += missed
        self._next += (missed + 1) * self._period
        return late


class _LogContext:
    """Keeps what this process's log lines say of episode and model up to date; for one thread.

    Whoever publishes one of the two says it to :data:`gripwire.logs.context` himself.
    """

    def __init__(self, runtime: Runtime) -> None:
        topics = [runtime.topics[name] for name in IN_LOGS]
        self._readers = [bus.Queued(t, IN_LOGS[t.name]) for t in topics if t.owner != runtime.name]
        self._recording_since = float("inf")

    def poll(self) -> None:
        """Take in what was said by now; cheap, never waits."""
        now = time.monotonic()
        for reader in self._readers:
            if not int(reader.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                continue
            for received in reader.drain():
                logs.context.see(received.message)
                if isinstance(received.message, EpisodeState):
                    recording = received.message.state == "recording"
                    self._recording_since = now if recording else float("inf")
        # A recorder that records says so twice a second: this one is gone.
        if now - self._recording_since > RECORDER_GONE_S:
            logs.context.episode, self._recording_since = "", float("inf")

    def tend(self) -> None:
        """Once a second or so: connect anew where that is needed."""
        for reader in self._readers:
            reader.tend()

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class Heartbeat:
    """Publishes `health/<service>` at 1 Hz from a thread, so that it beats through imports and long calls."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._publisher: bus.Publisher[Health] = bus.Publisher(runtime.topics[f"health/{runtime.name}"])
        self._state = "starting"
        self._started = time.monotonic()
        self._turned = time.monotonic()
        self._lag_s = 0.0
        self._counts_before: dict[str, int] = {}
        self._usage = UsageMeter()
        self._beat_before = time.monotonic()
        self._kick = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def state(self, state: str) -> None:
        """Enter a state and say so at once."""
        self._state = state
        self._turned = time.monotonic()
        self._kick.set()

    def turned(self, late_s: float) -> None:
        """The loop has turned; ``late_s`` behind its schedule."""
        self._turned = time.monotonic()
        self._lag_s = max(self._lag_s, late_s)

    def _run(self) -> None:
        context = _LogContext(self._runtime)  # here, because this thread wakes up anyway
        try:
            self._pulse(context)
        finally:
            context.close()

    def _pulse(self, context: _LogContext) -> None:
        while True:
            self._kick.clear()
            ending = self._end.is_set()  # looked at before the beat, so that the last one says `stopping`
            self._publisher.publish(self._beat())
            if ending:
                return
            context.tend()
            # Whoever subscribes between two beats gets the last one at once (the topic is latched): after
            # a restart the readers reconnect a moment later than the first beat.
            next_beat = time.monotonic() + BEAT_S
            while (left := next_beat - time.monotonic()) > 0 and not self._kick.wait(min(left, 0.05)):
                self._publisher.poll()
                context.poll()
                if self._runtime.turned.is_set():
                    self._runtime.turned.clear()
                    break

    def _beat(self) -> Health:
        runtime, now = self._runtime, time.monotonic()
        problem, state = runtime.problems, self._state
        silent = now - self._turned
        if state == "ready" and silent > HUNG_AFTER_S:
            problem = "; ".join(filter(None, (problem, f"the loop has not turned for {silent:.0f} s")))
        if state == "ready" and problem:
            state = "degraded"
        counts, seconds = dict(runtime.counts) | runtime.refusals(), max(now - self._beat_before, 1e-3)
        counts["refused_messages"] += self._publisher.refused
        before = self._counts_before
        rates = {name: round((n - before.get(name, 0)) / seconds, 2) for name, n in counts.items()}
        lag, self._lag_s = self._lag_s, 0.0
        self._counts_before, self._beat_before = counts, now
        usage = self._usage.read()
        return Health(
            valid=True, service=runtime.name, state=state, pid=os.getpid(), problem=problem,  # type: ignore[arg-type]
            uptime_s=round(now - self._started, 1), rates=rates, counts=counts, lag_ms=round(lag * 1e3, 2),
            last_error=runtime.last_error, versions=runtime.versions, rss_mb=usage.rss_mb,
            cpu_percent=usage.cpu_percent, threads=usage.threads, reads=runtime.reads(),
            subscribers=runtime.subscribers() | {self._publisher.topic.name: self._publisher.subscribers()},
        )  # fmt: skip

    def close(self) -> None:
        self._end.set()
        self._kick.set()
        self._thread.join()
        self._publisher.close(linger_ms=200)  # let `stopping` and the last error out


class _StopDuringSetup(BaseException):
    """SIGTERM or SIGINT while a service still imports: leave at once."""


def run(name: str, settings: Settings, build: Callable[[Runtime], Service]) -> int:
    """Run one service in the foreground until SIGTERM or SIGINT; the process's exit code.

    0 after a signal; 1 after a ``UserError``, printed as one sentence; 70 after a bug, with its traceback.
    """
    die_with_supervisor()
    logs.configure(name, settings.bus.log)
    runtime = Runtime(name, settings)
    setting_up = True

    def on_signal(number: int, _frame: object) -> None:
        first = not runtime.stopping.is_set()
        runtime.stopping.set()
        if setting_up and first:
            raise _StopDuringSetup

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # its terminal is closed; nohup ignores that
        signal.signal(signal.SIGHUP, on_signal)
    heartbeat: Heartbeat | None = None
    service: Service | None = None
    code = EXIT_OK
    try:
        heartbeat = Heartbeat(runtime)
        service = build(runtime)
        runtime.server = control.Server(settings.topics.control_binds(name), service.commands)
        service.setup()
        setting_up = False
        heartbeat.state("ready")
        log.info("ready")
        _loop(runtime, service, runtime.server, heartbeat)
    except _StopDuringSetup:
        setting_up = False
    except UserError as e:
        setting_up = False
        code = EXIT_USER_ERROR
        runtime.last_error = str(e)
        log.error("%s", e)
    except MemoryError as e:
        setting_up = False
        code = EXIT_USER_ERROR
        runtime.last_error = f"{name} is out of memory ({e or 'no more is given'}): {MORE_MEMORY}"
        log.error("%s", runtime.last_error)
    except Exception as e:
        setting_up = False
        code = EXIT_BUG
        runtime.last_error = f"{type(e).__name__}: {e}"
        log.exception("this is a bug in gripwire, please report it")
    finally:
        if heartbeat:
            heartbeat.state("stopping")
        if service:
            _close(service, failed=code != EXIT_OK)
        if runtime.server:
            runtime.server.close()
        runtime.close()
        if heartbeat:
            heartbeat.close()
    return code


def _loop(runtime: Runtime, service: Service, server: control.Server, heartbeat: Heartbeat) -> None:
    keeper = RateKeeper(service.rate_hz)
    while not runtime.stopping.is_set():
        late = keeper.tick()
        heartbeat.turned(late)
        runtime.counts["ticks_skipped"] = keeper.skipped
        service.update()
        for opened in runtime._open:
            if isinstance(opened, bus.Publisher) and opened.topic.latched:
                opened.poll()
        server.poll()
        while not runtime.stopping.is_set() and (left := keeper.remaining()) > 0:
            server.poll(min(left, 0.1))


def _close(service: Service, failed: bool) -> None:
    try:
        service.close(failed)
    except Exception:
        log.exception("while closing")


def die_with_supervisor() -> None:
    """Under `gripwire up`, ask the kernel for SIGTERM when the supervisor is gone, so that nothing is left
    behind even when it is killed. (Linux only: elsewhere the supervisor's own exit path does it.)"""
    parent = os.environ.get("GRIPWIRE_SUPERVISED")
    if not parent or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
