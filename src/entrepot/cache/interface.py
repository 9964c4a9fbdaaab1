"""The obligations every back end of the store keeps; `tests/cache/conformance.py` holds them to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest

type Document = Mapping[str, object]
"""A record: a JSON object."""


class StoreError(EntrepotError):
    """The store could not do what it was asked (the disk's fault, never the client's)."""


class DigestMismatch(StoreError):
    """The bytes written do not have the digest they were written under."""

    def __init__(self, expected: Digest, actual: str, size: int) -> None:
        super().__init__(f"expected {expected}, got {actual} ({size} bytes)")
        self.expected, self.actual, self.size = expected, actual, size


class NoRoom(StoreError):
    """There is no room now: what could go has gone, or may not. The same blob may fit later."""


class TooLarge(StoreError):
    """This blob never fits: it alone is larger than what the store may hold."""


class BlobReader(Protocol):
    """Random access to the bytes of one blob or growing part; stays valid when the blob is deleted or committed."""

    @property
    def identity(self) -> object:
        """Equal for readers of the same bytes in the same place: a part that grew, was taken over or was committed."""

    def read_now(self, offset: int, buffer: memoryview) -> int:
        """Copies bytes from `offset` on into `buffer` if that needs no wait for the disk.

        Returns how many were copied: 0 at the end of what is there, -1 when the disk would have to be waited for
        (then call `read` in a thread). Safe on the event loop.
        """

    def read(self, offset: int, buffer: memoryview) -> int:
        """As `read_now`, waiting for the disk if need be; never returns -1. For threads."""

    def close(self) -> None:
        """Frees the descriptor; calling it twice is harmless."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    digest: Digest
    size: int  # bytes
    used: float  # epoch seconds of the last use


class Part(Protocol):
    """The right to write one digest; exactly one of `commit`, `discard`, `release` ends it.

    All methods may wait for the disk: call them in a thread, one at a time.
    """

    @property
    def offset(self) -> int:
        """Bytes that are on disk and hashed: where a resumed transfer goes on."""

    @property
    def left(self) -> int:
        """Bytes that an earlier transfer left on disk; no wait."""

    def load(self) -> int:
        """Re-hashes what an earlier transfer left and returns `offset`; call once, before the first write."""

    def reserve(self, total: int) -> None:
        """Sets room aside for a blob of `total` bytes, what `load` found included; evicts others if it has to.

        Raises `NoRoom` or `TooLarge`; the part is then as it was before. Without it `write` reserves as it goes, which
        may end half-way. What was reserved is given back by whatever ends the part, or with the process.
        """

    def write(self, data: bytes | memoryview) -> None:
        """Appends; nothing of `data` counts when it raises, and what was written before stays.

        Raises `NoRoom` or `TooLarge` when the limits, or the disk, have no room for it, `StoreError` when the disk
        refuses otherwise.
        """

    def verify(self) -> None:
        """Raises `DigestMismatch` unless what was written has the digest."""

    def commit(self) -> None:
        """Makes the verified blob visible, durably. Idempotent over the store: a second commit changes nothing."""

    def restart(self) -> None:
        """Throws the bytes away and keeps the right: `offset` is 0 again."""

    def discard(self) -> None:
        """Gives up the right and the bytes."""

    def release(self) -> None:
        """Gives up the right and keeps the bytes for the next `claim`."""

    def reader(self) -> BlobReader:
        """Reads what has been written so far, and what comes, also after commit."""


class BlobStore(Protocol):
    def open(self, digest: Digest) -> tuple[int, BlobReader] | None:
        """Size in bytes and a reader of a committed blob, else None. Safe on the event loop."""

    def claim(self, digest: Digest) -> Part | None:
        """The right to write `digest`; None when it is committed (`open` it) or somebody else writes it (`follow`).

        Raises `NoRoom` when the disk has not even room for a name, `StoreError` when it refuses otherwise.
        """

    def follow(self, digest: Digest) -> tuple[int, int | None, BlobReader] | None:
        """(bytes written, final size if known, reader) of a part that another process writes; None if nobody does."""

    def announce(self, digest: Digest, size: int) -> None:
        """Tells followers in other processes the final size of the part that this process writes."""

    def touch(self, digest: Digest, now: float) -> None:
        """Notes a use at `now` (epoch seconds), wrong by no more than the batching of the back end.

        Microseconds: call it for every use, on the event loop. Evicted is what was used least recently; what was used
        a few seconds ago, is being written or is protected never goes.
        """

    def delete(self, digest: Digest) -> bool:
        """Removes a committed blob; open readers go on. False when there was none."""

    def iterate(self) -> Iterator[BlobInfo]:
        """Every committed blob, in no order; one that comes or goes meanwhile may be missed."""


class Records(Protocol):
    """Small facts by key. Reads see every write that returned before, of other processes a millisecond later."""

    def get(self, key: str) -> Document | None:
        """Tens of microseconds; safe on the event loop. An expired record is None at once."""

    def get_bytes(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        """Visible to every process when it returns; `ttl` in seconds, None = for ever."""

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        """All or nothing."""

    async def put_bytes(self, key: str, value: bytes) -> None: ...

    async def delete(self, key: str) -> bool: ...

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        """Documents whose key begins with `prefix`, in key order. For commands, not for the event loop."""

    async def close(self) -> None: ...
