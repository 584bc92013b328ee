"""Formats of a server's log: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from imagine_plugins.commands.shared.output import note


class TextFormatter(logging.Formatter):
    """Text for people: one line a record, control characters escaped; tracebacks have more."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line of `record`."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """The traceback, escaped: its messages may quote clients."""
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields that the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def printable(text: str) -> str:
    """`text` with control characters and other unprintable ones escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def start_logging(kind: str) -> Callable[[str], None]:
    """Log to stderr: our own messages from INFO on, those of libraries from WARNING on.

    Returns:
        A function that reports the start and the end: bare text for people, a log line in JSON.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    log = logging.getLogger("imagine")
    log.setLevel(logging.INFO)
    return log.info if kind == "json" else note
