"""Records in diskcache: tags, membership, grants, manifests.

Decides how records are laid out in SQLite and which thread writes. Reads happen where they are asked for (10-30 us,
SQLite in WAL mode: readers never wait for the writer; some 4 us for what was read since the last write, see `recall`);
writes go through one thread, so that the event loop never
waits for the write lock or a checkpoint. What the records mean is the engine's business.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diskcache

from entrepot.cache.interface import Document, StoreError
from entrepot.cache.recall import Recall
from entrepot.cache.safedisk import SafeDisk

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

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._cache = _Cache(str(directory), timeout=BUSY_TIMEOUT, disk=SafeDisk, **SETTINGS)
        except (sqlite3.Error, diskcache.Timeout, OSError) as e:
            raise StoreError(f"cannot open the records in {directory}: {e}") from e
        self._reader = threading.get_ident()  # the one with the event loop; it asks again and again for the same
        self._recall = Recall(self._version)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="records")

    def get(self, key: str) -> Document | None:
        if threading.get_ident() != self._reader:
            return _document(self._cache.get(key))
        return self._recall.get(key, self._read, _document)

    def get_bytes(self, key: str) -> bytes | None:
        if threading.get_ident() != self._reader:
            return _bytes(self._cache.get(key))
        return self._recall.get(key, self._read, _bytes)

    def _read(self, key: str) -> tuple[str | bytes | None, float | None]:
        value, until = self._cache.get(key, expire_time=True)
        return value, until

    def _version(self) -> int:
        """Another one after any commit but this connection's own, of which there are none: it only reads."""
        (version,) = self._cache._con.execute("PRAGMA data_version").fetchone()
        return int(version)

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        await self._write(self._set, {key: _text(value)}, ttl)

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        await self._write(self._set, {key: _text(value) for key, value in values.items()}, ttl)

    async def put_bytes(self, key: str, value: bytes) -> None:
        await self._write(self._set, {key: value}, None)

    async def delete(self, key: str) -> bool:
        return bool(await self._write(self._cache.delete, key))

    async def expire(self) -> int:
        """Removes what has ended; until then it takes room, and is found by nobody. How many records were removed."""
        return int(await self._write(self._cache.expire))

    def has(self, key: str) -> bool:
        """Whether there is a document; for threads that come and go, each of which would keep a connection.

        Raises `StoreError`.
        """
        try:
            return self._writer.submit(self.get, key).result() is not None
        except (sqlite3.Error, diskcache.Timeout, OSError) as e:
            raise StoreError(f"cannot read a record: {e}") from e

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        for key in self._cache.iterkeys():
            if key.startswith(prefix) and (value := self.get(key)) is not None:
                yield key, value

    async def close(self) -> None:
        await self._write(self._cache.close)
        self._writer.shutdown()
        self._cache.close()

    def close_now(self) -> None:
        """For commands that only read and have no event loop."""
        self._writer.shutdown()
        self._cache.close()

    def _set(self, values: Mapping[str, str | bytes], ttl: float | None) -> None:
        with self._cache.transact(retry=True):
            for key, value in values.items():
                self._cache.set(key, value, expire=ttl)

    async def _write(self, what: Any, *args: Any) -> Any:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._writer, what, *args)
            self._recall.written()
            return done
        except (sqlite3.Error, diskcache.Timeout, OSError) as e:
            raise StoreError(f"cannot write a record: {e}") from e


def _text(value: Document) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _document(value: object) -> Document | None:
    if not isinstance(value, str):
        return None
    document = json.loads(value)
    return document if isinstance(document, dict) else None
