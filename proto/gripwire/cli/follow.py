"""A topic's messages for a command that shows them."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from gripwire.bus import Queued, Received
from gripwire.errors import UserError
from gripwire.messages import Message
from gripwire.settings import Settings
from gripwire.topics import Topic

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="As listed by `gripwire topics`.")]


def topic_named(settings: Settings, name: str) -> Topic:
    """The topic of that name.

    Raises:
        UserError: there is none.
    """
    if name not in settings.topics:
        raise UserError(f"no topic `{name}`; there are: {', '.join(t.name for t in settings.topics)}")
    return settings.topics[name]


def nobody(settings: Settings, barred: str) -> UserError:
    """No service is heard at all; ``barred``: why, where the keys are to blame."""
    base = settings.topics.port_base
    if barred:
        return UserError(f"no service on ports {base} and up lets this terminal listen: {barred}")
    return UserError(
        f"no service is heard on ports {base} and up: start one with `gripwire up`, or give the --port-base "
        "of the stack that runs"
    )


def follow(topic: Topic, n: int | None = None) -> Iterator[Received[Message]]:
    """Messages of a topic, ``n`` of them or for ever; says so once when nothing comes."""
    seen, warned, since = 0, False, time.monotonic()
    with Queued(topic, topic.message) as reader:
        while n is None or seen < n:
            received = reader.receive(0.2)
            if received is not None:
                seen += 1
                yield received
            elif not seen and not warned and time.monotonic() - since > 3:
                warned = True
                why = reader.barred or f"at {topic.endpoint}: nothing yet"
                typer.echo(f"waiting for `{topic.name}` {why}", err=True)
