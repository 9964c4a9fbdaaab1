"""`scrub` and `gc`, as the commands call them."""

import os
from pathlib import Path

import pytest
from tests.cache.filling import Machine, claimed, content, holds, put

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.housekeeping import Removal, ScrubReport, gc, gc_plan, scrub
from entrepot.cache.interface import StoreError
from entrepot.cache.layout import BLOCK
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Limits(size=100 * BLOCK, grace=10.0))


def spoil(store: FileBlobs, digest: Digest) -> None:
    with store.blob_path(digest).open("r+b") as file:
        file.seek(5)
        file.write(b"rot")


def test_scrub_removes_what_is_wrong_and_sets_the_ledger_right(machine: Machine) -> None:
    store = machine.store()
    good, bad, cut, gone = (put(store, content(n, n + 1)) for n in range(4))
    spoil(store, bad)
    os.truncate(store.blob_path(cut), BLOCK)
    store.blob_path(gone).unlink()
    reader = store.open(bad)
    report = scrub(store)
    assert holds(store) == {good}
    assert {wrong.digest for wrong in report.wrong} == {bad, cut}
    assert all("has digest sha256:" in wrong.why for wrong in report.wrong)
    assert (report.blobs, report.bytes, report.expected, report.ledger) == (3, 4 * BLOCK, 10 * BLOCK, 1)
    assert not report.clean
    assert store.space.usage().used == machine.there() == BLOCK
    assert scrub(store).clean
    assert reader is not None
    reader[1].close()


def test_scrub_sweeps_and_ends_doubts(machine: Machine) -> None:
    machine.limits = Limits(part_age=0.0)
    store = machine.store()
    part = claimed(store, Digest.of(b"a"))
    part.write(content(1))
    part.release()
    machine.boot = "second"
    store = machine.store()
    assert store.ledger.unsure()
    assert [leftover.bytes for leftover in scrub(store).leftovers] == [BLOCK]
    assert not store.ledger.unsure()
    assert machine.there() == 0


def test_scrub_leaves_blobs_that_are_read_and_parts_that_are_written(machine: Machine) -> None:
    store = machine.store()
    digest = put(store, content(1))
    part = claimed(store, Digest.of(content(2, 2)))
    part.write(content(2))
    assert scrub(machine.store()).clean
    part.write(content(2))
    part.commit()
    assert holds(store) == {digest, part.digest}


def test_scrub_keeps_to_its_rate(machine: Machine) -> None:
    store, slept, now = machine.store(), list[float](), [0.0]
    for n in range(3):
        put(store, content(n, 5))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    scrub(store, rate_limit=10 * BLOCK, monotonic=lambda: now[0], sleep=sleep)
    assert slept == pytest.approx([0.5, 0.5, 0.5])


def test_progress_is_told_and_may_end_it(machine: Machine) -> None:
    store, seen = machine.store(), list[int]()
    for n in range(3):
        put(store, content(n))

    def progress(report: ScrubReport) -> None:
        seen.append(report.blobs)
        if report.blobs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scrub(store, progress=progress)
    assert seen == [1, 2]


def test_what_is_not_the_blob_s_fault_removes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine.store()
    digest = put(store, content(1))

    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match="Too many open files"):
        scrub(store)
    assert holds(store) == {digest}


def test_a_bad_sector_is_the_blob_s_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine.store()
    put(store, content(1))

    def fail(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    (wrong,) = scrub(store).wrong
    assert wrong.why == "cannot be read: Input/output error"
    assert holds(store) == set()


def test_gc_says_what_it_would_remove_and_does_that(machine: Machine) -> None:
    store = machine.store()
    old, newer, newest = (put(store, content(n, 33)) for n in range(3))
    for n, digest in enumerate((old, newer, newest)):
        store.touch(digest, machine.now + n)
    part = claimed(store, Digest.of(b"a"))
    part.write(content(9))
    part.release()
    os.utime(part._path, (machine.now - 90_000,) * 2)
    machine.now += 100
    plan = gc_plan(store, machine.now)
    assert plan.need == 2 * BLOCK
    assert plan.removals == (
        Removal("leftover", part._path.name, BLOCK, "left 90100 s ago"),
        Removal("blob", str(old), 33 * BLOCK, "last used 100 s ago; 8192 bytes have to go"),
    )
    assert plan.bytes == 34 * BLOCK
    assert holds(store) == {old, newer, newest}
    assert part._path.exists()
    assert gc(store, machine.now) == plan.bytes
    assert holds(store) == {newer, newest}
    assert gc_plan(store, machine.now).removals == ()


def test_gc_evicts_nothing_as_long_as_the_ledger_is_incomplete(machine: Machine) -> None:
    put(machine.store(), content(1, 99))
    for path in (machine.root / "ledger").iterdir():
        path.unlink()
    machine.now += 100
    machine.limits = Limits(size=BLOCK)
    store = machine.store()
    plan = gc_plan(store, machine.now)
    assert not plan.ready
    assert plan.removals == ()
    assert gc(store, machine.now) == 0
    assert len(holds(store)) == 1
