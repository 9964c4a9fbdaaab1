"""Looking at records beside whoever writes them."""

import sqlite3
from pathlib import Path

import pytest

from entrepot.cache import onlooker
from entrepot.cache.embedded import open_records
from entrepot.cache.interface import StoreError
from entrepot.cache.onlooker import Onlooker


async def test_it_sees_what_others_write_as_they_write_it(tmp_path: Path) -> None:
    records, looking = open_records(tmp_path), Onlooker(tmp_path)
    try:
        assert looking.get("tag/a") is None
        await records.put("tag/a", {"n": 1})
        await records.put_bytes("manifest/x", b"type\n{}")
        assert looking.get("tag/a") == {"n": 1}
        assert looking.get_bytes("manifest/x") == b"type\n{}"
        assert looking.get("manifest/x") is None
        assert looking.get_bytes("tag/a") is None
        await records.put("tag/a", {"n": 2})
        assert looking.get("tag/a") == {"n": 2}
    finally:
        looking.close()
        await records.close()


async def test_a_scan_over_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onlooker, "PAGE", 3)
    records, looking = open_records(tmp_path), Onlooker(tmp_path)
    try:
        await records.put_many({f"tag/{n:02}": {"n": n} for n in range(9)})
        await records.put_many({"tab/1": {}, "tah/1": {}, "ta": {}})
        assert [(key, value["n"]) for key, value in looking.scan("tag/")] == [(f"tag/{n:02}", n) for n in range(9)]
        assert list(looking.scan("nothing/")) == []
    finally:
        looking.close()
        await records.close()


async def test_what_has_ended_is_not_there(tmp_path: Path) -> None:
    now = [0.0]
    records, looking = open_records(tmp_path), Onlooker(tmp_path, lambda: now[0])
    try:
        await records.put("down/a", {"why": "x"}, ttl=60)
        assert looking.get("down/a") == {"why": "x"}
        now[0] = 1e12
        assert looking.get("down/a") is None
        assert list(looking.scan("down/")) == []
    finally:
        looking.close()
        await records.close()


async def test_it_cannot_write(tmp_path: Path) -> None:
    records, looking = open_records(tmp_path), Onlooker(tmp_path)
    try:
        looking.get("x")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            looking._opened().execute("DELETE FROM Cache")
    finally:
        looking.close()
        await records.close()


async def test_a_store_that_comes_later_or_is_made_anew(tmp_path: Path) -> None:
    looking = Onlooker(tmp_path)
    with pytest.raises(StoreError, match="no records"):
        looking.get("a")
    for n in range(2):
        records = open_records(tmp_path)
        await records.put("a", {"n": n})
        assert looking.get("a") == {"n": n}
        await records.close()
        (tmp_path / "records").rename(tmp_path / f"old-{n}")
    looking.close()


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records/cache.db").write_bytes(b"x" * 5000)
    looking = Onlooker(tmp_path)
    with pytest.raises(StoreError, match="cannot read"):
        looking.get("a")
    looking.close()
