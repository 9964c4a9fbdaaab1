"""The ledger: how much is held, and when each of it was last used.

1. The file tree is the truth of what is committed. The ledger is only ever behind it, in one direction: what is on
   disk, or promised, is counted before it is there and until it is gone. So at any instant, after any crash, what
   it counts is at least what is there.
2. A growing part has a row with what is reserved for it, under a token of whoever writes it. Commit is the rename,
   then one transaction that turns the row of the part into one of the blob. A process that dies in between leaves a
   part's row without a part, which says all that is needed to set it right.
3. Eviction and deletion unlink first; the row goes in a transaction that sees the file is gone. A row without file
   costs nothing but its place: it is the next to be looked at.
4. The sums are kept by triggers, in the same transaction as the rows they add up.

Decides nothing about limits or victims (`space`, `eviction`) and touches no blob.
"""

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cache.database import Database

type Find = Callable[[str], tuple[int, float] | None]
"""What the file of a committed blob says: (bytes on disk, last use); None = there is none."""

VERSION: Final = 1
PIECE: Final = 128  # rows changed in one transaction; milliseconds, also with 1,000,000 rows
SCHEMA: Final = """
CREATE TABLE facts(name TEXT PRIMARY KEY, value) WITHOUT ROWID

CREATE TABLE blobs(id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL, used REAL NOT NULL,
    held INTEGER NOT NULL DEFAULT 0)

CREATE INDEX by_use ON blobs(used) WHERE held = 0

CREATE INDEX by_hold ON blobs(id) WHERE held = 1

CREATE TABLE parts(digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL, owner TEXT NOT NULL) WITHOUT ROWID

CREATE TABLE sums(blobs INTEGER, blob_bytes INTEGER, held_bytes INTEGER, part_bytes INTEGER)

INSERT INTO sums VALUES (0, 0, 0, 0)

CREATE TRIGGER blob_in AFTER INSERT ON blobs BEGIN UPDATE sums SET blobs = blobs + 1,
    blob_bytes = blob_bytes + NEW.bytes, held_bytes = held_bytes + NEW.bytes * NEW.held; END

CREATE TRIGGER blob_out AFTER DELETE ON blobs BEGIN UPDATE sums SET blobs = blobs - 1,
    blob_bytes = blob_bytes - OLD.bytes, held_bytes = held_bytes - OLD.bytes * OLD.held; END

CREATE TRIGGER blob_changed AFTER UPDATE OF bytes, held ON blobs BEGIN UPDATE sums SET
    blob_bytes = blob_bytes + NEW.bytes - OLD.bytes,
    held_bytes = held_bytes + NEW.bytes * NEW.held - OLD.bytes * OLD.held; END

CREATE TRIGGER part_in AFTER INSERT ON parts BEGIN UPDATE sums SET part_bytes = part_bytes + NEW.bytes; END

CREATE TRIGGER part_out AFTER DELETE ON parts BEGIN UPDATE sums SET part_bytes = part_bytes - OLD.bytes; END

CREATE TRIGGER part_changed AFTER UPDATE OF bytes ON parts
    BEGIN UPDATE sums SET part_bytes = part_bytes + NEW.bytes - OLD.bytes; END
"""
_PUT_BLOB: Final = (
    "INSERT INTO blobs(digest, bytes, used) VALUES (?, ?, ?) "
    "ON CONFLICT(digest) DO UPDATE SET bytes = excluded.bytes, used = excluded.used"
)
_PUT_PART: Final = (
    "INSERT INTO parts(digest, bytes, owner) VALUES (?, ?, ?) "
    "ON CONFLICT(digest) DO UPDATE SET bytes = excluded.bytes, owner = excluded.owner"
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Bytes on disk, in whole blocks."""

    blobs: int  # how many
    blob_bytes: int
    held_bytes: int  # of `blob_bytes`, what is known to be protected
    part_bytes: int  # what is reserved for parts, or taken by them
    complete: bool  # False while the ledger is being made again and counts less than there is

    @property
    def used(self) -> int:
        return self.blob_bytes + self.part_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A committed blob."""

    id: int
    digest: str
    bytes: int  # on disk, in whole blocks
    used: float  # epoch seconds; the true use may be later (the file's time says so), never earlier


class Ledger:
    """Thread-safe; every call may wait for the disk. Raises `StoreError`, and `NoRoom` when the disk is full."""

    def __init__(self, directory: Path, *, boot: str, is_empty: Callable[[], bool]) -> None:
        """`boot` names the running time of the machine; `is_empty` says whether a new ledger has nothing to learn."""
        self._boot = boot

        def seed(connection: sqlite3.Connection) -> None:
            complete = int(is_empty())
            facts = {"complete": complete, "boot": boot if complete else ""}
            connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

        self._db = Database(directory / "ledger.db", VERSION, SCHEMA.strip(), seed)

    def sums(self) -> Sums:
        return self._db.read(_sums)

    def parts(self) -> list[tuple[str, int]]:
        """(digest, bytes) of every part."""
        return self._db.read(lambda db: db.execute("SELECT digest, bytes FROM parts").fetchall())

    def reserve(self, digest: str, owner: str, size: int, lacking: Callable[[Sums], int]) -> int:
        """Raises what the part has to `size` bytes unless `lacking` of what all others take is positive.

        Returns what `lacking` returned.
        """

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT bytes FROM parts WHERE digest = ?", (digest,)).fetchone()
            before = row[0] if row else 0
            sums = _sums(db)
            others = Sums(
                sums.blobs, sums.blob_bytes, sums.held_bytes, sums.part_bytes - before, complete=sums.complete
            )
            if (short := lacking(others)) <= 0:
                db.execute(_PUT_PART, (digest, size, owner))
            return short

        return self._db.write(work)

    def adopt(self, digest: str, owner: str) -> None:
        """What is counted for the part is `owner`'s from now on."""
        self._db.write(lambda db: db.execute("UPDATE parts SET owner = ? WHERE digest = ?", (owner, digest)))

    def committed(self, digest: str, owner: str, find: Find) -> None:
        """The part of `owner` has become a blob, which may be gone by now; `find` is asked inside the transaction."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM parts WHERE digest = ? AND owner = ?", (digest, owner))
            if (found := find(digest)) is not None:
                db.execute(_PUT_BLOB, (digest, *found))

        self._db.write(work)

    def left(self, digest: str, owner: str, size: int) -> None:
        """The part of `owner` is idle and takes `size` bytes from now on, or is gone (0)."""

        def work(db: sqlite3.Connection) -> None:
            if size:
                db.execute("UPDATE parts SET bytes = ? WHERE digest = ? AND owner = ?", (size, digest, owner))
            else:
                db.execute("DELETE FROM parts WHERE digest = ? AND owner = ?", (digest, owner))

        self._db.write(work)

    def idle(self, digest: str, size: int) -> None:
        """A part nobody writes takes `size` bytes, or is gone (0). The caller holds its flock."""

        def work(db: sqlite3.Connection) -> None:
            if size:
                db.execute(_PUT_PART, (digest, size, ""))
            else:
                db.execute("DELETE FROM parts WHERE digest = ?", (digest,))

        self._db.write(work)

    def unknown(self, digest: str, size: int) -> None:
        """A part that somebody writes takes `size` bytes, unless there is a row that knows better."""
        sql = "INSERT INTO parts(digest, bytes, owner) VALUES (?, ?, '') ON CONFLICT(digest) DO NOTHING"
        self._db.write(lambda db: db.execute(sql, (digest, size)))

    def lost(self, digest: str, exists: Callable[[], bool], find: Find) -> None:
        """A row of a part that does not exist: it was discarded, or committed, and `find` knows the blob."""

        def work(db: sqlite3.Connection) -> None:
            if exists():  # begun again meanwhile
                return
            if (found := find(digest)) is not None:
                db.execute(
                    "INSERT INTO blobs(digest, bytes, used) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (digest, *found)
                )
            db.execute("DELETE FROM parts WHERE digest = ?", (digest,))

        self._db.write(work)

    def settle(self, digests: Iterable[str], find: Find) -> int:
        """Makes the rows of blobs what `find`, asked inside the transaction, says: (bytes, used), None = no file.

        A use that is known is kept. Returns how many rows changed.
        """

        def work(db: sqlite3.Connection) -> int:
            changed = 0
            for digest in digests:
                if (found := find(digest)) is None:
                    changed += db.execute("DELETE FROM blobs WHERE digest = ?", (digest,)).rowcount
                else:
                    changed += db.execute(
                        "INSERT INTO blobs(digest, bytes, used) VALUES (?, ?, ?) "
                        "ON CONFLICT(digest) DO UPDATE SET bytes = excluded.bytes WHERE bytes <> excluded.bytes",
                        (digest, *found),
                    ).rowcount
            return changed

        return self._db.write(work)

    def note_uses(self, uses: Iterable[tuple[str, float]]) -> None:
        """The last word counts, also when the clock went back."""
        turned = ((used, digest) for digest, used in uses)
        self._in_pieces("UPDATE blobs SET used = ? WHERE digest = ?", turned)

    def hold(self, digests: Sequence[str], *, held: bool) -> None:
        """Takes protected blobs out of the way of eviction, or puts them back."""
        flags = ((int(held), digest) for digest in digests)
        self._in_pieces("UPDATE blobs SET held = ? WHERE digest = ?", flags)

    def by_use(self, after: tuple[float, int], until: float, limit: int) -> list[Row]:
        """Rows that are not held, least recently used first, behind (used, id) and used no later than `until`."""
        return self._db.read(
            lambda db: [
                Row(*row)
                for row in db.execute(
                    "SELECT id, digest, bytes, used FROM blobs WHERE held = 0 "
                    "AND (used, id) > (?, ?) AND used <= ? ORDER BY used, id LIMIT ?",
                    (*after, until, limit),
                )
            ]
        )

    def held(self, after: int, limit: int) -> list[Row]:
        """Held rows with an id above `after`."""
        return self._db.read(
            lambda db: [
                Row(*row)
                for row in db.execute(
                    "SELECT id, digest, bytes, used FROM blobs WHERE held = 1 AND id > ? ORDER BY id LIMIT ?",
                    (after, limit),
                )
            ]
        )

    def range(self, prefix: str) -> dict[str, int]:
        """Bytes by digest, of the digests that begin with `prefix`."""
        sql = "SELECT digest, bytes FROM blobs WHERE digest >= ? AND digest < ?"
        return self._db.read(lambda db: dict(db.execute(sql, (prefix, prefix + "g")).fetchall()))  # g: behind all hex

    def use(self, digest: str) -> float | None:
        """When it was last used, as far as the ledger knows; None when it does not know the blob."""
        row = self._db.read(lambda db: db.execute("SELECT used FROM blobs WHERE digest = ?", (digest,)).fetchone())
        return float(row[0]) if row else None

    def unsure(self) -> bool:
        """Whether the file tree has to be looked through: the ledger is new, or the machine went down since."""
        facts = self._db.read(lambda db: dict(db.execute("SELECT name, value FROM facts").fetchall()))
        return not facts["complete"] or facts["boot"] != self._boot

    def sure(self) -> None:
        """The file tree has been looked through."""
        facts = [("complete", 1), ("boot", self._boot)]
        self._db.write(lambda db: db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts))

    def evicted(self) -> tuple[int, int]:
        """(blobs, bytes) that `note_evicted` was told of since the ledger was made."""
        facts = self._db.read(lambda db: dict(db.execute("SELECT name, value FROM facts").fetchall()))
        return int(facts.get("evicted_blobs", 0)), int(facts.get("evicted_bytes", 0))

    def note_evicted(self, blobs: int, size: int) -> None:
        """For the statistics."""
        facts = [("evicted_blobs", blobs), ("evicted_bytes", size)]
        sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value"
        self._db.write(lambda db: db.executemany(sql, facts))

    def _in_pieces(self, sql: str, values: Iterable[tuple[float, str]]) -> None:
        """Rows that need not change all at once: reservations wait for a transaction."""
        for piece in itertools.batched(values, PIECE):
            self._db.write(lambda db, piece=piece: db.executemany(sql, piece))  # type: ignore[misc]

    def restore_ballast(self) -> None:
        self._db.restore_ballast()

    def close(self) -> None:
        self._db.close()


def _sums(db: sqlite3.Connection) -> Sums:
    row = db.execute("SELECT sums.*, (SELECT value FROM facts WHERE name = 'complete') FROM sums").fetchone()
    return Sums(row[0], row[1], row[2], row[3], complete=bool(row[4]))


def new_owner() -> str:
    """A token nobody else has."""
    return os.urandom(8).hex()
