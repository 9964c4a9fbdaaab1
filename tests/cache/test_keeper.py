"""Housekeeping beside the workers."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.cache.filling import Machine, claimed, content, holds, put

from entrepot.cache.interface import StoreError
from entrepot.cache.keeper import Keeper
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Limits(size=100 * BLOCK, grace=10.0))


def test_a_round_notes_uses_makes_headroom_and_sweeps(machine: Machine) -> None:
    store = machine.store()
    old = [put(store, content(n, 33)) for n in range(3)]
    part = claimed(store, Digest.of(b"a"))
    part.write(content(9))
    part.release()
    machine.now = part._path.stat().st_mtime + 2 * 86400
    store.touch(old[0], machine.now)
    Keeper(store).round()
    assert old[0] in holds(store)
    assert len(holds(store)) == 2
    assert store.space.usage().used == machine.there() == 66 * BLOCK
    assert not part._path.exists()
    assert any(row.used == machine.now for row in store.ledger.by_use((0.0, 0), 1e12, 9))
    assert (machine.root / "ledger" / "ballast").exists()


def test_protection_that_ended_is_noticed(machine: Machine) -> None:
    store = machine.store()
    digest = put(store, content(1, 99))
    machine.now += 100
    machine.protected.add(digest)
    keeper = Keeper(store)
    keeper.round()
    assert holds(store) == {digest}
    machine.protected.clear()
    keeper.round()
    keeper.round()
    assert holds(store) == set()


async def test_it_looks_through_a_store_whose_ledger_is_lost(machine: Machine) -> None:
    put(machine.store(), content(1, 5))
    for path in (machine.root / "ledger").iterdir():
        path.unlink()
    store = machine.store()
    assert store.ledger.unsure()
    keeping = asyncio.ensure_future(Keeper(store, interval=0.001).run())
    while store.ledger.unsure():  # a thread's doing
        await asyncio.sleep(0)
    assert store.space.usage().used == 5 * BLOCK
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    store.close()


async def test_the_last_uses_are_noted_at_the_end(machine: Machine) -> None:
    store = machine.store()
    digest = put(store, content(1))
    keeping = asyncio.ensure_future(Keeper(store, interval=1000.0).run())
    while not (machine.root / "ledger" / "ballast").exists():  # the first round is over
        await asyncio.sleep(0)
    store.touch(digest, machine.now + 50)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    (row,) = store.ledger.by_use((0.0, 0), 1e12, 9)
    assert row.used == machine.now + 50
    store.close()


async def test_a_failed_round_is_not_the_last(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store, rounds = machine.store(), list[int]()
    keeper = Keeper(store, interval=0.0)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            loop.call_soon_threadsafe(done.set)
        raise StoreError("no")

    monkeypatch.setattr(keeper, "round", work)
    keeping = asyncio.ensure_future(keeper.run())
    await done.wait()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    store.close()


def test_a_ledger_out_of_order_is_a_store_error(machine: Machine) -> None:
    store = machine.store()
    store.ledger.sums()
    db = sqlite3.connect(machine.root / "ledger" / "ledger.db")
    db.execute("DROP TABLE sums")
    db.close()
    with pytest.raises(StoreError, match="no such table"):
        Keeper(store).round()
