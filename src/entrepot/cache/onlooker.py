"""The records, for a process that only looks: the web pages and the metrics.

Opens what is there and changes nothing, not even what `records` sets when it opens. What begins with a prefix is found
by the index of the keys, a page at a time, so that no reader keeps the write-ahead log from being emptied for long.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from diskcache.core import MODE_RAW

from entrepot.cache.frozen import DATABASE
from entrepot.cache.interface import Document, StoreError

PAGE: Final = 512  # records read at once
_LAST: Final = "\U0010ffff"  # behind every other character
_WAIT: Final = 2.0  # seconds; readers wait for nobody, but for one who recovers the log after a crash
_GET: Final = (
    "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = ? AND filename IS NULL "
    "AND (expire_time IS NULL OR expire_time > ?)"
)
_SCAN: Final = (
    "SELECT key, value FROM Cache WHERE key > ? AND key < ? AND raw = 1 AND mode = ? AND filename IS NULL "
    "AND (expire_time IS NULL OR expire_time > ?) ORDER BY key LIMIT ?"
)


class Onlooker:
    """One connection, opened on first use; for one thread at a time, whichever that is. Raises `StoreError`."""

    def __init__(self, store: Path, clock: Callable[[], float] = time.time) -> None:
        """`store` as in `embedded.open_records`; `clock` gives epoch seconds."""
        self._path, self._clock = store / "records" / DATABASE, clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def get(self, key: str) -> Document | None:
        return _document(self._value(key))

    def get_bytes(self, key: str) -> bytes | None:
        return value if isinstance(value := self._value(key), bytes) else None

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        """Documents whose key begins with `prefix`, in key order; all but the first page may be of a later moment."""
        after = prefix
        while True:
            rows = self._rows(_SCAN, (after, prefix + _LAST, MODE_RAW, self._clock(), PAGE))
            for key, value in rows:
                after = key
                if isinstance(key, str) and (document := _document(value)) is not None:
                    yield key, document
            if len(rows) < PAGE:
                return

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _value(self, key: str) -> object:
        rows = self._rows(_GET, (key, MODE_RAW, self._clock()))
        return rows[0][0] if rows else None

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._opened().execute(sql, values).fetchall()
        except sqlite3.Error as e:
            self.close()
            raise StoreError(f"cannot read {self._path}: {e}") from e

    def _opened(self) -> sqlite3.Connection:
        if (file := self._at_path()) is None:
            self.close()
            raise StoreError(f"there are no records in {self._path.parent} yet")
        if self._connection is None or file != self._file:
            self.close()
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            self._connection, self._file = connection, file
            connection.execute("PRAGMA cache_size = -512")  # KiB
        return self._connection

    def _at_path(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            stat = self._path.stat()
            return stat.st_dev, stat.st_ino
        return None


def _document(value: object) -> Document | None:
    if not isinstance(value, str):
        return None
    try:
        document = json.loads(value)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
