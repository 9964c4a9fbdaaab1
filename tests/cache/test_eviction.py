"""DESIGN rule 10: least recently used goes first; in-flight, protected and just used content never."""

from pathlib import Path

import pytest
from tests.cache.filling import Machine, claimed, content, die, holds, put

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.eviction import PAGE, Candidate, Learnt
from entrepot.cache.interface import NoRoom
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Limits(grace=10.0))


def filled(machine: Machine, store: FileBlobs, number: int) -> list[Digest]:
    """Blobs a second apart; the last was used a long time ago."""
    held = list[Digest]()
    for n in range(number):
        held.append(put(store, content(n)))
        machine.now += 1
    machine.now += 1000
    return held


def walk(store: FileBlobs, now: float) -> list[Candidate]:
    return list(store.space.evictor.candidates(now, Learnt()))


def order(store: FileBlobs, now: float) -> list[Digest]:
    return [candidate.digest for candidate in walk(store, now)]


def evict(store: FileBlobs, blocks: int, now: float) -> int:
    with store.space.evictor.elected(wait=True):
        return store.space.evictor.evict(blocks * BLOCK, now, partly=True) // BLOCK


def test_least_recently_used_goes_first(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, 4)
    store.touch(held[0], machine.now - 500)
    assert order(store, machine.now) == [*held[1:], held[0]]  # the use is not in the ledger yet
    store.space.flush()
    assert order(store, machine.now) == [*held[1:], held[0]]


def test_what_goes_is_counted_over_all_processes(machine: Machine) -> None:
    store, other = machine.store(), machine.store()
    filled(machine, store, PAGE + 9)
    assert store.ledger.evicted() == (0, 0)
    assert evict(store, PAGE + 2, machine.now) == PAGE + 2
    assert evict(other, 3, machine.now) == 3
    assert store.ledger.evicted() == other.ledger.evicted() == (PAGE + 5, (PAGE + 5) * BLOCK)


def test_the_order_is_right_over_pages_and_uses_of_other_processes(machine: Machine) -> None:
    store, other = machine.store(), machine.store()
    held = filled(machine, store, PAGE * 2 + 5)
    start = machine.now - 900
    for n, digest in enumerate(held[::2]):
        other.touch(digest, start + n)  # never flushed
    assert order(store, machine.now) == [*held[1::2], *held[::2]]
    assert evict(store, PAGE + 5, machine.now) == PAGE + 5
    assert holds(store) == {*held[::2][3:]} if len(held[1::2]) == PAGE + 2 else False
    assert store.space.usage().used == machine.there()


def test_what_was_used_just_now_stays_also_when_another_process_knows_only(machine: Machine) -> None:
    store, other = machine.store(), machine.store()
    held = filled(machine, store, 3)
    other.touch(held[0], machine.now - 9)
    other.touch(held[1], machine.now + 1)  # while the evictor is under way
    assert order(store, machine.now) == [held[2]]
    assert evict(store, 3, machine.now) == 1
    assert holds(store) == set(held[:2])


def test_protected_content_stays_and_is_met_once(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, 4)
    machine.protected = set(held[:2])
    assert evict(store, 1, machine.now) == 1
    assert holds(store) == {held[0], held[1], held[3]}
    assert store.ledger.sums().held_bytes == 2 * BLOCK
    assert order(store, machine.now) == [held[3]]
    assert evict(store, 9, machine.now) == 1
    machine.protected.remove(held[0])
    store.space.evictor.recheck_held()
    assert store.ledger.sums().held_bytes == BLOCK
    assert evict(store, 9, machine.now) == 1
    assert holds(store) == {held[1]}


def test_held_rows_are_looked_at_page_by_page(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, PAGE + 1)
    machine.protected = set(held)
    assert evict(store, 1, machine.now) == 0
    machine.protected.clear()
    store.space.evictor.recheck_held()
    assert store.ledger.sums().held_bytes == BLOCK
    store.space.evictor.recheck_held()
    assert store.ledger.sums().held_bytes == 0


def test_parts_that_somebody_writes_stay_and_idle_ones_take_their_turn(machine: Machine) -> None:
    store = machine.store()
    (old,) = filled(machine, store, 1)
    writing, idle, dead = (claimed(store, Digest.of(name)) for name in (b"writing", b"idle", b"dead"))
    for part in (writing, idle, dead):
        part.write(content(7))
    idle.release()
    die(dead)
    machine.now = dead._path.stat().st_mtime + 1000
    assert {candidate.digest for candidate in walk(store, machine.now)} == {old, idle.digest, dead.digest}
    store.space.evictor.reclaim()
    assert evict(store, 9, machine.now) == 3
    assert holds(store) == set()
    assert list((machine.root / "incoming").iterdir()) == [store.part_path(writing.digest)]
    writing.release()
    assert store.space.usage().used == machine.there() == BLOCK


def test_a_clock_that_was_ahead_delays_but_does_not_save(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, 3)
    future = machine.now + 1e9
    store.touch(held[0], future)
    store.space.flush()
    assert order(store, machine.now) == [held[1], held[2], held[0]]
    assert evict(store, 9, machine.now) == 3


def test_a_clock_that_is_behind_leaves_the_order_of_all_else(machine: Machine) -> None:
    """A box without a battery starts in 1970."""
    store = machine.store()
    held = filled(machine, store, 3)
    assert order(store, 5.0) == held
    store.touch(held[2], 4.0)
    assert order(store, 5.0) == held[:2]


def test_a_row_without_a_file_costs_nothing_but_its_turn(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, 2)
    store.blob_path(held[0]).unlink()  # as after a crash between unlink and the ledger
    assert evict(store, 1, machine.now) == 1
    assert holds(store) == {held[1]}
    assert store.space.usage().used == BLOCK


def test_a_commit_that_the_ledger_missed_is_set_right(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine.store()
    monkeypatch.setattr(store.space, "committed", lambda *args: None)  # killed between rename and the ledger
    digest = put(store, content(1, 3))
    assert store.ledger.parts() == [(str(digest), 3 * BLOCK)]
    assert store.space.usage().blobs == 0
    machine.store().space.evictor.reclaim()
    assert store.ledger.parts() == []
    assert (store.space.usage().used, store.space.usage().blobs) == (3 * BLOCK, 1)


def test_who_discards_late_does_not_take_the_room_of_who_came_after(machine: Machine) -> None:
    store, other = machine.store(), machine.store()
    part = claimed(store, Digest.of(b"a"))
    part.reserve(3 * BLOCK)
    store.part_path(part.digest).unlink()  # the first half of its discard
    after = claimed(other, Digest.of(b"a"))
    after.reserve(5 * BLOCK)
    part.discard()
    assert store.space.usage().used == 5 * BLOCK


def test_walking_changes_nothing(machine: Machine) -> None:
    store = machine.store()
    held = filled(machine, store, 3)
    store.touch(held[0], machine.now - 100)
    machine.protected = {held[1]}
    before = store.ledger.by_use((0.0, 0), 1e12, 10)
    learnt = Learnt()
    list(store.space.evictor.candidates(machine.now, learnt))
    assert store.ledger.by_use((0.0, 0), 1e12, 10) == before
    assert learnt == Learnt([(str(held[0]), machine.now - 100)], [str(held[1])])


def test_what_is_committed_and_not_yet_counted_as_such_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine.store()
    held = filled(machine, store, 2)
    store.blob_path(held[0]).unlink()  # its row stays
    monkeypatch.setattr(store.space, "committed", lambda *args: None)  # between rename and the ledger
    put(store, content(0))
    machine.now += 1000
    assert order(store, machine.now) == [held[1]]


def test_files_go_even_if_the_ledger_cannot_be_written(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a disk that is too full for the ledger would stay so."""
    store = machine.store()
    held = filled(machine, store, 3)
    store.touch(held[0], machine.now - 1)

    def full(*args: object, **kwargs: object) -> None:
        raise NoRoom("the disk is full")

    with monkeypatch.context() as patch:
        for name in ("settle", "note_uses", "hold", "idle"):
            patch.setattr(store.ledger, name, full)
        assert evict(store, 2, machine.now) == 2
        assert holds(store) == {held[0]}
    assert store.space.usage().used == 3 * BLOCK
    assert evict(store, 2, machine.now) == 2
    assert store.space.usage().used == machine.there() == BLOCK
