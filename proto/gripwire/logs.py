"""Logs: readable lines on a terminal, one JSON object a line otherwise."""

import json
import logging
import sys
import time
from typing import Literal


class _Text(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{clock} {self._service:<10} {level}{record.getMessage()}"
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "t": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(service: str, style: Literal["auto", "text", "json"] = "auto") -> None:
    """Send all logging of this process to stderr, in ``style`` (auto: text where stderr is a terminal)."""
    text = sys.stderr.isatty() if style == "auto" else style == "text"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text(service) if text else _Json(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("gripwire", f"gripwire_{service.split('/')[0]}"):
        logging.getLogger(package).setLevel(logging.INFO)
