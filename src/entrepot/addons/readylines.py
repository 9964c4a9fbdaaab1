"""Log lines of answers that are given again and again: all is known but the client and the time.

A line is formatted once, by the formatter that is in use, and written together with those of a moment: formatting and
writing each cost more than the answer.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol, TextIO, override

from entrepot.pairs import as_text

BATCH: Final = 0.05  # seconds that lines wait for others, at most
_CLIENT: Final = "@client@"  # what stands in a line's place for what differs
_TIME: Final = 0.0


class _Formatter(Protocol):
    """What a handler's formatter must have for ready lines."""

    def moment(self, created: float) -> str:
        """The time of a line, as it stands in it; `created` in epoch seconds."""


class Line:
    """A line of which all is known but the client and the time. Written together with others: a write costs as much as
    the answer.
    """

    def __init__(
        self, batch: "Batch", handler: logging.StreamHandler[TextIO], formatter: _Formatter, text: str
    ) -> None:
        self._batch, self._handler, self._formatter = batch, handler, formatter
        before, _, rest = text.partition(formatter.moment(_TIME))
        self._before, (self._between, _, self._after) = before, rest.partition(_CLIENT)

    def write(self, client: str) -> None:
        """It has been answered, now."""
        moment = self._formatter.moment(time.time())
        self._batch.add(self._handler, f"{self._before}{moment}{self._between}{client}{self._after}\n")


class Batch:
    """Lines on their way. One for each event loop."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, handler: logging.StreamHandler[TextIO], line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(BATCH, self._write, handler)
        self._lines.append(line)

    def _write(self, handler: logging.StreamHandler[TextIO]) -> None:
        lines, self._lines = self._lines, []
        handler.acquire()
        try:
            handler.stream.write("".join(lines))
            handler.flush()
        except OSError:
            pass  # as logging has it: whoever reads it is gone
        finally:
            handler.release()


class _Silent(Line):
    """Where nobody wants to hear of it."""

    def __init__(self) -> None:
        pass

    @override
    def write(self, client: str) -> None:
        pass


def line(batch: Batch, log: logging.Logger, fields: Mapping[str, object], head: str = "") -> Line | None:
    """Of `pairs.write` with these fields; None where the log is of a kind that has to see each record."""
    if not log.isEnabledFor(logging.INFO):
        return _Silent()
    handlers = logging.getLogger().handlers
    if len(handlers) != 1 or log.handlers or not isinstance(handlers[0], logging.StreamHandler):
        return None
    formatter = handlers[0].formatter
    if formatter is None or not hasattr(formatter, "moment"):
        return None
    record = logging.makeLogRecord({"name": log.name, "levelname": "INFO", "levelno": logging.INFO})
    fields = {**fields, "client": _CLIENT}
    text = as_text(fields)
    record.msg, record.fields, record.created = f"{head} {text}" if head else text, fields, _TIME
    return Line(batch, handlers[0], formatter, formatter.format(record))
