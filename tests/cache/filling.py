"""Stores on a disk that is told what it is, and blobs to fill them with."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from entrepot.cache.blobs import FileBlobs, FilePart
from entrepot.cache.layout import BLOCK, on_disk
from entrepot.cache.space import Disk, Limits
from entrepot.registry.digests import Digest


def content(number: int, blocks: int = 1) -> bytes:
    """`blocks` blocks of bytes that are like no other number's."""
    return number.to_bytes(8, "big") * (blocks * BLOCK // 8)


@dataclass
class Machine:
    """One directory on one disk, under one clock, for any number of stores that stand for processes."""

    root: Path
    limits: Limits
    total: int = 1 << 40
    foreign: int = 0  # bytes that others have on the disk
    now: float = 1_000_000.0
    protected: set[Digest] = field(default_factory=set)
    boot: str = "first"

    def store(self) -> FileBlobs:
        return FileBlobs(
            self.root,
            self.limits,
            protected=lambda digest: digest in self.protected,
            clock=lambda: self.now,
            disk=lambda path: self.disk(),
            boot=self.boot,
        )

    def disk(self) -> Disk:
        used = self.there() + self.foreign
        return Disk(self.total, self.total - used, used)

    def there(self) -> int:
        """Bytes on disk, in blobs and parts, by looking."""
        files = [*self.root.glob("blobs/*/*/*"), *self.root.glob("incoming/*.part")]
        return sum(on_disk(path.stat().st_size) for path in files)


def claimed(store: FileBlobs, digest: Digest) -> FilePart:
    part = store.claim(digest)
    assert part is not None
    return part


def put(store: FileBlobs, data: bytes) -> Digest:
    digest = Digest.of(data)
    part = claimed(store, digest)
    try:
        part.reserve(len(data))
        part.write(data)
        part.commit()
    finally:
        part.discard()
    return digest


def holds(store: FileBlobs) -> set[Digest]:
    return {info.digest for info in store.iterate()}


def die(part: FilePart) -> None:
    """As the kernel sees a process off."""
    os.close(part._fd)
    part._fd = -1
