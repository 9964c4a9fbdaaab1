"""The records as they lie there, read without a byte of room (DESIGN rule 10).

On a disk that is quite full SQLite cannot open a file that has a write-ahead log, not even to read it: the index of the
log is a file too. Here the index is made in memory and no lock is taken, so this is right only while nobody writes.
Whoever does write changes the files, and every read looks at them afterwards: what was read while they were not what
they had been when they were opened does not count.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from diskcache.core import MODE_RAW

from entrepot.cache.interface import StoreError

type Value = str | bytes | None
type Look = tuple[tuple[int, ...] | None, ...]

DATABASE: Final = "cache.db"  # the name that diskcache gives it
TICK: Final = 0.05  # seconds; two writes that are nearer to each other may leave the same time on a file
TRIES: Final = 5  # to find the files at rest for so long
_GET: Final = "SELECT value, expire_time, mode, filename FROM Cache WHERE key = ? AND raw = 1"
_KEYS: Final = "SELECT key FROM Cache WHERE raw = 1 AND (expire_time IS NULL OR expire_time > ?) ORDER BY key"


class Changed(Exception):
    """Somebody writes to the files, or this was closed: open them anew."""


class Frozen:
    """One reading of the files. Thread-safe."""

    def __init__(self, directory: Path, version: int, clock: Callable[[], float] = time.time) -> None:
        """`version` tells it from others; `clock` gives epoch seconds. Raises `StoreError`.

        May have to wait for a moment: see `TICK`.
        """
        self.version, self._clock = version, clock
        self._path = directory / DATABASE
        self._lock = threading.Lock()
        self._closed = False
        self._files = self._at_rest()
        # Not the usual VFS: that one would take locks, and refuse to do without a shared index.
        uri = f"{self._path.absolute().as_uri()}?mode=ro&vfs=unix-none"
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            # Whose log is empty may be at work: who closes last removes it, and without locks we seem to be the last.
            self._connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index is in memory then
            self._connection.execute(_GET, ("",)).fetchall()
        except sqlite3.Error as e:
            self.close()
            raise StoreError(f"cannot read the records in {directory}: {e}") from e

    def get(self, key: str) -> tuple[Value, float | None]:
        """The value and the epoch second at which it ends, if it does. Raises `Changed`."""
        for value, until, mode, filename in self._rows(_GET, (key,)):
            usable = mode == MODE_RAW and filename is None and type(value) in (str, bytes)
            if usable and (until is None or until > self._clock()):
                return value, until
        return None, None

    def keys(self) -> list[str]:
        """In order. Raises `Changed`."""
        return [key for (key,) in self._rows(_KEYS, (self._clock(),)) if type(key) is str]

    def check(self) -> None:
        """Raises `Changed` if what was read may be so no longer."""
        if self._closed or self._files != self._look():
            raise Changed

    def checked(self) -> int:
        """The version. Raises `Changed`."""
        self.check()
        return self.version

    def close(self) -> None:
        """Must be over before SQLite opens the files in its usual way: to close them drops its locks."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._closed or self._connection is None:
                raise Changed
            try:
                found = self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as e:
                self.check()
                raise StoreError(f"cannot read {self._path}: {e}") from e
            self.check()
            return found

    def _at_rest(self) -> Look:
        """The files, when whatever is written to them from now on can be seen."""
        for _ in range(TRIES):
            files = self._look()
            latest = max((each[-1] / 1e9 for each in files if each), default=0.0)
            if not 0 <= self._clock() - latest < TICK:
                return files
            time.sleep(TICK)
        raise StoreError(f"cannot read {self._path}: it is being written")

    def _look(self) -> Look:
        found: list[tuple[int, ...] | None] = []
        for path in (self._path, self._path.with_name(f"{DATABASE}-wal")):
            stat = None
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
            # An empty log is none.
            found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat and stat.st_size else None)
        return tuple(found)
