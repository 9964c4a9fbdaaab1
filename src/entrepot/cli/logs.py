"""Log lines on stderr: for people, or one JSON object a line. Every process calls `configure` once.

Decides the form and what is loud enough; what is said is decided where it happens.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from entrepot.config.model import Log

_COLOURS: Final = {"debug": "\033[2m", "warning": "\033[33m", "error": "\033[31m", "critical": "\033[31m"}
_PLAIN: Final = "\033[0m"
# Libraries that report every connection as news.
CHATTY: Final = ("asyncio", "diskcache", "aiohttp")
QUIET: Final = ("mitmproxy",)  # at any level: below a warning it quotes requests, credentials and all


class ConsoleFormatter(logging.Formatter):
    """`2026-11-24 09:00:00 warning proxy-0: text`; a traceback follows on its own lines."""

    def __init__(self, process: str, *, colour: bool) -> None:
        super().__init__()
        self._process = process
        self._colour = colour
        self._second, self._moment = -1, ""

    def moment(self, created: float) -> str:
        """Local time, to the second."""
        if (second := int(created)) != self._second:
            self._second, self._moment = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return self._moment

    def format(self, record: logging.LogRecord) -> str:
        """One line, unless there is a traceback."""
        level = record.levelname.lower()
        word = f"{_COLOURS[level]}{level}{_PLAIN}" if self._colour and level in _COLOURS else level
        text = f"{self.moment(record.created)} {word} {self._process}: {one_line(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, process, logger, message or what it is made of, and traceback if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def moment(self, created: float) -> str:
        """UTC, to the millisecond."""
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """A line."""
        entry: dict[str, object] = {
            "time": self.moment(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(fields := getattr(record, "fields", None), Mapping):
            del entry["message"]  # it says the same
            entry |= fields
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def one_line(text: str) -> str:
    """What comes from outside must not look like another line, nor move the cursor."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def configure(log: Log, process: str, stream: TextIO | None = None) -> None:
    """Sends the log of this process, called `process`, to `stream`, by default stderr."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    formatter: logging.Formatter = JsonFormatter(process)
    if log.format == "console":
        formatter = ConsoleFormatter(process, colour=stream.isatty())
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log.level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if log.level == "debug" else logging.WARNING)
