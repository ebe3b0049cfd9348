"""The running stack as LeRobot's devices need it: messages that are fresh, or an error in words."""

import time
from collections.abc import Callable

from gripwire import settings
from gripwire.bus import Latest, Received
from gripwire.messages import Message, RobotAction, RobotState
from gripwire.settings import Settings
from gripwire.topics import Topic

PERIODS = 10
"""A message is fresh below so many periods of its topic, as everywhere in gripwire."""
CONNECT_S = 5.0
PATIENCE_S = 1.0
"""For the next message, where the newest is not fresh: a hiccup is not to end a recording."""


def find(port_base: int | None) -> Settings:
    """The stack's settings."""
    return settings.load(flags={"port_base": port_base})


def fresh[M: Message](
    reader: Latest[M], patience_s: float, usable: Callable[[M], str] = lambda _: ""
) -> Received[M]:
    """The newest message if it is fresh and ``usable`` says nothing against it, else the first such to come.

    Raises:
        TimeoutError: none came within ``patience_s``; with the reason of the newest, or its age.
    """
    deadline = time.monotonic() + patience_s
    newest = reader.get()
    while True:
        problem = judge(newest, reader.topic, usable)
        if newest and not problem:
            return newest
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(reader.barred or problem)
        newest = reader.wait(left, after=newest) or newest


def judge[M: Message](
    newest: Received[M] | None, topic: Topic, usable: Callable[[M], str], max_age_s: float | None = None
) -> str:
    """Why there is no usable message now; empty: there is."""
    if newest is None:
        return (
            f"no `{topic.name}` comes at {topic.endpoint}: is gripwire running (`gripwire up`), and on this "
            f"port? `gripwire topics` shows what is alive; another stack is named with `port_base`"
        )
    if problem := usable(newest.message):
        return f"`{topic.name}` is not valid: {problem}"
    limit_s = max_age_s if max_age_s is not None else PERIODS / (topic.rate_hz or 30.0)
    if (age_s := _age_s(newest)) > limit_s:
        return (
            f"the newest `{topic.name}` is {1e3 * age_s:.0f} ms old ({1e3 * limit_s:.0f} are allowed): its "
            "service has stopped or is stuck; `gripwire topics` shows which"
        )
    return ""


def _age_s[M: Message](received: Received[M]) -> float:
    """An action tells when its goal was sent, which may be long ago: it is as old as its message."""
    if isinstance(received.message, RobotAction):
        return (time.monotonic_ns() - received.t_receive) / 1e9
    return received.age_ms() / 1e3


def whole(state: RobotState) -> str:
    """Why a state cannot be an observation."""
    return "" if state.valid else state.reason or "no reason is given"
