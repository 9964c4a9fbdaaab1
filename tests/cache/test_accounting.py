"""DESIGN rule 10 as invariants, over any order of events in two processes that share a store."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from tests.cache.filling import Machine, content, die, holds

from entrepot.cache import repair
from entrepot.cache.blobs import FileBlobs, FilePart
from entrepot.cache.interface import NoRoom, TooLarge
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import TOUCH_EVERY, Limits
from entrepot.registry.digests import Digest

POOL = {Digest.of(data): data for data in (content(n, 1 + n % 7) for n in range(14))}
LIMIT, GRACE = 16 * BLOCK, 10.0
FAST = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)  # commits wait for the disk elsewhere
digests = st.sampled_from(sorted(POOL, key=str))
processes = st.integers(0, 1)


class Accounting(RuleBasedStateMachine):
    """The model: who is protected, when each blob was used, and which parts are open."""

    parts = Bundle("parts")

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="accounting-", dir=FAST))
        self.machine = Machine(self.root, Limits(size=LIMIT, min_free=2 * BLOCK, grace=GRACE), total=40 * BLOCK)
        self.stores = [self.machine.store(), self.machine.store()]
        self.used: dict[Digest, float] = {}
        self.open: dict[Digest, FilePart] = {}
        self.calm = True  # the clock has only gone forward
        self.before = set[Digest]()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        for part in list(self.open.values()):
            die(part)
        shutil.rmtree(self.root)

    def _evicted(self, by_hand: Digest | None = None) -> None:
        """What has gone since the last event was allowed to, and was the least recently used."""
        now, gone = self.machine.now, self.before - holds(self.stores[0]) - {by_hand}
        assert not gone & self.machine.protected
        if self.calm:
            assert all(self.used[digest] <= now - GRACE + TOUCH_EVERY for digest in gone)
            stay = [
                self.used[digest]
                for digest in holds(self.stores[0]) & self.before
                if digest not in self.machine.protected | self.open.keys() and self.used[digest] <= now - GRACE
            ]
            if gone and stay:
                # A use is worth what its batch says; and what was protected a moment ago waits for its turn.
                assert max(self.used[digest] for digest in gone) <= min(stay) + TOUCH_EVERY or self.released
        self.before = holds(self.stores[0])

    released = False  # something was protected once

    @rule(target=parts, digest=digests, process=processes)
    def claim(self, digest: Digest, process: int) -> tuple[Digest, FilePart | None]:
        part = self.stores[process].claim(digest)
        assert (part is None) == (digest in self.open or digest in self.before)
        if part is not None:
            self.open[digest] = part
            part.load()
        return digest, part

    @rule(entry=parts, total=st.integers(0, 20 * BLOCK))
    def reserve(self, entry: tuple[Digest, FilePart | None], total: int) -> None:
        part = entry[1]
        if part is not None and self.open.get(entry[0]) is part:
            with suppress(NoRoom, TooLarge):
                part.reserve(total)
            self._evicted()

    @rule(entry=parts, size=st.integers(1, 3 * BLOCK))
    def write(self, entry: tuple[Digest, FilePart | None], size: int) -> None:
        digest, part = entry
        if part is not None and self.open.get(digest) is part:
            offset, spare = part.offset, self._spare()
            # What was reserved was admitted then; others may have filled the disk since, which is not ours to undo.
            promised = -(-part._reserved // BLOCK) * BLOCK - -(-offset // BLOCK) * BLOCK
            with suppress(NoRoom, TooLarge):
                part.write(POOL[digest][offset : offset + size])
            assert self.machine.there() <= LIMIT
            assert self._spare() >= min(0, spare) - max(0, promised)
            self._evicted()

    def _spare(self) -> int:
        return self.machine.disk().free - 2 * BLOCK

    @rule(entry=consumes(parts), end=st.sampled_from(["commit", "discard", "release", "die"]))
    def end(self, entry: tuple[Digest, FilePart | None], end: str) -> None:
        digest, part = entry
        if part is None or self.open.get(digest) is not part:
            return
        if end == "commit" and part.offset != len(POOL[digest]):
            end = "release"
        if end == "die":
            die(part)
        else:
            getattr(part, end)()
        del self.open[digest]
        if end == "commit":
            self.used[digest] = self.machine.now
            self.before.add(digest)

    @rule(number=st.integers(0, 13), process=processes)
    def fill(self, number: int, process: int) -> None:
        """A whole blob at once, which gets the machine somewhere."""
        digest = sorted(POOL, key=str)[number]
        part = self.stores[process].claim(digest)
        if part is None:
            return
        try:
            part.load()
            part.reserve(len(POOL[digest]))
            part.write(POOL[digest][part.offset :])
            part.commit()
            self.used[digest] = self.machine.now
        except NoRoom:
            part.release()
        self._evicted()

    @rule(digest=digests, process=processes)
    def touch(self, digest: Digest, process: int) -> None:
        self.stores[process].touch(digest, self.machine.now)
        if digest in self.before:
            self.used[digest] = self.machine.now

    @rule(seconds=st.floats(0.5, 60.0))
    def time_goes_by(self, seconds: float) -> None:
        self.machine.now += seconds

    @rule(seconds=st.sampled_from([-1e6, -100.0, 1e5, 1e9]))
    def clock_jumps(self, seconds: float) -> None:
        self.machine.now = max(1.0, self.machine.now + seconds)
        self.calm = False

    @rule(digest=digests, on=st.booleans())
    def protect(self, digest: Digest, on: bool) -> None:
        if on:
            self.machine.protected.add(digest)
            self.released = True
        else:
            self.machine.protected.discard(digest)

    @rule(digest=digests, process=processes)
    def delete(self, digest: Digest, process: int) -> None:
        assert self.stores[process].delete(digest) == (digest in self.before)
        self._evicted(by_hand=digest)

    @rule(blocks=st.integers(0, 38))
    def others_use_the_disk(self, blocks: int) -> None:
        self.machine.foreign = blocks * BLOCK

    @rule(process=processes)
    def housekeeping(self, process: int) -> None:
        store = self.stores[process]
        store.space.flush()
        store.space.make_headroom()
        store.space.evictor.recheck_held()
        self._evicted()

    @rule()
    def look_through(self) -> None:
        """Afterwards the ledger is exact, but for what is reserved."""
        store = self.stores[0]
        for fan in {digest.hex[:2] for digest in POOL}:
            repair.verify_fan(store, "sha256", fan)
        repair.sweep(store, self.machine.now)
        store.ledger.sure()
        sums = store.ledger.sums()
        assert sums.blobs == len(holds(store))
        parts = sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in self.root.glob("incoming/*.part"))
        assert sums.blob_bytes == self.machine.there() - parts
        if not self.open:
            assert sums.part_bytes == parts

    @rule(process=processes)
    def process_starts_anew(self, process: int) -> None:
        for digest, part in list(self.open.items()):
            if part._space is self.stores[process].space:
                die(part)
                del self.open[digest]
        self.stores[process].close()
        self.stores[process] = self.machine.store()

    @precondition(lambda self: not self.open)
    @rule()
    def ledger_is_lost(self) -> None:
        for path in (self.root / "ledger").glob("ledger.db*"):
            path.unlink()

    @invariant()
    def the_limits_hold(self) -> None:
        assert self.machine.there() <= LIMIT

    @invariant()
    def what_is_there_is_counted(self) -> None:
        sums = self.stores[0].ledger.sums()
        assert not sums.complete or self.machine.there() <= sums.used <= LIMIT

    @invariant()
    def the_sums_are_those_of_the_rows(self) -> None:
        self.stores[0].ledger.sums()  # opens it, should it have been lost
        with closing(sqlite3.connect(self.root / "ledger" / "ledger.db")) as db:
            blobs = db.execute("SELECT count(*), total(bytes), total(bytes * held) FROM blobs").fetchone()
            parts = db.execute("SELECT total(bytes) FROM parts").fetchone()
            assert db.execute("SELECT * FROM sums").fetchone() == (*blobs, *parts)

    @invariant()
    def what_is_written_or_protected_is_there(self) -> None:
        assert all(self.stores[0].part_path(digest).exists() for digest in self.open)
        assert self.before == holds(self.stores[0])


def test_the_invariants_find_a_ledger_that_forgets(tmp_path: Path) -> None:
    """The negative control: a store that does not count commits goes over its limit."""
    machine = Machine(tmp_path, Limits(size=LIMIT, grace=GRACE))
    store: FileBlobs = machine.store()
    for digest, data in list(POOL.items())[:6]:
        part = store.claim(digest)
        assert part is not None
        part.write(data)
        part.commit()
        store.ledger.settle([str(digest)], lambda name: None)
    assert machine.there() > LIMIT


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
