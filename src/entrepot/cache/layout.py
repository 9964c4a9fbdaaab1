"""Where things lie under the root of the embedded store, and what they take there.

    blobs/<algorithm>/<ab>/<hex>          committed: existence means the digest was verified
    incoming/<algorithm>-<hex>.part       growing; an flock on it is the right to write it
    incoming/<algorithm>-<hex>.size       its final size, for followers in other processes
    ledger/                               sizes and uses of all this, which can be made again from the above

Decides names only; who may write or remove what they name is decided by those who import this.
"""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cache.interface import NoRoom, StoreError
from entrepot.registry.digests import Digest

BLOCK: Final = 4096  # bytes; what file systems give out files in
ALGORITHMS: Final = ("sha256", "sha512")
FANS: Final = tuple(f"{n:02x}" for n in range(256))  # first two digits of the hex
_PART: Final = re.compile(r"(sha256|sha512)-([0-9a-f]+)\.part")
OUT_OF_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def on_disk(size: int) -> int:
    """Bytes that a file of `size` bytes takes, in whole blocks."""
    return -(-size // BLOCK) * BLOCK


def refused(what: str, path: Path, e: OSError) -> StoreError:
    """Our error for the disk's: `NoRoom` when it is full, `StoreError` for all else."""
    kind = NoRoom if e.errno in OUT_OF_ROOM else StoreError
    return kind(f"cannot {what} {path}: {e.strerror}")


@dataclass(frozen=True, slots=True)
class Held:
    """A file, as the directory has it."""

    digest: Digest
    size: int  # bytes
    modified: float  # epoch seconds


class Layout:
    """The names under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self.incoming, self.ledger = root / "blobs", root / "incoming", root / "ledger"

    def make(self) -> None:
        """Creates what is missing. Raises `StoreError`."""
        try:
            for directory in (self.blobs, self.incoming, self.ledger):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot use {self.root} as store: {e.strerror}") from e

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def part(self, digest: Digest) -> Path:
        return self.incoming / f"{digest.algorithm}-{digest.hex}.part"

    def size(self, digest: Digest) -> Path:
        return self.incoming / f"{digest.algorithm}-{digest.hex}.size"

    def is_empty(self) -> bool:
        """Nothing was ever committed or begun here. Costs the same whatever is held."""
        return not entries(self.blobs) and not entries(self.incoming)

    def fan(self, algorithm: str, fan: str) -> Iterator[Held]:
        """The committed blobs whose hex begins with `fan`."""
        for entry in entries(self.blobs / algorithm / fan):
            with contextlib.suppress(FileNotFoundError, ValueError):
                stat = entry.stat(follow_symlinks=False)
                yield Held(Digest.parse(f"{algorithm}:{entry.name}"), stat.st_size, stat.st_mtime)

    def parts(self) -> Iterator[Held]:
        for entry in entries(self.incoming):
            if (name := _PART.fullmatch(entry.name)) is not None:
                with contextlib.suppress(FileNotFoundError, ValueError):
                    stat = entry.stat(follow_symlinks=False)
                    yield Held(Digest(name[1], name[2]), stat.st_size, stat.st_mtime)


def entries(directory: Path) -> list[os.DirEntry[str]]:
    """What is in `directory`; nothing if it is none."""
    try:
        with os.scandir(directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def lock_part(path: Path) -> int | None:
    """A descriptor that holds the flock of an idle part; None when somebody writes it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if same_file(fd, path):
        return fd
    os.close(fd)  # committed or discarded between open and lock
    return None


def same_file(fd: int, path: Path) -> bool:
    """Whether `path` names the open file."""
    try:
        at_path = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), at_path)
