"""The file under the ledger: lost, damaged, replaced, shared."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrepot.cache.database import Database
from entrepot.cache.interface import NoRoom, StoreError

SCHEMA = """CREATE TABLE numbers(n INTEGER)

CREATE TABLE other(n INTEGER)"""


def opened(path: Path, version: int = 1) -> Database:
    def seed(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO other VALUES (7)")

    return Database(path / "db", version, SCHEMA, seed)


def add(db: Database, number: int = 1) -> None:
    db.write(lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (number,)))


def total(db: Database) -> int:
    return int(db.read(lambda connection: connection.execute("SELECT total(n) FROM numbers").fetchone()[0]))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path)
    yield database
    database.close()


def test_a_new_file_has_the_schema_and_the_seed_and_is_ours_alone(db: Database, tmp_path: Path) -> None:
    assert db.read(lambda connection: connection.execute("SELECT n FROM other").fetchall()) == [(7,)]
    assert total(db) == 0
    assert (tmp_path / "db").stat().st_mode & 0o077 == 0


def test_a_transaction_counts_as_a_whole(db: Database) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise KeyError

    with pytest.raises(KeyError):
        db.write(work)
    assert total(db) == 0
    add(db)
    assert total(db) == 1


def test_it_goes_on_after_close(db: Database) -> None:
    add(db)
    db.close()
    db.close()
    assert total(db) == 1


def test_another_process_s_new_file_is_noticed(db: Database, tmp_path: Path) -> None:
    add(db)
    other = opened(tmp_path)
    for path in tmp_path.glob("db*"):
        path.unlink()
    add(other, 5)
    assert total(db) == 5
    other.close()


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    before = opened(tmp_path)
    add(before)
    before.close()
    (tmp_path / "db").write_bytes(damage)
    after, other = opened(tmp_path), opened(tmp_path)
    assert total(after) == 0
    add(after)
    assert total(other) == 1
    after.close()
    other.close()


def test_damage_while_it_is_open(db: Database, tmp_path: Path) -> None:
    add(db)
    db.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    with (tmp_path / "db").open("r+b") as file:
        file.write(b"\xff" * 12288)
    other = opened(tmp_path)
    assert total(other) == 0
    add(other)
    assert total(db) == 1
    other.close()


def test_another_version_is_made_anew(tmp_path: Path) -> None:
    old = opened(tmp_path, version=1)
    add(old)
    old.close()
    new = opened(tmp_path, version=2)
    assert total(new) == 0
    new.close()


def test_a_mistake_of_ours_is_not_taken_for_damage(db: Database) -> None:
    add(db)
    with pytest.raises(StoreError, match="no such table"):
        db.read(lambda connection: connection.execute("SELECT * FROM absent"))
    assert total(db) == 1


def test_a_full_disk_costs_the_ballast_first(db: Database, tmp_path: Path) -> None:
    db.restore_ballast()
    assert (tmp_path / "ballast").stat().st_size > 100_000
    failures = 0

    def work(connection: sqlite3.Connection) -> None:
        nonlocal failures
        if (tmp_path / "ballast").exists():
            failures += 1
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to say that the disk is full
        for number in range(10_000):
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))

    db.write(work)
    assert failures == 1
    (pages,) = db.read(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    db.read(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(NoRoom):
        db.write(work)
    assert total(db) == sum(range(10_000))


def test_threads_and_processes_take_turns(tmp_path: Path) -> None:
    databases = [opened(tmp_path) for _ in range(3)]

    def work(db: Database) -> None:
        for _ in range(50):
            add(db)

    threads = [threading.Thread(target=work, args=(db,)) for db in databases * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(databases[0]) == 300
    for db in databases:
        db.close()
