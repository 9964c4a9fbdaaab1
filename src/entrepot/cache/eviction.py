"""Who goes first: least recently used, of what may go at all.

1. The ledger's idea of the last use is a lower bound; the file's time is looked at before a victim is chosen, and one
   that was used since goes back to where it belongs. So the order is exact, although uses reach the ledger in batches.
2. Never: what is being written, what is protected, what was used less than `grace` seconds ago.
3. A use much later than now was noted under a clock that was ahead. It says nothing: those go last, but do go.
4. The cost is that of what is removed: an index gives the order, protected blobs are taken out of it when first met.

Decides the order; how much has to go is decided in `space`.
"""

import contextlib
import fcntl
import heapq
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from entrepot.cache.interface import NoRoom, StoreError
from entrepot.cache.layout import Layout, lock_part, on_disk
from entrepot.cache.ledger import Ledger, Row
from entrepot.registry.digests import Digest

type Protected = Callable[[Digest], bool]
"""Whether a digest must not go; asked in threads."""

_log = logging.getLogger("entrepot.cache")
PAGE: Final = 128  # rows read, or files removed, between two looks at anything else


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may go."""

    digest: Digest
    bytes: int  # on disk, in whole blocks
    used: float  # epoch seconds
    is_part: bool  # an idle part that some transfer left


@dataclass(slots=True)
class Learnt:
    """What a walk found out that the ledger did not know."""

    uses: list[tuple[str, float]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class Evictor:
    """Walks over what is held in the order in which it goes, and removes. One evictor at a time, over all processes."""

    def __init__(self, layout: Layout, ledger: Ledger, protected: Protected, grace: float) -> None:
        self._layout, self._ledger, self._protected, self.grace = layout, ledger, protected, grace
        self._recheck = 0  # id of the held row looked at last

    @contextlib.contextmanager
    def elected(self, *, wait: bool) -> Iterator[bool]:
        """True while no other process or thread evicts; False, without `wait`, when one does."""
        with exclusive(self._layout.ledger / "evictor", wait=wait) as got:
            yield got

    def evict(self, need: int, now: float, *, partly: bool) -> int:
        """Removes until `need` bytes are free, and returns how many are; call it when elected.

        When so much cannot go: what can, if `partly` will do, else nothing.
        """
        learnt = Learnt()
        victims, size = list[Candidate](), 0
        for candidate in self.candidates(now, learnt):
            victims.append(candidate)
            size += candidate.bytes
            if size >= need:
                break
        with _files_first():
            self._write_down(learnt)
        if size < need and not partly:
            return 0
        for batch in itertools.batched(victims, PAGE):
            self._remove(batch)
        return size

    def candidates(self, now: float, learnt: Learnt) -> Iterator[Candidate]:
        """All that may go, in the order in which it goes; changes nothing. `learnt` is filled on the way."""
        writing = {digest for digest, _ in self._ledger.parts()}
        number = itertools.count()  # decides between equals
        late = [(part.used, next(number), part) for part in self._idle_parts(now)]
        heapq.heapify(late)
        for row in self._rows(now):
            while late and late[0][0] <= row.used:
                yield heapq.heappop(late)[2]
            if row.digest in writing:
                continue
            digest = Digest.parse(row.digest)
            if (used := self._true_use(digest, row.used, now)) != row.used:
                learnt.uses.append((row.digest, used))
            if self._is_recent(used, now):
                continue
            candidate = Candidate(digest, row.bytes, used, is_part=False)
            if self._protected(digest):
                learnt.held.append(row.digest)
            elif used > row.used:
                heapq.heappush(late, (used, next(number), candidate))
            else:
                yield candidate
        while late:
            yield heapq.heappop(late)[2]

    def reclaim(self) -> None:
        """Sets the parts of the dead right: what they reserved and did not use counts no longer."""
        for name, size in self._ledger.parts():
            path = self._layout.part(Digest.parse(name))
            if (fd := lock_part(path)) is not None:
                try:
                    if (actual := on_disk(os.fstat(fd).st_size)) != size:
                        self._ledger.idle(name, actual)
                finally:
                    os.close(fd)
            elif not path.exists():
                # Committed or discarded, by somebody who died, or is just about to say so.
                self._ledger.lost(name, path.exists, self.find)

    def recheck_held(self) -> None:
        """Puts a page of protected blobs back that are protected no longer; the next call goes on behind it."""
        rows = self._ledger.held(self._recheck, PAGE)
        self._recheck = rows[-1].id if len(rows) == PAGE else 0
        if free := [row.digest for row in rows if not self._protected(Digest.parse(row.digest))]:
            self._ledger.hold(free, held=False)

    def find(self, name: str) -> tuple[int, float] | None:
        """(bytes on disk, last use) of a committed blob, as its file says."""
        try:
            stat = self._layout.blob(Digest.parse(name)).stat()
        except FileNotFoundError:
            return None
        return on_disk(stat.st_size), stat.st_mtime

    def _rows(self, now: float) -> Iterator[Row]:
        for start, until in ((-math.inf, now - self.grace), (now + self.grace, math.inf)):
            after = (start, 1 << 62)
            while True:
                rows = self._ledger.by_use(after, until, PAGE)
                yield from rows
                if len(rows) < PAGE:
                    break
                after = rows[-1].used, rows[-1].id

    def _write_down(self, learnt: Learnt) -> None:
        if learnt.uses:
            self._ledger.note_uses(learnt.uses)
        if learnt.held:
            self._ledger.hold(learnt.held, held=True)

    def _true_use(self, digest: Digest, known: float, now: float) -> float:
        """The later of the ledger's use and the file's, as far as either is believable."""
        try:
            noted = self._layout.blob(digest).stat().st_mtime
        except FileNotFoundError:
            return known
        latest = now + self.grace  # others go on using while we look
        if noted > latest:
            return known
        return noted if known > latest else max(noted, known)

    def _is_recent(self, used: float, now: float) -> bool:
        return now - self.grace < used <= now + self.grace

    def _idle_parts(self, now: float) -> Iterator[Candidate]:
        for part in self._layout.parts():
            if (
                not self._is_recent(part.modified, now)
                and (fd := lock_part(self._layout.part(part.digest))) is not None
            ):
                os.close(fd)
                yield Candidate(part.digest, on_disk(part.size), part.modified, is_part=True)

    def _remove(self, victims: tuple[Candidate, ...]) -> None:
        gone, size = list[str](), 0
        for victim in victims:
            if victim.is_part:
                self.drop_part(victim.digest)
                continue
            try:
                self._layout.blob(victim.digest).unlink(missing_ok=True)
            except OSError as e:
                _log.error("cannot evict %s: %s", victim.digest, e.strerror)
                continue
            gone.append(str(victim.digest))
            size += victim.bytes
        with _files_first():
            self._ledger.settle(gone, self.find)
            self._ledger.note_evicted(len(gone), size)

    def drop_part(self, digest: Digest) -> bool:
        """Removes a part nobody writes, and what belongs to it."""
        path = self._layout.part(digest)
        if (fd := lock_part(path)) is None:
            return False
        try:
            path.unlink(missing_ok=True)
            self._layout.size(digest).unlink(missing_ok=True)
            with _files_first():
                self._ledger.idle(str(digest), 0)
        finally:
            os.close(fd)
        return True


@contextlib.contextmanager
def _files_first() -> Iterator[None]:
    """On a disk so full that the ledger cannot be written, files go all the same; it is set right when it can be."""
    try:
        yield
    except NoRoom as e:
        _log.warning("%s", e)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds an flock of its own, so threads of one process exclude each other as well."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StoreError(f"cannot open {path}: {e.strerror}") from e
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
