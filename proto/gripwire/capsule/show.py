"""Reads what is inside a capsule."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import make_reader

from gripwire.errors import UserError
from gripwire.recording.file import Contents, Recording


@dataclass
class Inside:
    """What a capsule says about itself."""

    path: Path
    contents: Contents
    about: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)

    def attachment(self, name: str) -> bytes:
        """
        Raises:
            UserError: there is none of that name.
        """
        if name not in self.attachments:
            raise UserError(f"{self.path}: no `{name}` in it; there are: {', '.join(self.attachments)}")
        return self.attachments[name]

    def summary(self) -> dict[str, Any]:
        """For programs."""
        return {
            "path": str(self.path), "about": self.about, "versions": self.versions,
            "seconds": round(self.contents.seconds, 2), "topics": self.contents.counts,
            "attachments": {name: len(data) for name, data in self.attachments.items()},
        }  # fmt: skip

    def text(self) -> str:
        """For a person."""
        told = [f"{name:<12}{value}" for name, value in self.about.items() if value]
        rates = [
            f"  {topic:<26}{count:8}"
            + (f"{count / self.contents.seconds:9.1f} Hz" if self.contents.seconds else "")
            for topic, count in sorted(self.contents.counts.items())
        ]
        versions = [f"  {service:<26}{version}" for service, version in sorted(self.versions.items())]
        inside = [f"  {name:<26}{len(data):8} bytes" for name, data in self.attachments.items()]
        return "\n".join([
            str(self.path), *told,
            "", "messages", *rates,
            "", "versions, as last heard", *versions,
            "", "attachments (--print NAME)", *inside,
        ])  # fmt: skip


def read(path: Path) -> Inside:
    """
    Raises:
        UserError: there is no such file, or it is no capsule.
    """
    inside = Inside(path, Recording(path).contents())
    try:
        with open(path, "rb") as file:
            reader = make_reader(file)
            for record in reader.iter_metadata():
                if record.name == "capsule":
                    inside.about = dict(record.metadata)
                elif record.name == "versions":
                    inside.versions = dict(record.metadata)
            inside.attachments = {a.name: a.data for a in reader.iter_attachments()}
    except McapError as e:
        raise UserError(
            f"{path}: cannot be read as a capsule: {e}; `gripwire replay` may still play it"
        ) from e
    if not inside.about:
        raise UserError(f"{path} is a recording but no capsule; `gripwire capsule save` makes one")
    return inside
