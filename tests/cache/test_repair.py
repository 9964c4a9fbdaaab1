"""The ledger set right by the file tree; leftovers of transfers swept."""

import os
import threading
from pathlib import Path

import pytest
from tests.cache.filling import Machine, claimed, content, die, holds, put

from entrepot.cache import repair
from entrepot.cache.blobs import FileBlobs
from entrepot.cache.eviction import exclusive
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Limits(grace=10.0, part_age=3600.0))


def lose_the_ledger(machine: Machine) -> FileBlobs:
    for path in (machine.root / "ledger").iterdir():
        path.unlink()
    return machine.store()


def verify(store: FileBlobs) -> int | None:
    return repair.verify(store, threading.Event(), pace=0.0)


def test_a_lost_ledger_is_made_again_with_the_uses(machine: Machine) -> None:
    before = machine.store()
    held = [put(before, content(n, n)) for n in range(1, 5)]
    before.touch(held[0], machine.now + 5)
    part = claimed(before, Digest.of(b"a"))
    part.write(content(9, 2))
    die(part)
    os.utime(part._path, (machine.now, machine.now))
    store = lose_the_ledger(machine)
    assert store.ledger.unsure()
    assert verify(store) == 4
    assert not store.ledger.unsure()
    assert store.space.usage().used == machine.there() == 12 * BLOCK
    rows = store.ledger.by_use((0.0, 0), 1e12, 9)
    assert rows[-1].digest == str(held[0])
    assert rows[-1].used == machine.now + 5
    assert verify(store) == 0


def test_a_part_that_is_written_while_the_ledger_is_lost_is_counted(machine: Machine) -> None:
    part = claimed(machine.store(), Digest.of(b"a"))
    part.write(content(9))
    store = lose_the_ledger(machine)
    store.announce(part.digest, 7 * BLOCK)
    verify(store)
    assert store.space.usage().used == 7 * BLOCK
    part.discard()


def test_what_came_and_went_unseen_is_set_right(machine: Machine) -> None:
    store = machine.store()
    gone, cut, known = (put(store, content(n, 2)) for n in range(3))
    store.blob_path(gone).unlink()
    os.truncate(store.blob_path(cut), 1)
    unseen = Digest.of(b"x")
    store.blob_path(unseen).parent.mkdir(parents=True, exist_ok=True)
    store.blob_path(unseen).write_bytes(b"x")
    assert verify(store) == 3
    assert store.ledger.range("sha256:") == {str(known): 2 * BLOCK, str(cut): BLOCK, str(unseen): BLOCK}


def test_one_process_looks_and_stops_when_told(machine: Machine) -> None:
    machine.store()
    store, stop = lose_the_ledger(machine), threading.Event()
    stop.set()
    assert repair.verify(store, stop) is None
    with exclusive(machine.root / "ledger" / "verifier", wait=False):
        assert verify(store) is None
    assert verify(store) == 0


def test_old_parts_that_nobody_holds_go(machine: Machine) -> None:
    store = machine.store()
    held, idle, young = (claimed(store, Digest.of(name)) for name in (b"held", b"idle", b"young"))
    for part in (held, idle, young):
        part.write(content(3))
    idle.release()
    young.release()
    for part in (held, idle):
        os.utime(part._path, (machine.now - 3601, machine.now - 3601))
    os.utime(young._path, (machine.now - 3599, machine.now - 3599))
    swept = repair.sweep(store, machine.now)
    assert [(leftover.path, leftover.bytes, leftover.age) for leftover in swept] == [(idle._path, BLOCK, 3601.0)]
    assert held._path.exists()
    assert young._path.exists()
    held.release()
    assert store.space.usage().used == machine.there() == 2 * BLOCK


def test_a_part_from_the_future_does_not_stay_for_ever(machine: Machine) -> None:
    store = machine.store()
    part = claimed(store, Digest.of(b"a"))
    part.write(content(3))
    part.release()
    os.utime(part._path, (machine.now + 1e9, machine.now + 1e9))
    assert len(repair.sweep(store, machine.now)) == 1
    assert machine.there() == 0


def test_announced_sizes_without_a_part_go(machine: Machine) -> None:
    store = machine.store()
    for n, name in enumerate((b"a", b"b")):
        store.announce(Digest.of(name), 5)
        os.utime(store.layout.size(Digest.of(name)), (machine.now - 9 - 2 * n,) * 2)
    draft = store.layout.size(Digest.of(b"c")).with_suffix(".size-new")
    draft.write_text("")
    os.utime(draft, (machine.now - 100,) * 2)
    foreign = machine.root / "incoming" / "README"
    foreign.write_text("not ours")
    os.utime(foreign, (1.0, 1.0))
    assert {leftover.path for leftover in repair.sweep(store, machine.now)} == {
        store.layout.size(Digest.of(b"b")),
        draft,
    }
    assert foreign.exists()
    assert holds(store) == set()
