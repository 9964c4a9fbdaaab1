"""Blobs as files we own; `layout` says where they lie.

Commit is `fdatasync` and `rename` on one file system: microseconds whatever the size, and after a crash or a power
loss there is nothing to repair. The kernel frees the flock of a dead process, so a part is taken over at once, from
its last byte. Decides where bytes live and who may write; when to fetch and what to evict is decided elsewhere.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from entrepot.cache.eviction import Protected
from entrepot.cache.interface import BlobInfo, DigestMismatch, StoreError
from entrepot.cache.layout import ALGORITHMS, Layout, entries, refused, same_file
from entrepot.cache.ledger import Ledger, new_owner
from entrepot.cache.space import Disk, Limits, Space, disk_of
from entrepot.registry.digests import Digest

WRITTEN = 512 << 10  # bytes written at once: 2 MiB take whole huge pages, which a host may have to give back first
REHASH_PIECE = 1 << 20  # bytes read at a time when a part left by an earlier transfer is hashed again
_NOWAIT_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class FileReader:
    """Reads by position, without waiting for the disk where the kernel can tell (`RWF_NOWAIT`)."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def identity(self) -> object:
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def read_now(self, offset: int, buffer: memoryview) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return -1
        except OSError as e:
            if e.errno in _NOWAIT_UNSUPPORTED:  # this file system cannot tell: let a thread do it
                return -1
            raise StoreError(f"cannot read what is held: {e.strerror}") from e

    def read(self, offset: int, buffer: memoryview) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as e:
            raise StoreError(f"cannot read what is held: {e.strerror}") from e

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:  # a reader that was dropped half-way (client gone, task cancelled)
        self.close()


class FilePart:
    """One digest being written; holds the flock until it is committed, discarded or released."""

    def __init__(self, layout: Layout, space: Space, digest: Digest, fd: int) -> None:
        self._layout, self._space, self.digest, self._fd = layout, space, digest, fd
        self._path = layout.part(digest)
        self._owner = new_owner()
        self._hash: _Hash = digest.hasher()
        self._offset = 0
        self._reserved = 0  # bytes, with what is on disk already

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def left(self) -> int:
        return self._on_disk()

    def load(self) -> int:
        buffer = memoryview(bytearray(REHASH_PIECE))
        while n := os.preadv(self._fd, [buffer], self._offset):
            self._hash.update(buffer[:n])
            self._offset += n
        return self._offset

    def reserve(self, total: int) -> None:
        if total > self._reserved:
            self._reserved = self._space.reserve(self.digest, self._owner, total, self._on_disk())

    def write(self, data: bytes | memoryview) -> None:
        if (needed := self._offset + len(data)) > self._reserved:
            self._reserved = self._space.grow(self.digest, self._owner, needed, self._on_disk())
        view, at = memoryview(data), self._offset
        try:
            while view:
                n = os.pwrite(self._fd, view[:WRITTEN], at)
                view, at = view[n:], at + n
        except OSError as e:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset)  # what is on disk and what is hashed stay the same bytes
            raise refused("write", self._path, e) from e
        self._hash.update(data)
        self._offset = at

    def verify(self) -> None:
        if (actual := self._hash.hexdigest()) != self.digest.hex:
            raise DigestMismatch(self.digest, f"{self.digest.algorithm}:{actual}", self._offset)

    def commit(self) -> None:
        self.verify()
        self._adopt()
        target = self._layout.blob(self.digest)
        now = self._space.now()
        try:
            os.utime(self._fd, (now, now))
            os.fdatasync(self._fd)  # before the name: a name must never outlive a power loss without its bytes
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.rename(target)
        except OSError as e:
            raise refused("commit", target, e) from e
        self._space.committed(self.digest, self._owner)
        self._end()

    def restart(self) -> None:
        self._adopt()
        os.ftruncate(self._fd, 0)
        self._hash, self._offset = self.digest.hasher(), 0
        self._layout.size(self.digest).unlink(missing_ok=True)

    def discard(self) -> None:
        if self._fd >= 0:
            self._adopt()
            self._path.unlink(missing_ok=True)
            if self._reserved:
                self._space.left(self.digest, self._owner, 0)
        self._end()

    def release(self) -> None:
        if self._fd >= 0 and self._reserved:
            self._space.left(self.digest, self._owner, self._on_disk())
        self._end()

    def reader(self) -> FileReader:
        # An open file description of its own: a dup would share the flock and keep it after we are gone.
        return FileReader(os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC))

    def _adopt(self) -> None:
        """What an earlier transfer left counts under its name until now; only the owner's end gives it back."""
        if not self._reserved and (size := self._on_disk()):
            self._space.adopt(self.digest, self._owner)
            self._reserved = size

    def _on_disk(self) -> int:
        return os.fstat(self._fd).st_size  # more than `offset` when `load` was not called

    def _end(self) -> None:
        if self._fd >= 0:
            self._layout.size(self.digest).unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


class FileBlobs:
    """`entrepot.cache.interface.BlobStore` under one directory, shared by any number of processes of one machine.

    One of the processes, at least, has to run a `Keeper` for it.
    """

    def __init__(
        self,
        root: Path,
        limits: Limits | None = None,
        *,
        protected: Protected = lambda digest: False,
        clock: Callable[[], float] = time.time,
        disk: Callable[[Path], Disk] = disk_of,
        boot: str | None = None,
    ) -> None:
        """`clock` gives epoch seconds; `boot` names the running time of the machine, None = ask the kernel."""
        self.layout = Layout(root)
        self.layout.make()
        self.ledger = Ledger(
            self.layout.ledger, boot=boot_id() if boot is None else boot, is_empty=self.layout.is_empty
        )
        with contextlib.suppress(StoreError):  # a disk too full for it must not keep us from serving
            self.ledger.sums()  # made now, while an empty store can be seen to be empty
        self.space = Space(self.layout, self.ledger, limits or Limits(), protected, clock, disk)

    def blob_path(self, digest: Digest) -> Path:
        return self.layout.blob(digest)

    def part_path(self, digest: Digest) -> Path:
        return self.layout.part(digest)

    def open(self, digest: Digest) -> tuple[int, FileReader] | None:
        try:
            fd = os.open(self.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return os.fstat(fd).st_size, FileReader(fd)

    def claim(self, digest: Digest) -> FilePart | None:
        path = self.part_path(digest)
        while True:
            if self.blob_path(digest).exists():
                return None
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                raise refused("write", path, e) from e
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            if same_file(fd, path) and not self.blob_path(digest).exists():
                return FilePart(self.layout, self.space, digest, fd)
            os.close(fd)  # committed or discarded between open and lock: look again

    def follow(self, digest: Digest) -> tuple[int, int | None, FileReader] | None:
        try:
            fd = os.open(self.part_path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody writes it
        else:
            os.close(fd)
            return None
        size: int | None = None
        with contextlib.suppress(OSError, ValueError):
            size = int(self.layout.size(digest).read_text())
        return os.fstat(fd).st_size, size, FileReader(fd)

    def announce(self, digest: Digest, size: int) -> None:
        path = self.layout.size(digest)
        draft = path.with_suffix(".size-new")
        try:
            draft.write_text(str(size))
            draft.rename(path)
        except OSError as e:
            raise refused("write", path, e) from e

    def touch(self, digest: Digest, now: float) -> None:
        self.space.touch(digest, now)

    def delete(self, digest: Digest) -> bool:
        try:
            self.blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        self.space.deleted(digest)
        return True

    def iterate(self) -> Iterator[BlobInfo]:
        for algorithm in ALGORITHMS:
            for fan in entries(self.layout.blobs / algorithm):
                for held in self.layout.fan(algorithm, fan.name):
                    yield BlobInfo(held.digest, held.size, held.modified)

    def close(self) -> None:
        """Notes the last uses and closes the ledger. What is open of the store stays good."""
        with contextlib.suppress(StoreError):
            self.space.flush()
        self.ledger.close()


def boot_id() -> str:
    """Changes when the machine starts; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
