"""What the ledger counts, and what it knows of its own reliability."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from entrepot.cache.layout import BLOCK
from entrepot.cache.ledger import Ledger, Sums

A, B = "sha256:" + "aa" * 32, "sha256:" + "ab" * 32


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path, boot="first", is_empty=lambda: True)
    yield opened
    opened.close()


def take(ledger: Ledger, digest: str, size: int, owner: str = "me") -> int:
    return ledger.reserve(digest, owner, size, lambda others: 0)


def test_a_blob_s_way(ledger: Ledger) -> None:
    take(ledger, A, 3 * BLOCK)
    assert ledger.sums() == Sums(0, 0, 0, 3 * BLOCK, complete=True)
    take(ledger, A, 5 * BLOCK)
    assert ledger.parts() == [(A, 5 * BLOCK)]
    ledger.committed(A, "me", lambda name: (4 * BLOCK, 10.0))
    assert ledger.sums() == Sums(1, 4 * BLOCK, 0, 0, complete=True)
    ledger.hold([A], held=True)
    assert ledger.sums().held_bytes == 4 * BLOCK
    ledger.settle([A], lambda name: None)
    assert ledger.sums() == Sums(0, 0, 0, 0, complete=True)


def test_what_is_refused_is_not_counted_and_sees_what_others_have(ledger: Ledger) -> None:
    take(ledger, A, BLOCK)
    take(ledger, B, 2 * BLOCK)
    assert ledger.reserve(B, "me", 9 * BLOCK, lambda others: others.used) == BLOCK
    assert ledger.sums().used == 3 * BLOCK


def test_only_the_owner_s_reservation_is_given_back(ledger: Ledger) -> None:
    take(ledger, A, BLOCK, "before")
    take(ledger, A, 2 * BLOCK, "after")
    ledger.left(A, "before", 0)
    ledger.left(A, "before", BLOCK)
    ledger.committed(A, "before", lambda name: (BLOCK, 1.0))
    assert ledger.sums() == Sums(1, BLOCK, 0, 2 * BLOCK, complete=True)
    ledger.left(A, "after", 0)
    assert ledger.sums().part_bytes == 0


def test_a_blob_that_was_evicted_before_its_commit_was_noted_does_not_count(ledger: Ledger) -> None:
    take(ledger, A, BLOCK)
    ledger.committed(A, "me", lambda name: None)
    assert ledger.sums() == Sums(0, 0, 0, 0, complete=True)


def test_a_lost_part_that_has_begun_again_is_left_alone(ledger: Ledger) -> None:
    take(ledger, A, BLOCK)
    ledger.lost(A, lambda: True, lambda name: (BLOCK, 1.0))
    assert ledger.parts() == [(A, BLOCK)]
    ledger.lost(A, lambda: False, lambda name: (2 * BLOCK, 1.0))
    assert ledger.sums() == Sums(1, 2 * BLOCK, 0, 0, complete=True)


def test_settling_keeps_a_known_use_and_counts_changes(ledger: Ledger) -> None:
    ledger.committed(A, "me", lambda name: (BLOCK, 50.0))
    assert ledger.settle([A, B], lambda name: (BLOCK, 7.0)) == 1
    assert ledger.settle([A, B], lambda name: (BLOCK, 9.0)) == 0
    assert [(row.digest, row.used) for row in ledger.by_use((0.0, 0), 100.0, 9)] == [(B, 7.0), (A, 50.0)]
    assert ledger.settle([A], lambda name: (2 * BLOCK, 9.0)) == 1
    assert ledger.sums().blob_bytes == 3 * BLOCK


def test_a_range_is_of_one_fan(ledger: Ledger) -> None:
    for digest in (A, B, "sha512:" + "aa" * 64):
        ledger.committed(digest, "me", lambda name: (BLOCK, 1.0))
    assert ledger.range("sha256:aa") == {A: BLOCK}
    assert ledger.range("sha256:") == {A: BLOCK, B: BLOCK}


def test_it_is_sure_of_an_empty_store_and_of_one_that_was_looked_through(tmp_path: Path) -> None:
    assert not Ledger(tmp_path / "empty", boot="first", is_empty=lambda: True).unsure()
    full = Ledger(tmp_path / "full", boot="first", is_empty=lambda: False)
    assert full.unsure()
    assert not full.sums().complete
    full.sure()
    assert not full.unsure()
    assert full.sums().complete


def test_after_a_start_of_the_machine_it_is_used_but_looked_through(tmp_path: Path) -> None:
    Ledger(tmp_path, boot="first", is_empty=lambda: True).sums()
    later = Ledger(tmp_path, boot="second", is_empty=lambda: False)
    assert later.unsure()
    assert later.sums().complete
