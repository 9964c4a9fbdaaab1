"""What commands do to a store, also while workers use it: `scrub` and `gc`.

Plain functions over a store, with reports as values; how they are shown is the command's business.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from entrepot.cache import repair
from entrepot.cache.blobs import FileBlobs
from entrepot.cache.eviction import Candidate, Learnt
from entrepot.cache.interface import StoreError
from entrepot.cache.layout import ALGORITHMS, FANS, Held
from entrepot.cache.repair import Leftover
from entrepot.cache.space import Usage
from entrepot.registry.digests import Digest

PIECE: Final = 1 << 20  # bytes read at a time
_BAD_MEDIUM: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})  # all else is not the blob's fault


@dataclass(frozen=True, slots=True)
class WrongBlob:
    """A committed file that is not what its name says; it has been removed and will be fetched again."""

    digest: Digest
    size: int  # bytes
    why: str


@dataclass(slots=True)
class ScrubReport:
    """What was found; also how far a scrub is."""

    blobs: int = 0  # looked at so far
    bytes: int = 0  # read so far
    expected: int = 0  # bytes that the ledger knows of, in blocks; what a progress bar goes up to, about
    wrong: list[WrongBlob] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    ledger: int = 0  # entries that were set right

    @property
    def clean(self) -> bool:
        """Nothing that is served was wrong."""
        return not self.wrong


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing to remove."""

    kind: Literal["blob", "part", "leftover"]
    name: str  # the digest, or the file name of what has none
    bytes: int  # on disk, in whole blocks
    why: str


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What would be removed now."""

    usage: Usage
    need: int  # bytes that have to go for the limits and headroom; 0 = none
    removals: tuple[Removal, ...]
    ready: bool  # False while the ledger is made again: only leftovers are planned then

    @property
    def bytes(self) -> int:
        return sum(removal.bytes for removal in self.removals)


def scrub(
    store: FileBlobs,
    *,
    rate_limit: float | None = None,
    progress: Callable[[ScrubReport], None] = lambda report: None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ScrubReport:
    """Hashes every blob again and removes what is wrong, sweeps leftovers, sets the ledger right.

    `rate_limit` in bytes per second, None = as fast as the disk; `progress` is told after every blob, and may raise
    to end the scrub (what was done stays done). Raises `StoreError`.
    """
    report = ScrubReport(expected=store.ledger.sums().blob_bytes)
    pace = _Pace(rate_limit, monotonic, sleep)
    for algorithm in ALGORITHMS:
        for fan in FANS:
            for held in sorted(store.layout.fan(algorithm, fan), key=lambda held: held.digest.hex):
                if (why := _fault(store.layout.blob(held.digest), held, pace, report)) is not None:
                    store.delete(held.digest)
                    report.wrong.append(WrongBlob(held.digest, held.size, why))
                report.blobs += 1
                progress(report)
            report.ledger += repair.verify_fan(store, algorithm, fan)
    report.leftovers = repair.sweep(store, store.space.now())
    store.ledger.sure()
    return report


class _Pace:
    """Sleeps so that no more than `rate` bytes go by in a second."""

    def __init__(self, rate: float | None, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._rate, self._monotonic, self._sleep = rate, monotonic, sleep
        self._started, self._bytes = monotonic(), 0

    def __call__(self, bytes_: int) -> None:
        self._bytes += bytes_
        if self._rate and (ahead := self._bytes / self._rate - (self._monotonic() - self._started)) > 0:
            self._sleep(ahead)


def _fault(path: Path, held: Held, pace: _Pace, report: ScrubReport) -> str | None:
    """What is wrong with a blob, None = nothing, or it was evicted meanwhile."""
    hasher = hashlib.new(held.digest.algorithm)
    buffer = memoryview(bytearray(PIECE))
    try:
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                hasher.update(buffer[:n])
                report.bytes += n
                pace(n)
            if hasher.hexdigest() == held.digest.hex or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return None
    except FileNotFoundError:
        return None
    except OSError as e:
        if e.errno in _BAD_MEDIUM:
            return f"cannot be read: {e.strerror}"
        raise StoreError(f"cannot read {path}: {e.strerror}") from e
    return f"has digest {held.digest.algorithm}:{hasher.hexdigest()}"


def gc_plan(store: FileBlobs, now: float) -> GcPlan:
    """What housekeeping would remove at `now` (epoch seconds), in that order; changes nothing. Raises `StoreError`."""
    usage, sums = store.space.usage(), store.ledger.sums()
    need = max(0, store.space.needed())
    removals = [
        Removal("leftover", leftover.path.name, leftover.bytes, f"left {leftover.age:.0f} s ago")
        for leftover in repair.leftovers(store, now)
    ]
    stale = {removal.name for removal in removals}
    left = need - sum(removal.bytes for removal in removals)
    if left > 0 and sums.complete:
        for candidate in store.space.evictor.candidates(now, Learnt()):
            if candidate.is_part and store.layout.part(candidate.digest).name in stale:
                continue
            removals.append(_removal(candidate, now, need))
            if (left := left - candidate.bytes) <= 0:
                break
    return GcPlan(usage, need, tuple(removals), ready=sums.complete)


def _removal(candidate: Candidate, now: float, need: int) -> Removal:
    kind: Literal["blob", "part"] = "part" if candidate.is_part else "blob"
    idle = now - candidate.used
    use = f"last used {idle:.0f} s ago" if idle >= 0 else "last used under a clock that was ahead"
    return Removal(kind, str(candidate.digest), candidate.bytes, f"{use}; {need} bytes have to go")


def gc(store: FileBlobs, now: float) -> int:
    """Does what `gc_plan` says; returns the bytes freed. Raises `StoreError`."""
    return sum(leftover.bytes for leftover in repair.sweep(store, now)) + store.space.make_headroom()
