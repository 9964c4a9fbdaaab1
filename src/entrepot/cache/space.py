"""Room: how much may be held, and how it is made.

1. Bytes are reserved before they are written. `used` is what the ledger counts: blobs, parts and what is reserved for
   them, in blocks. A reservation is admitted in one transaction over all processes, so the limits hold while filling.
2. What cannot be admitted evicts, at once and no more than it needs; a hopeless reservation evicts nothing. The keeper
   makes headroom in the background, so that this is the exception.
3. Free space is what `statvfs` says less what others have reserved and not yet written.
4. While the ledger is made again after a loss, all that is on the file system counts as ours.

Decides admission; the order of eviction is `eviction`'s, the counting `ledger`'s.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from entrepot.cache.eviction import Evictor, Protected
from entrepot.cache.interface import NoRoom, StoreError, TooLarge
from entrepot.cache.layout import BLOCK, Layout, on_disk
from entrepot.cache.ledger import Ledger, Sums
from entrepot.registry.digests import Digest

_log = logging.getLogger("entrepot.cache")
HEADROOM: Final = 2 << 30  # bytes kept free in the background, at most; a large layer
HEADROOM_SHARE: Final = 50  # of the limits, one in this many, at most
TOUCH_EVERY: Final = 5.0  # seconds; a use is noted again when the last note is older
TOUCHES: Final = 1 << 16  # uses kept in memory at most; the files' times have them too
MARGIN: Final = (16, 1 << 20)  # one in so many of the free bytes, bytes at most; what the ledger itself may grow by
STEP: Final = (1 << 20, 64 << 20)  # bytes reserved ahead when the size is unknown: as much as is there, within these
TRIES: Final = 4  # times that others may take the room just made


class Share(Protocol):
    """A share of the file system."""

    def of(self, total: int) -> int:
        """In bytes, on a file system of `total` bytes."""


type Amount = int | Share


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store may take."""

    size: Amount = 1 << 62  # blobs, growing parts and what is reserved for them
    min_free: Amount = 0  # left free on the file system, for unprivileged users
    grace: float = 60.0  # seconds; what was used more recently is not evicted
    part_age: float = 86400.0  # seconds; a part that nobody wrote to for longer is removed


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, in bytes."""

    total: int
    free: int  # to unprivileged users
    used: int


def disk_of(path: Path) -> Disk:
    """Of the file system that `path` is on. Raises `OSError`."""
    stat = os.statvfs(path)
    block = stat.f_frsize
    return Disk(stat.f_blocks * block, stat.f_bavail * block, (stat.f_blocks - stat.f_bfree) * block)


def in_bytes(amount: Amount, disk: Disk) -> int:
    """`amount` on this disk."""
    return amount if isinstance(amount, int) else amount.of(disk.total)


@dataclass(frozen=True, slots=True)
class Usage:
    """How things stand, in bytes."""

    used: int  # what counts against `size`
    size: int
    free: int
    min_free: int
    blobs: int  # how many


class Space:
    """Admission to one store. Thread-safe; all but `touch` may wait for the disk."""

    def __init__(
        self,
        layout: Layout,
        ledger: Ledger,
        limits: Limits,
        protected: Protected,
        clock: Callable[[], float],
        disk: Callable[[Path], Disk] = disk_of,
    ) -> None:
        self._layout, self._ledger, self._clock, self._disk_of = layout, ledger, clock, disk
        self.evictor = Evictor(layout, ledger, protected, limits.grace)
        self._limits = limits
        self._touches: dict[Digest, float] = {}
        self._touching = threading.Lock()

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        """From the next reservation on."""
        self._limits = limits
        self.evictor.grace = limits.grace

    def now(self) -> float:
        return self._clock()

    def usage(self) -> Usage:
        disk, sums = self._disk(), self._ledger.sums()
        return Usage(sums.used, self._size(disk), disk.free, in_bytes(self._limits.min_free, disk), sums.blobs)

    def reserve(self, digest: Digest, owner: str, total: int, written: int, *, evict: bool = True) -> int:
        """Raises what is set aside for `owner`'s part, of which `written` bytes are on disk, to `total` bytes.

        Returns the bytes that are now set aside. Raises `NoRoom`, `TooLarge`.
        """
        wanted = on_disk(max(total, written))
        disk = self._disk()
        if wanted > (most := min(self._size(disk), disk.total - self._min_free(disk))):
            raise TooLarge(f"{digest}: {total} bytes are more than the store may ever hold ({most})")

        def admitted() -> int:
            return self._ledger.reserve(
                str(digest), owner, wanted, lambda sums: self._short(sums, wanted, digest, written)
            )

        short = self._admit(admitted, evict=evict)
        if short > 0:
            raise NoRoom(f"{digest}: no room for {total} bytes now ({short} bytes short)")
        return wanted

    def grow(self, digest: Digest, owner: str, needed: int, written: int) -> int:
        """`reserve` for a part of unknown size: ahead of what is needed, while there is room to spare."""
        ahead = min(max(needed, STEP[0]), STEP[1])
        with contextlib.suppress(NoRoom, TooLarge):
            return self.reserve(digest, owner, needed + ahead, written, evict=False)
        return self.reserve(digest, owner, needed, written)

    def adopt(self, digest: Digest, owner: str) -> None:
        """What the part has taken is `owner`'s from now on. The caller holds its flock."""
        with self._only_counting():
            self._ledger.adopt(str(digest), owner)

    def committed(self, digest: Digest, owner: str) -> None:
        """The part has been renamed to a blob."""
        with self._only_counting():
            self._ledger.committed(str(digest), owner, self.evictor.find)

    def left(self, digest: Digest, owner: str, size: int) -> None:
        """The part keeps `size` bytes until somebody goes on with it; 0 = it is gone."""
        with self._only_counting():
            self._ledger.left(str(digest), owner, on_disk(size))

    def deleted(self, digest: Digest) -> None:
        """The blob's file is gone."""
        with self._only_counting():
            self._ledger.settle([str(digest)], self.evictor.find)

    def touch(self, digest: Digest, now: float) -> None:
        """Notes a use: at once in the file's time, for other processes and for after a crash, later in the ledger."""
        with self._touching:
            if 0 <= now - self._touches.get(digest, now - TOUCH_EVERY) < TOUCH_EVERY:
                return
            if len(self._touches) >= TOUCHES:  # nobody flushes; the files' times will do
                self._touches.clear()
            self._touches[digest] = now
        with contextlib.suppress(OSError):
            os.utime(self._layout.blob(digest), (now, now))

    def flush(self) -> None:
        """Brings the ledger up to date with this process's touches."""
        with self._touching:
            uses, self._touches = self._touches, {}
        self._ledger.note_uses((str(digest), used) for digest, used in uses.items())

    def make_headroom(self) -> int:
        """Evicts what the limits, and some room to spare, ask for; returns the bytes freed. For the background."""
        with self.evictor.elected(wait=False) as elected:
            if not elected:
                return 0
            self.evictor.reclaim()
            need, sums = self.needed(), self._ledger.sums()
            return self.evictor.evict(need, self._clock(), partly=True) if need > 0 and sums.complete else 0

    def needed(self) -> int:
        """Bytes that have to go so that the limits hold with headroom; 0 or less when nothing has to."""
        disk, sums = self._disk(), self._ledger.sums()
        size, min_free = self._size(disk), self._min_free(disk)
        over = sums.used + min(HEADROOM, size // HEADROOM_SHARE) - size
        lacking = min_free + min(HEADROOM, min_free // HEADROOM_SHARE) + self._unwritten() - disk.free
        return max(over, lacking)

    def has_room(self) -> bool:
        """Whether the file system has more free than the limits ask for."""
        disk = self._disk()
        return disk.free > self._min_free(disk) + STEP[0]

    def _admit(self, admitted: Callable[[], int], *, evict: bool) -> int:
        """Makes room until admitted; returns what is lacking in the end."""
        short = admitted()
        for _ in range(TRIES):
            if short <= 0 or not evict:
                break
            with self.evictor.elected(wait=True):
                self.evictor.reclaim()
                if (short := admitted()) <= 0 or not self._can_free(short):
                    break
                freed = self.evictor.evict(short, self._clock(), partly=False)
            short = admitted()
            if not freed:
                break
        return short

    def _can_free(self, need: int) -> bool:
        sums = self._ledger.sums()
        # An incomplete ledger does not know who was used least recently.
        return sums.complete and need <= sums.used - sums.held_bytes

    def _short(self, others: Sums, wanted: int, digest: Digest, written: int) -> int:
        """Bytes lacking for a part of `wanted` bytes beside what `others` take."""
        disk = self._disk()
        taken = others.used if others.complete else max(others.used, disk.used)
        over = taken + wanted - self._size(disk)
        coming = wanted - min(wanted, on_disk(written))
        spare = disk.free - self._min_free(disk) - coming
        if spare < others.part_bytes:  # it may be tight: look closer
            return max(over, self._unwritten(but=digest) - spare)
        return over

    def _unwritten(self, but: Digest | None = None) -> int:
        """Bytes reserved that are not on disk yet."""
        bytes_ = 0
        for name, reserved in self._ledger.parts():
            digest = Digest.parse(name)
            if digest != but:
                with contextlib.suppress(FileNotFoundError):
                    bytes_ += max(0, reserved - on_disk(self._layout.part(digest).stat().st_size))
        return bytes_

    def _disk(self) -> Disk:
        try:
            return self._disk_of(self._layout.root)
        except OSError as e:
            raise StoreError(f"cannot look at {self._layout.root}: {e.strerror}") from e

    def _size(self, disk: Disk) -> int:
        return in_bytes(self._limits.size, disk)

    def _min_free(self, disk: Disk) -> int:
        """What blobs have to leave free so that they and the ledger leave what was asked for."""
        free = in_bytes(self._limits.min_free, disk)
        return free + min(free // MARGIN[0], MARGIN[1]) // BLOCK * BLOCK

    @contextlib.contextmanager
    def _only_counting(self) -> Iterator[None]:
        """The file tree has been changed already; a ledger that fails counts too much until it is set right."""
        try:
            yield
        except StoreError as e:
            _log.warning("%s", e)
