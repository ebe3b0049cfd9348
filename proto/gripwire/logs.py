"""Logs: readable lines on a terminal, one JSON object a line otherwise; each says what was going on.

A line carries the episode that was being recorded and the model that served, where they are known: see
docs/metrics.md.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gripwire.messages import EpisodeState, Message, ModelState


class Context:
    """What was going on, as far as this process knows. Any thread may log meanwhile."""

    def __init__(self) -> None:
        self.episode = ""
        """Dataset and index of the episode that is being recorded or saved; empty: none is."""
        self.model = ""
        """Bundle id of the model that serves; empty: none does, or it is not known."""
        self.epoch = 0

    def see(self, message: Message | None) -> None:
        """Take in what `episode` or `model` said; anything else tells nothing."""
        match message:
            case EpisodeState(state="idle"):
                self.episode = ""
            case EpisodeState(dataset=dataset, episode=index):
                self.episode = f"{dataset}/{index}"
            case ModelState(serving=serving, epoch=epoch):
                self.model, self.epoch = serving, epoch

    def fields(self) -> dict[str, str | int]:
        """Of a JSON line: what is known."""
        known: dict[str, str | int] = {"episode": self.episode} if self.episode else {}
        return known | {"model": self.model, "epoch": self.epoch} if self.model else known

    def adopt(self, fields: Mapping[str, str | int]) -> None:
        """What :meth:`fields` of another process said."""
        self.episode, self.model = str(fields.get("episode", "")), str(fields.get("model", ""))
        self.epoch = int(fields.get("epoch", 0))

    def text(self) -> str:
        """The end of a readable line."""
        episode = [f"episode {self.episode}"] if self.episode else []
        model = [f"model {self.model[:8]} epoch {self.epoch}"] if self.model else []
        return f"  [{', '.join(episode + model)}]" if episode or model else ""


context = Context()
"""This process's."""


class _Text(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{clock} {self._service:<10} {level}{record.getMessage()}{context.text()}"
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str | int | float] = {
            "t": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= context.fields()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(
    service: str, style: Literal["auto", "text", "json"] = "auto", file: Path | None = None
) -> None:
    """Send all logging of this process to ``file``, else stderr, in ``style`` (auto: text on a terminal)."""
    text = not file and sys.stderr.isatty() if style == "auto" else style == "text"
    handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text(service) if text else _Json(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("gripwire", f"gripwire_{service.split('/')[0]}"):
        logging.getLogger(package).setLevel(logging.INFO)
