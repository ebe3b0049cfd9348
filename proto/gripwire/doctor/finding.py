"""What a check gives, and what it is given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gripwire.messages import Health, Message
from gripwire.settings import Settings

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``fail``: what is asked for here cannot work like this."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    """What to do; empty where all is well."""


@dataclass
class Here:
    """What a check is given: the settings, what the running stack says, and where the machine begins.

    ``beats``: the last heartbeat of each service that was heard; ``latest``: the last message of each topic.
    """

    settings: Settings
    beats: dict[str, Health] = field(default_factory=dict)
    latest: dict[str, Message] = field(default_factory=dict)
    root: Path = Path("/")
    barred: str = ""
    """Why nothing is heard where that is the keys' fault, with the remedy."""

    @property
    def data(self) -> Path:
        return self.settings.data

    def value(self, *key: str) -> object:
        """What a setting was set to, unread by any section's model; None if it was not."""
        given = self.settings.values.get(key)
        return given.value if given else None

    def names(self, *parts: str) -> list[str]:
        """The entries of a folder below the root, sorted; none if it is not there."""
        try:
            return sorted(entry.name for entry in self.root.joinpath(*parts).iterdir())
        except OSError:
            return []

    def read(self, *parts: str | Path) -> str:
        """The text of a file below the root, stripped; empty if it cannot be read."""
        try:
            return self.root.joinpath(*parts).read_text(errors="replace").strip()
        except OSError:
            return ""
