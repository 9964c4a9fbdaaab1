"""Blobs as files we own.

    blobs/<algorithm>/<ab>/<hex>          committed: existence means the digest was verified
    incoming/<algorithm>-<hex>.part       growing; an flock on it is the right to write it
    incoming/<algorithm>-<hex>.size       its final size, for followers in other processes

Commit is `fdatasync` and `rename` on one file system: microseconds whatever the size, and after a crash or a power
loss there is nothing to repair. The kernel frees the flock of a dead process, so a part is taken over at once, from
its last byte. Decides where bytes live and who may write; when to fetch and what to evict is decided elsewhere.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from entrepot.cache.interface import BlobInfo, DigestMismatch, StoreError
from entrepot.registry.digests import Digest

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

    def read_now(self, offset: int, buffer: memoryview) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return -1
        except OSError as e:
            if e.errno in _NOWAIT_UNSUPPORTED:  # this file system cannot tell: let a thread do it
                return -1
            raise

    def read(self, offset: int, buffer: memoryview) -> int:
        return os.preadv(self._fd, [buffer], offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:  # a reader that was dropped half-way (client gone, task cancelled)
        self.close()


class FilePart:
    """One digest being written; holds the flock until it is committed, discarded or released."""

    def __init__(self, store: "FileBlobs", digest: Digest, fd: int) -> None:
        self._store, self.digest, self._fd = store, digest, fd
        self._path = store.part_path(digest)
        self._hash: _Hash = digest.hasher()
        self._offset = 0

    @property
    def offset(self) -> int:
        return self._offset

    def load(self) -> int:
        buffer = memoryview(bytearray(REHASH_PIECE))
        while n := os.preadv(self._fd, [buffer], self._offset):
            self._hash.update(buffer[:n])
            self._offset += n
        return self._offset

    def write(self, data: bytes) -> None:
        view, at = memoryview(data), self._offset
        try:
            while view:
                n = os.pwrite(self._fd, view, at)
                view, at = view[n:], at + n
        except OSError as e:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset)  # what is on disk and what is hashed stay the same bytes
            raise StoreError(f"cannot write {self._path}: {e.strerror}") from e
        self._hash.update(data)
        self._offset = at

    def verify(self) -> None:
        if (actual := self._hash.hexdigest()) != self.digest.hex:
            raise DigestMismatch(self.digest, f"{self.digest.algorithm}:{actual}", self._offset)

    def commit(self) -> None:
        self.verify()
        target = self._store.blob_path(self.digest)
        try:
            os.fdatasync(self._fd)  # before the name: a name must never outlive a power loss without its bytes
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.rename(target)
        except OSError as e:
            raise StoreError(f"cannot commit {target}: {e.strerror}") from e
        self._end()

    def restart(self) -> None:
        os.ftruncate(self._fd, 0)
        self._hash, self._offset = self.digest.hasher(), 0
        self._store.size_path(self.digest).unlink(missing_ok=True)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._end()

    def release(self) -> None:
        self._end()

    def reader(self) -> FileReader:
        # An open file description of its own: a dup would share the flock and keep it after we are gone.
        return FileReader(os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC))

    def _end(self) -> None:
        self._store.size_path(self.digest).unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileBlobs:
    """`entrepot.cache.interface.BlobStore` under one directory, shared by any number of processes of one machine."""

    def __init__(self, root: Path) -> None:
        self._blobs, self._incoming = root / "blobs", root / "incoming"
        try:
            for directory in (self._blobs, self._incoming):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot use {root} as store: {e.strerror}") from e

    def blob_path(self, digest: Digest) -> Path:
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def part_path(self, digest: Digest) -> Path:
        return self._incoming / f"{digest.algorithm}-{digest.hex}.part"

    def size_path(self, digest: Digest) -> Path:
        return self._incoming / f"{digest.algorithm}-{digest.hex}.size"

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
                raise StoreError(f"cannot write {path}: {e.strerror}") from e
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            if _same_file(fd, path) and not self.blob_path(digest).exists():
                return FilePart(self, digest, fd)
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
            size = int(self.size_path(digest).read_text())
        return os.fstat(fd).st_size, size, FileReader(fd)

    def announce(self, digest: Digest, size: int) -> None:
        path = self.size_path(digest)
        draft = path.with_suffix(".size-new")
        draft.write_text(str(size))
        draft.rename(path)

    def touch(self, digest: Digest, now: float) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.blob_path(digest), (now, now))

    def delete(self, digest: Digest) -> bool:
        try:
            self.blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def iterate(self) -> Iterator[BlobInfo]:
        for algorithm in _entries(self._blobs):
            for fan in _entries(Path(algorithm.path)):
                for entry in _entries(Path(fan.path)):
                    with contextlib.suppress(FileNotFoundError, ValueError):
                        stat = entry.stat(follow_symlinks=False)
                        yield BlobInfo(Digest.parse(f"{algorithm.name}:{entry.name}"), stat.st_size, stat.st_mtime)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _same_file(fd: int, path: Path) -> bool:
    try:
        at_path = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), at_path)
