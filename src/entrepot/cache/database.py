"""The SQLite file under the ledger: opening, waiting, and starting anew when it is damaged or gone.

1. All of it can be made again from the file tree, so a damaged file is thrown away, never repaired.
2. Writers queue on an flock instead of SQLite's busy handler, which sleeps up to 100 ms between looks: the worst wait
   of four processes was 62 ms with the flock, 138 ms without.
3. A file that was removed or replaced by another process is noticed before the next use.
4. `ballast` is a file to remove when the disk is too full for SQLite even to open: without the ledger nothing else
   would know what to remove.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from entrepot.cache.interface import NoRoom, StoreError
from entrepot.cache.layout import OUT_OF_ROOM

_log = logging.getLogger("entrepot.cache")
_WAIT: Final = 30.0  # seconds; only a checkpoint or a foreign program can make SQLite wait at all
BALLAST: Final = "ballast"  # its name, beside the database
_BALLAST: Final = 1 << 20  # bytes; SQLite needs 32 KiB of shared memory and a few pages of log, the records some more
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",  # a power loss may lose the last moments, never the file
    "cache_size = -4096",  # KiB
)


class Database:
    """One connection of this process, for all its threads; opened on first use, opened anew when replaced."""

    def __init__(self, path: Path, version: int, schema: str, seed: Callable[[sqlite3.Connection], None]) -> None:
        """`schema` and `seed` fill a new file; a file with another `version` is thrown away."""
        self._path, self._version, self._schema, self._seed = path, version, schema, seed
        self._ballast = path.with_name(BALLAST)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode; SQLite keeps them from being used again
        self._queue = -1

    def read[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns; it fetches all it wants, and changes nothing."""
        return self._run(work, lambda connection: contextlib.nullcontext())

    def write[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns; all it did counts, or nothing. Raises `NoRoom` when the disk is full."""
        return self._run(work, self._transaction)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._queue >= 0:
                os.close(self._queue)
            self._file, self._queue = None, -1

    def __del__(self) -> None:  # commands and tests drop their store without further ado
        self.close()

    def restore_ballast(self) -> None:
        """To be called when there is room."""
        if not self._ballast.exists():
            with contextlib.suppress(OSError):
                self._ballast.write_bytes(os.urandom(_BALLAST))  # random: a file system that compresses is not fooled

    def _run[T](
        self,
        work: Callable[[sqlite3.Connection], T],
        around: Callable[[sqlite3.Connection], contextlib.AbstractContextManager[None]],
    ) -> T:
        with self._lock:
            tries = 0
            while True:
                tries += 1
                try:
                    connection = self._opened()
                    with around(connection):
                        return work(connection)
                except sqlite3.Error as e:
                    if not (tries < 3 and self._cured(_code(e))):
                        kind = NoRoom if is_full(e) else StoreError
                        raise kind(f"cannot use {self._path}: {e}") from e
                except OSError as e:
                    raise StoreError(f"cannot use {self._path}: {e.strerror}") from e

    def _cured(self, code: int) -> bool:
        """Whether trying again may help."""
        if code in _DAMAGED:
            self._throw_away()
            return True
        if code in _FULL and self._ballast.exists():
            self._ballast.unlink(missing_ok=True)
            self.close()
            return True
        return False

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._file == self._at_path():
                return self._connection
            self.close()
        with self._opening():
            self._connection = self._open()
            # A descriptor of our own would do harm: closing it drops the locks SQLite holds on the file.
            self._file = self._at_path()
        return self._connection

    def _at_path(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """One process at a time: of two that make a file, or switch it to WAL, one would fail."""
        if self._queue < 0:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._queue = os.open(self._path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != self._version:
                if version:
                    raise _OtherVersion
                connection.execute("BEGIN IMMEDIATE")
                for statement in self._schema.split("\n\n"):
                    connection.execute(statement)
                self._seed(connection)
                connection.execute(f"PRAGMA user_version = {self._version}")
                connection.execute("COMMIT")
                self._path.chmod(0o600)
        except BaseException:
            connection.close()
            raise
        return connection

    def _throw_away(self) -> None:
        _log.warning("%s is damaged or of another version; it will be made again from the files", self._path)
        replaced = self._file is not None and self._file != self._at_path()
        self.close()
        if replaced:  # another process was first
            return
        with self._opening():
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


class _OtherVersion(sqlite3.DatabaseError):
    """The file was made by another version of us."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def is_full(e: BaseException) -> bool:
    """Whether SQLite, or the system, says that there is no room; it says so in more ways than one."""
    return e.errno in OUT_OF_ROOM if isinstance(e, OSError) else isinstance(e, sqlite3.Error) and _code(e) in _FULL


def _code(e: sqlite3.Error) -> int:
    return int(getattr(e, "sqlite_errorcode", 0)) & 0xFF  # without the extension that tells which read or write failed
