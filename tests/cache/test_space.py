"""DESIGN rule 10: the limits hold at all times, also while filling; reservations come before bytes."""

from pathlib import Path

import pytest
from tests.cache.filling import Machine, claimed, content, die, holds, put

from entrepot.cache.interface import NoRoom, TooLarge
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import STEP, Limits
from entrepot.registry.digests import Digest


class Half:
    """A share of the disk."""

    def of(self, total: int) -> int:
        return total // 2


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Limits(size=10 * BLOCK, grace=10.0))


def test_what_is_reserved_counts_before_it_is_written(machine: Machine) -> None:
    store = machine.store()
    part = claimed(store, Digest.of(b"a"))
    part.reserve(6 * BLOCK - 1)
    assert store.space.usage().used == 6 * BLOCK
    other = claimed(machine.store(), Digest.of(b"b"))
    with pytest.raises(NoRoom, match="no room for 20480 bytes now"):
        other.reserve(5 * BLOCK)
    other.reserve(4 * BLOCK)
    assert store.space.usage().used == 10 * BLOCK


@pytest.mark.parametrize("end", ["discard", "release", "commit"])
def test_the_end_gives_back_what_was_not_used(machine: Machine, end: str) -> None:
    store, data = machine.store(), content(1, 2)
    part = claimed(store, Digest.of(data))
    part.reserve(9 * BLOCK)
    part.write(data)
    getattr(part, end)()
    assert store.space.usage().used == (0 if end == "discard" else 2 * BLOCK)
    part.release()  # harmless
    assert store.space.usage().used == machine.there()


def test_what_can_never_fit_is_told_apart_and_evicts_nothing(machine: Machine) -> None:
    store = machine.store()
    held = put(store, content(1))
    machine.now += 100
    with pytest.raises(TooLarge):
        claimed(store, Digest.of(b"a")).reserve(10 * BLOCK + 1)
    assert holds(store) == {held}
    machine.total, machine.limits = 8 * BLOCK, Limits(size=10 * BLOCK, min_free=2 * BLOCK)
    with pytest.raises(TooLarge):
        claimed(machine.store(), Digest.of(b"b")).reserve(6 * BLOCK + 1)


def test_a_hopeless_reservation_evicts_nothing(machine: Machine) -> None:
    store = machine.store()
    old = put(store, content(1, 2))
    machine.now += 100
    new = put(store, content(2, 7))  # used just now
    with pytest.raises(NoRoom):
        claimed(store, Digest.of(b"a")).reserve(5 * BLOCK)
    assert holds(store) == {old, new}
    assert store.space.usage().used == 9 * BLOCK


def test_eviction_takes_no_more_than_is_needed(machine: Machine) -> None:
    store, held = machine.store(), list[Digest]()
    for number in range(10):
        held.append(put(store, content(number)))
        machine.now += 1
    machine.now += 100
    claimed(store, Digest.of(b"a")).reserve(3 * BLOCK)
    assert holds(store) == set(held[3:])


def test_a_part_of_unknown_size_reserves_as_it_grows_and_stops_at_the_limit(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=3 * STEP[0]))
    store, block = machine.store(), bytes(STEP[0])
    part = claimed(store, Digest.of(block * 3))
    part.write(block)
    assert store.space.usage().used == 2 * STEP[0]  # ahead, while there is room to spare
    part.write(block)
    assert store.space.usage().used == 2 * STEP[0]
    part.write(block)
    with pytest.raises(TooLarge):
        part.write(b"x")
    assert part.offset == machine.there() == 3 * STEP[0]
    part.commit()


def test_a_resumed_part_counts_once(machine: Machine) -> None:
    store, data = machine.store(), content(1, 6)
    part = claimed(store, Digest.of(data))
    part.write(data[: 4 * BLOCK])
    part.release()
    part = claimed(store, Digest.of(data))
    part.reserve(BLOCK)  # a wrong idea of the size does not make what is there uncounted
    assert store.space.usage().used == 4 * BLOCK
    part.load()
    part.reserve(6 * BLOCK)
    assert store.space.usage().used == 6 * BLOCK
    part.write(data[4 * BLOCK :])
    part.commit()
    assert store.space.usage().used == 6 * BLOCK


@pytest.mark.parametrize("end", ["commit", "discard", "release"])
def test_a_part_that_was_left_whole_counts_once(machine: Machine, end: str) -> None:
    store, data = machine.store(), content(1, 6)
    part = claimed(store, Digest.of(data))
    part.write(data)
    die(part)
    part = claimed(store, Digest.of(data))
    part.load()
    getattr(part, end)()
    assert store.space.usage().used == machine.there() == (0 if end == "discard" else 6 * BLOCK)


def test_the_reservation_of_the_dead_is_no_obstacle(machine: Machine) -> None:
    part = claimed(machine.store(), Digest.of(b"a"))
    part.reserve(9 * BLOCK)
    part.write(content(1))
    die(part)
    store = machine.store()
    claimed(store, Digest.of(b"b")).reserve(9 * BLOCK)
    assert store.space.usage().used == 10 * BLOCK


def test_free_space_is_kept_of_what_is_neither_written_nor_reserved(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(min_free=4 * BLOCK, grace=10.0), total=20 * BLOCK)
    store = machine.store()
    old = put(store, content(1, 6))
    machine.now += 100
    first = claimed(store, Digest.of(b"a"))
    first.reserve(6 * BLOCK)  # 20 - 6 - 6 = 8 left
    first.write(content(2, 3))
    claimed(store, Digest.of(b"b")).reserve(4 * BLOCK)
    assert old in holds(store)
    claimed(store, Digest.of(b"c")).reserve(1)
    assert holds(store) == set()
    machine.foreign = 6 * BLOCK
    with pytest.raises(NoRoom):
        claimed(store, Digest.of(b"d")).reserve(1)


def test_shares_are_of_the_disk(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=Half(), min_free=Half()), total=100 * BLOCK)
    usage = machine.store().space.usage()
    assert (usage.size, usage.min_free) == (50 * BLOCK, 50 * BLOCK)


def test_new_limits_hold_from_the_next_reservation_on(machine: Machine) -> None:
    store = machine.store()
    store.space.limits = Limits(size=2 * BLOCK)
    with pytest.raises(TooLarge):
        claimed(store, Digest.of(b"a")).reserve(3 * BLOCK)


def test_headroom_is_made_in_the_background(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=100 * BLOCK, grace=10.0))
    store = machine.store()
    first = put(store, content(1, 2))
    machine.now += 1
    put(store, content(2, 98))
    assert store.space.make_headroom() == 0  # used a moment ago
    machine.now += 100
    assert store.space.make_headroom() == 2 * BLOCK
    assert first not in holds(store)
    assert store.space.make_headroom() == 0


def test_only_one_evicts_at_a_time(machine: Machine) -> None:
    machine.limits = Limits(size=BLOCK, grace=0.0)
    one, other = machine.store(), machine.store()
    with one.space.evictor.elected(wait=True) as elected:
        assert elected
        with other.space.evictor.elected(wait=False) as also:
            assert not also
    with other.space.evictor.elected(wait=False) as elected:
        assert elected


def test_a_lost_ledger_admits_only_what_fits_beside_all_there_is(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Limits(size=10 * BLOCK, grace=0.0))
    put(machine.store(), content(1, 8))
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    store = machine.store()
    machine.now += 100
    with pytest.raises(NoRoom):
        claimed(store, Digest.of(b"a")).reserve(3 * BLOCK)
    claimed(store, Digest.of(b"b")).reserve(2 * BLOCK)
    assert len(holds(store)) == 1


def test_touching_is_for_others_at_once_and_for_the_ledger_when_flushed(machine: Machine) -> None:
    store = machine.store()
    digest = put(store, content(1))
    machine.now += 50
    store.touch(digest, machine.now)
    (row,) = store.ledger.by_use((0.0, 0), 1e12, 10)
    assert row.used == machine.now - 50
    assert store.blob_path(digest).stat().st_mtime == machine.now
    store.space.flush()
    (row,) = store.ledger.by_use((0.0, 0), 1e12, 10)
    assert row.used == machine.now


def test_touches_are_batched(machine: Machine) -> None:
    store = machine.store()
    digest = put(store, content(1))
    for now in (2_000_000.0, 2_000_004.9, 2_000_005.0):
        store.touch(digest, now)
    assert store.blob_path(digest).stat().st_mtime == 2_000_005.0
    store.touch(digest, 2_000_006.0)
    assert store.blob_path(digest).stat().st_mtime == 2_000_005.0
    store.touch(digest, 1_000_000.0)  # the clock went back: the last word counts
    assert store.blob_path(digest).stat().st_mtime == 1_000_000.0
    store.touch(Digest.of(b"not held"), 1.0)
