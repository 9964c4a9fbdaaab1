"""A store in memory: the second back end of the conformance tests, and what the engine's tests run on."""

import time
from collections.abc import Callable, Iterator, Mapping

from entrepot.cache.interface import BlobInfo, DigestMismatch, Document, NoRoom, TooLarge
from entrepot.registry.digests import Digest


class MemoryReader:
    def __init__(self, data: bytearray) -> None:
        self._data = data

    @property
    def identity(self) -> object:
        return id(self._data)

    def read_now(self, offset: int, buffer: memoryview) -> int:
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    read = read_now

    def close(self) -> None:
        pass


class MemoryPart:
    def __init__(self, store: "MemoryBlobs", digest: Digest, data: bytearray) -> None:
        self._store, self.digest, self._data = store, digest, data
        self._loaded, self._reserved = False, 0

    @property
    def offset(self) -> int:
        return len(self._data) if self._loaded else 0

    @property
    def left(self) -> int:
        return len(self._data)

    def load(self) -> int:
        self._loaded = True
        return len(self._data)

    def reserve(self, total: int) -> None:
        if total > self._reserved:
            self._store.make_room(self.digest, total)
            self._reserved = self._store.reserved[self.digest] = total

    def write(self, data: bytes | memoryview) -> None:
        self.reserve(len(self._data) + len(data))
        self._data += data
        self._loaded = True

    def verify(self) -> None:
        actual = Digest.of(bytes(self._data), self.digest.algorithm)
        if actual != self.digest:
            raise DigestMismatch(self.digest, str(actual), len(self._data))

    def commit(self) -> None:
        self.verify()
        self._store.blobs.setdefault(self.digest, (self._data, self._store.clock()))
        self.discard()

    def restart(self) -> None:
        self._data = self._store.parts[self.digest] = bytearray()

    def discard(self) -> None:
        self._store.parts.pop(self.digest, None)
        self.release()

    def release(self) -> None:
        self._store.writing.pop(self.digest, None)
        self._store.reserved.pop(self.digest, None)

    def reader(self) -> MemoryReader:
        return MemoryReader(self._data)


class MemoryBlobs:
    """`entrepot.cache.interface.BlobStore` for one process; `size` in bytes limits what it holds, None = no limit."""

    def __init__(self, clock: Callable[[], float] = time.time, size: int | None = None) -> None:
        self.clock, self.size = clock, size
        self.reserved: dict[Digest, int] = {}
        self.blobs: dict[Digest, tuple[bytearray, float]] = {}
        self.parts: dict[Digest, bytearray] = {}
        self.writing: dict[Digest, int | None] = {}

    def open(self, digest: Digest) -> tuple[int, MemoryReader] | None:
        if (held := self.blobs.get(digest)) is None:
            return None
        return len(held[0]), MemoryReader(held[0])

    def claim(self, digest: Digest) -> MemoryPart | None:
        if digest in self.blobs or digest in self.writing:
            return None
        self.writing[digest] = None
        return MemoryPart(self, digest, self.parts.setdefault(digest, bytearray()))

    def follow(self, digest: Digest) -> tuple[int, int | None, MemoryReader] | None:
        if digest not in self.writing:
            return None
        part = self.parts[digest]
        return len(part), self.writing[digest], MemoryReader(part)

    def announce(self, digest: Digest, size: int) -> None:
        self.writing[digest] = size

    def touch(self, digest: Digest, now: float) -> None:
        if digest in self.blobs:
            self.blobs[digest] = (self.blobs[digest][0], now)

    def delete(self, digest: Digest) -> bool:
        return self.blobs.pop(digest, None) is not None

    def used(self) -> int:
        """Bytes held, and set aside for what is being written."""
        idle = sum(len(data) for digest, data in self.parts.items() if digest not in self.reserved)
        return sum(len(data) for data, _ in self.blobs.values()) + idle + sum(self.reserved.values())

    def make_room(self, digest: Digest, total: int) -> None:
        """Evicts until `digest` may have `total` bytes. Raises `NoRoom`, `TooLarge`."""
        if self.size is None:
            return
        if total > self.size:
            raise TooLarge(f"{digest}: {total} bytes are more than the store may ever hold ({self.size})")
        mine = self.reserved.get(digest, len(self.parts.get(digest, b"")))
        over = self.used() - mine + total - self.size
        if over > sum(len(data) for data, _ in self.blobs.values()):
            raise NoRoom(f"{digest}: no room for {total} bytes now ({over} bytes short)")
        for victim in sorted(self.blobs, key=lambda held: self.blobs[held][1]):
            if over <= 0:
                break
            over -= len(self.blobs.pop(victim)[0])

    def iterate(self) -> Iterator[BlobInfo]:
        for digest, (data, used) in list(self.blobs.items()):
            yield BlobInfo(digest, len(data), used)


class MemoryRecords:
    """`entrepot.cache.interface.Records` for one process; `clock` in seconds decides expiry."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[Document | bytes, float | None]] = {}

    def _live(self, key: str) -> Document | bytes | None:
        if (entry := self._values.get(key)) is None:
            return None
        value, until = entry
        return value if until is None or self._clock() < until else None

    def get(self, key: str) -> Document | None:
        value = self._live(key)
        return None if isinstance(value, bytes) else value

    def get_bytes(self, key: str) -> bytes | None:
        value = self._live(key)
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        self._values[key] = (dict(value), None if ttl is None else self._clock() + ttl)

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        for key, value in values.items():
            await self.put(key, value, ttl=ttl)

    async def put_bytes(self, key: str, value: bytes) -> None:
        self._values[key] = (value, None)

    async def delete(self, key: str) -> bool:
        return self._values.pop(key, None) is not None

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        for key in sorted(self._values):
            if key.startswith(prefix) and (value := self.get(key)) is not None:
                yield key, value

    async def close(self) -> None:
        self._values.clear()
