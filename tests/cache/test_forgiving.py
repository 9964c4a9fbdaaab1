import logging
from collections.abc import Mapping

import pytest

from entrepot.cache.forgiving import QUIET, Forgiving
from entrepot.cache.interface import Document, NoRoom, StoreError
from entrepot.cache.memory import MemoryRecords


class FullRecords(MemoryRecords):
    """What is there can be read."""

    full = False

    def check(self) -> None:
        if self.full:
            raise NoRoom("database or disk is full")

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        self.check()
        await super().put(key, value, ttl=ttl)

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        self.check()
        await super().put_many(values, ttl=ttl)

    async def put_bytes(self, key: str, value: bytes) -> None:
        self.check()
        await super().put_bytes(key, value)

    async def delete(self, key: str) -> bool:
        self.check()
        return await super().delete(key)


async def test_what_the_disk_does_not_take_is_missed_and_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    disk = FullRecords()
    records = Forgiving(disk, lambda: now[0])
    await records.put("before", {"a": 1})
    disk.full = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await records.put("one", {})
            await records.put_many({"two": {}, "three": {}})
            await records.put_bytes("four", b"x")
            now[0] += 0.6 * QUIET
    assert len(caplog.records) == 2
    assert records.get("before") == {"a": 1}
    assert [records.get(key) for key in ("one", "two", "three")] == [None] * 3
    assert records.get_bytes("four") is None
    disk.full = False
    await records.put_bytes("four", b"x")
    await records.put_many({"two": {}})
    assert records.get_bytes("four") == b"x"
    assert [key for key, _ in records.scan("t")] == ["two"]
    await records.close()


async def test_what_is_withdrawn_is_gone_or_it_is_an_error() -> None:
    disk = FullRecords()
    records = Forgiving(disk)
    await records.put("grant", {})
    disk.full = True
    with pytest.raises(StoreError):
        await records.delete("grant")
    disk.full = False
    assert await records.delete("grant")
    assert records.get("grant") is None
