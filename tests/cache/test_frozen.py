"""Records read as they lie there. That the disk is full is `test_full_disk`'s part; these run on any."""

import asyncio
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from entrepot.cache.frozen import Changed, Frozen
from entrepot.cache.interface import StoreError
from entrepot.cache.records import DiskRecords

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from entrepot.cache.records import DiskRecords
async def main():
    records = DiskRecords(Path(sys.argv[1]))
    for number in range(100):
        await records.put(f"tag/{number:02}", {"n": number})
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Records of a process that was killed: all that counts is in the log."""
    folder = tmp_path / "records"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "cache.db-wal").stat().st_size > 100_000
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_in_the_log_only_is_read_and_nothing_is_written(left: Path) -> None:
    (left / "cache.db-shm").unlink()
    before = snapshot(left)
    first, second = Frozen(left, -1), Frozen(left, -2)
    for frozen in (first, second):
        assert frozen.get("tag/42") == ('{"n":42}', None)
        assert frozen.get("tag/x") == (None, None)
        assert frozen.keys() == [f"tag/{number:02}" for number in range(100)]
    assert (first.checked(), second.checked()) == (-1, -2)
    first.close()
    second.close()
    assert snapshot(left) == before


def test_after_it_was_closed_it_is_to_be_opened_anew(left: Path) -> None:
    frozen = Frozen(left, -1)
    frozen.close()
    frozen.close()
    for asked in (frozen.check, frozen.keys, lambda: frozen.get("tag/42")):
        with pytest.raises(Changed):
            asked()


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal"])
def test_what_was_read_while_somebody_wrote_does_not_count(left: Path, name: str) -> None:
    frozen = Frozen(left, -1)
    size = (left / name).stat().st_size
    with (left / name).open("r+b") as file:
        file.write(file.read(1))  # the same size, and another time
    assert (left / name).stat().st_size == size
    with pytest.raises(Changed):
        frozen.get("tag/42")
    frozen.close()


def test_files_that_are_being_written_are_not_opened(left: Path) -> None:
    changed = (left / "cache.db-wal").stat().st_mtime
    with pytest.raises(StoreError, match="is being written"):
        Frozen(left, -1, clock=lambda: changed + 0.01)
    Frozen(left, -1, clock=lambda: changed - 3600).close()  # a clock that was put back says nothing


def test_an_empty_log_is_none(left: Path) -> None:
    db = sqlite3.connect(left / "cache.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    frozen = Frozen(left, -1)
    (left / "cache.db-wal").touch()
    assert frozen.get("tag/42") == ('{"n":42}', None)
    frozen.close()
    another = Frozen(left, -2)
    another.close()
    assert (left / "cache.db-wal").exists()  # somebody else may be about to write to it


def test_what_is_no_text_or_bytes_is_not_there(tmp_path: Path) -> None:
    """See `test_safedisk`: no row makes us run code or open a file."""

    async def fill() -> None:
        records = DiskRecords(tmp_path)
        for key in ("a", "b", "c", "d", "e"):
            await records.put(key, {"n": 1})
        await records.close()

    asyncio.run(fill())
    db = sqlite3.connect(tmp_path / "cache.db")
    with db:
        db.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 'a'", (pickle.dumps({}),))
        db.execute("UPDATE Cache SET raw = 0 WHERE key = 'b'")
        db.execute("UPDATE Cache SET filename = '/etc/passwd', value = NULL WHERE key = 'c'")
        db.execute("UPDATE Cache SET value = 5 WHERE key = 'd'")
        db.execute("UPDATE Cache SET expire_time = 5 WHERE key = 'e'")
    db.close()
    frozen = Frozen(tmp_path, -1)
    assert [frozen.get(key) for key in "abcde"] == [(None, None)] * 5
    assert "b" not in frozen.keys()  # noqa: SIM118  # no mapping
    frozen.close()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000])
def test_what_are_no_records_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache.db").write_bytes(content)
    with pytest.raises(StoreError, match="cannot read the records"):
        Frozen(tmp_path, -1)
    with pytest.raises(StoreError, match="cannot read the records"):
        Frozen(tmp_path / "missing", -1)
    assert os.listdir(tmp_path) == ["cache.db"]
