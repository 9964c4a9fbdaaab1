"""Records in diskcache: tags, membership, grants, manifests.

Decides how records are laid out in SQLite and which thread writes. Reads happen where they are asked for (10-30 us,
SQLite in WAL mode: readers never wait for the writer; some 4 us for what was read since the last write, see `recall`);
writes go through one thread, so that the event loop never
waits for the write lock or a checkpoint. On a disk that is too full to open them for writing they are read as they lie
there (`frozen`), until there is room. What the records mean is the engine's business.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import diskcache

from entrepot.cache.database import is_full
from entrepot.cache.frozen import Changed, Frozen
from entrepot.cache.interface import Document, NoRoom, StoreError
from entrepot.cache.recall import Recall
from entrepot.cache.safedisk import SafeDisk

_log = logging.getLogger("entrepot.cache")
SETTINGS = {
    "eviction_policy": "none",  # others write on every read, and evict records together with values
    "cull_limit": 0,  # nothing is culled behind our back
    "size_limit": 2**62,  # bytes; our own eviction looks after the disk
    "statistics": 0,
    "tag_index": 0,
    "sqlite_synchronous": 1,  # NORMAL: safe in WAL mode, a power loss may lose the last moments, never the file
    "sqlite_cache_size": 2**10,  # pages of 4 KiB, for each connection; what is hot is remembered by `recall`
    "sqlite_mmap_size": 2**25,  # bytes; what is mapped counts as the process's memory
}
BUSY_TIMEOUT = 30.0  # seconds a writer waits for another process's write lock

AGAIN: Final = 1.0  # seconds between attempts to write on a disk that was full
ROOM: Final = 1 << 18  # bytes free, at least, for such an attempt
TRIES: Final = 3  # to read what others write


class _Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """Leaves no connection behind when it cannot be opened."""

    def __init__(self, directory: str, **settings: Any) -> None:
        try:
            super().__init__(directory, **settings)
        except BaseException:
            self.close()
            raise


class DiskRecords:
    """`entrepot.cache.interface.Records` in a directory of its own (diskcache deletes files it does not know)."""

    def __init__(
        self, directory: Path, *, read_only: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`read_only`: until there is room. `clock` in seconds. Raises `StoreError`, `NoRoom`."""
        self._directory, self._clock = directory, clock
        self._readings = itertools.count(1)
        self._turn = threading.Lock()  # to exchange `_cache`
        self._tried = clock()
        self._cache = self._read_only() if read_only else opened(directory)
        self._reader = threading.get_ident()  # the one with the event loop; it asks again and again for the same
        self._recall = Recall(self._version)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="records")

    @property
    def read_only(self) -> bool:
        return isinstance(self._cache, Frozen)

    def get(self, key: str) -> Document | None:
        if threading.get_ident() != self._reader:
            return _document(self._read(key)[0])
        return self._recall.get(key, self._read, _document)

    def get_bytes(self, key: str) -> bytes | None:
        if threading.get_ident() != self._reader:
            return _bytes(self._read(key)[0])
        return self._recall.get(key, self._read, _bytes)

    def version(self) -> int:
        return self._recall.version()

    def _read(self, key: str) -> tuple[str | bytes | None, float | None]:
        value, until = self._ask(lambda cache: cache.get(key, expire_time=True), lambda frozen: frozen.get(key))
        return value, until

    def _version(self) -> int:
        """Another one after any commit but this connection's own, of which there are none: it only reads."""
        return self._ask(_data_version, lambda frozen: frozen.checked())

    def _ask[T](self, usual: Callable[[_Cache], T], frozen: Callable[[Frozen], T]) -> T:
        for _ in range(TRIES):
            cache = self._cache
            if not isinstance(cache, Frozen):
                return usual(cache)
            try:
                return frozen(cache)
            except Changed:
                self._exchange(cache)
        raise StoreError(f"cannot read the records in {self._directory}: they are being written")

    def _read_only(self) -> Frozen:
        return Frozen(self._directory, -next(self._readings))

    def _exchange(self, old: Frozen) -> None:
        """Opens the records anew, for writing if there is room now. Raises `StoreError`; then it may be tried again."""
        with self._turn:
            if self._cache is not old:
                return
            old.close()
            if self._worth_trying():
                self._tried = self._clock()
                with contextlib.suppress(StoreError):
                    self._cache = opened(self._directory)
                    _log.info("there is room again: records are kept")
                    return
            self._cache = self._read_only()

    def _worth_trying(self) -> bool:
        return self._clock() - self._tried >= AGAIN and has_room(self._directory)

    def _writable(self) -> _Cache:
        """For the writer. Raises `NoRoom`."""
        if isinstance(cache := self._cache, Frozen) and self._worth_trying():
            self._exchange(cache)
        if isinstance(cache := self._cache, Frozen):
            raise NoRoom(f"cannot write a record in {self._directory}: the disk is full")
        return cache

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        await self._set({key: _text(value)}, ttl)

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        await self._set({key: _text(value) for key, value in values.items()}, ttl)

    async def put_bytes(self, key: str, value: bytes) -> None:
        await self._set({key: value}, None)

    async def delete(self, key: str) -> bool:
        return await self._write(lambda cache: bool(cache.delete(key)))

    async def expire(self) -> int:
        """Removes what has ended; until then it takes room, and is found by nobody. How many records were removed."""
        return await self._write(lambda cache: int(cache.expire()))

    def has(self, key: str) -> bool:
        """Whether there is a document; for threads that come and go, each of which would keep a connection.

        Raises `StoreError`.
        """
        try:
            return self._writer.submit(self.get, key).result() is not None
        except (sqlite3.Error, diskcache.Timeout, OSError) as e:
            raise StoreError(f"cannot read a record: {e}") from e

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        for key in self._ask(lambda cache: cache.iterkeys(), lambda frozen: frozen.keys()):
            if key.startswith(prefix) and (value := self.get(key)) is not None:
                yield key, value

    async def close(self) -> None:
        if not self.read_only:
            await self._write(lambda cache: cache.close())
        self.close_now()

    def close_now(self) -> None:
        """For commands that only read and have no event loop."""
        self._writer.shutdown()
        self._cache.close()

    async def _set(self, values: Mapping[str, str | bytes], ttl: float | None) -> None:
        def write(cache: _Cache) -> None:
            with cache.transact(retry=True):
                for key, value in values.items():
                    cache.set(key, value, expire=ttl)

        await self._write(write)

    async def _write[T](self, work: Callable[[_Cache], T]) -> T:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._writer, lambda: work(self._writable()))
            self._recall.written()
            return done
        except (sqlite3.Error, diskcache.Timeout, OSError) as e:
            raise StoreError(f"cannot write a record: {e}") from e


def opened(directory: Path) -> _Cache:
    """For reading and writing. Raises `NoRoom` on a disk that is too full, `StoreError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _Cache(str(directory), timeout=BUSY_TIMEOUT, disk=SafeDisk, **SETTINGS)
    except (sqlite3.Error, diskcache.Timeout, OSError) as e:
        raise (NoRoom if is_full(e) else StoreError)(f"cannot open the records in {directory}: {e}") from e


def has_room(directory: Path) -> bool:
    """Whether an attempt to write is worth it."""
    with contextlib.suppress(OSError):
        stat = os.statvfs(directory)
        return stat.f_bfree * stat.f_frsize >= ROOM
    return False


def _data_version(cache: _Cache) -> int:
    (version,) = cache._con.execute("PRAGMA data_version").fetchone()
    return int(version)


def _text(value: Document) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _document(value: object) -> Document | None:
    if not isinstance(value, str):
        return None
    document = json.loads(value)
    return document if isinstance(document, dict) else None
