"""What a capsule says beside the messages: settings, versions, bundles, logs. Never a secret."""

import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire import __version__
from gripwire.settings import Settings

_SECRET_NAME = re.compile(r"key|secret|token|passw|credential", re.IGNORECASE)
_PASSWORD = re.compile(r"(://)[^\s\"']*@")  # up to the last @: a password may hold one, or a slash
_BUNDLE_ID = re.compile(r"[0-9a-f]{8,64}")
"""An id came over the wire: anything else is not looked for on the disk."""
_LARGEST_BYTES = 1 << 20
_LOG_BYTES = 64 << 10
_LOG_SLACK_S = 60.0


@dataclass(frozen=True)
class Facts:
    """What the last messages said about the stack."""

    serving: str = ""
    previous: str = ""
    epoch: int = 0
    episode: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def facts(last: Mapping[str, Mapping[str, Any]]) -> Facts:
    """From the last message, as JSON, of `model`, `episode` and the heartbeats."""
    model, episode = last.get("model", {}), last.get("episode", {})
    versions = {
        topic.removeprefix("health/"): ", ".join(f"{k} {v}" for k, v in health.get("versions", {}).items())
        for topic, health in sorted(last.items())
        if topic.startswith("health/")
    }
    recording = episode.get("state") in ("recording", "saving")
    return Facts(
        serving=str(model.get("serving", "")),
        previous=str(model.get("previous", "")),
        epoch=int(model.get("epoch", 0)),
        episode=f"{episode.get('dataset')}/{episode.get('episode')}" if recording else "",
        versions=versions,
    )


def describe(known: Facts, why: str, note: str) -> dict[str, str]:
    """The capsule's own record: what it is, when and where it was made, and what served then."""
    return {
        "note": note, "why": why, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(), "kernel": platform.platform(), "python": platform.python_version(),
        "gripwire": __version__, "serving": known.serving, "previous": known.previous,
        "epoch": str(known.epoch), "episode": known.episode,
    }  # fmt: skip


def attachments(settings: Settings, known: Facts, began_wall: float) -> Iterator[tuple[str, str, bytes]]:
    """Name, media type and content of each. ``began_wall``: when the capsule begins, s since 1970."""
    yield "settings.json", "application/json", json.dumps(shown(settings), indent=1).encode()
    for role, bundle in (("serving", known.serving), ("previous", known.previous)):
        if _BUNDLE_ID.fullmatch(bundle):
            path = settings.data / "bundles" / bundle / "bundle.json"
            with suppress(OSError):
                if path.stat().st_size <= _LARGEST_BYTES:
                    yield f"{role}/bundle.json", "application/json", path.read_bytes()
    for path in _logs(settings.data, began_wall - _LOG_SLACK_S):
        with suppress(OSError):
            yield f"log/{path.stem}.txt", "text/plain", _tail(path)


def shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Every setting that somebody set and those of the bus, each with its origin; secrets are blotted out."""
    out = {
        key: {"value": _clean(key, value), "from": "default"}
        for key, value in settings.bus.model_dump().items()
    }
    for path, value in settings.values.items():
        key = ".".join(path)
        out[key] = {"value": _clean(key, value.value), "from": value.origin}
    return out


def _clean(key: str, value: object) -> str:
    if _SECRET_NAME.search(key.rsplit(".", 1)[-1]):
        return "(a secret, left out)"
    return without_passwords(str(value))


def without_passwords(text: str) -> str:
    """``rtsp://user:password@camera/`` becomes ``rtsp://camera/``."""
    return _PASSWORD.sub(r"\1", text)


def _logs(data: Path, since: float) -> list[Path]:
    """The log files that `gripwire up` writes in a terminal, of the services that wrote since then."""
    with suppress(OSError):
        newest = max((data / "runs").glob("up-*"), key=os.path.getmtime, default=None)
        if newest is not None:
            return [path for path in sorted(newest.glob("*.log")) if path.stat().st_mtime >= since]
    return []


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LOG_BYTES))
        if size > _LOG_BYTES:
            file.readline()  # torn in the middle
        return without_passwords(file.read().decode(errors="replace")).encode()
