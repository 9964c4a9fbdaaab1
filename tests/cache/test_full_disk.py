"""DESIGN rule 10 on a file system that is really full. Needs root, to mount a small one."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.cache.filling import claimed, content, holds, put

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.embedded import open_records
from entrepot.cache.interface import NoRoom, StoreError
from entrepot.cache.keeper import Keeper
from entrepot.cache.layout import BLOCK
from entrepot.cache.records import DiskRecords
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest

DISK = 8 << 20  # bytes
PIECE = 64  # blocks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own. In CI its absence is a failure, so that nobody's green run is an empty one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        reason = f"needs to mount a small tmpfs, as root: {mounted.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill_up(disk: Path) -> Path:
    """Somebody else takes all there is."""
    path = disk / "foreign"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    assert os.statvfs(disk).f_bavail == 0
    return path


def test_filling_stops_at_the_limits_and_evicts(disk: Path) -> None:
    now = [1_000_000.0]
    store = FileBlobs(disk / "store", Limits(min_free=2 << 20, grace=10.0), clock=lambda: now[0])
    held = list[Digest]()
    for number in range(60):  # twice the disk
        held.append(put(store, content(number, PIECE)))
        now[0] += 60
        assert os.statvfs(disk).f_bavail * BLOCK >= 2 << 20
    there = holds(store)
    assert there == set(held[-len(there) :])
    assert len(there) >= 10
    store.close()


def test_a_part_of_unknown_size_ends_with_no_room_and_keeps_its_bytes(disk: Path) -> None:
    store = FileBlobs(disk / "store", Limits(min_free=1 << 20))
    part = claimed(store, Digest.of(b"never"))
    with pytest.raises(StoreError) as raised:
        while True:
            part.write(content(1, PIECE))
    assert type(raised.value) is not StoreError
    assert part.offset == store.part_path(part.digest).stat().st_size
    assert os.statvfs(disk).f_bavail * BLOCK >= 1 << 20
    part.discard()
    assert store.space.usage().used == 0
    store.close()


def test_the_disk_s_own_refusal_is_no_room_and_nothing_is_lost(disk: Path) -> None:
    store = FileBlobs(disk / "store")
    data = content(1, PIECE)
    part = claimed(store, Digest.of(data))
    part.reserve(len(data))
    part.write(data[:10_000])
    foreign = fill_up(disk)
    with pytest.raises(NoRoom, match="No space left on device"):
        part.write(data[10_000:])
    assert part.offset == store.part_path(part.digest).stat().st_size == 10_000
    with pytest.raises(NoRoom):  # not even a name, in the long run, or no directory to commit into
        for number in range(100_000):
            other = claimed(store, Digest.of(number.to_bytes(4, "big")))
            other.write(b"x")
    foreign.unlink()
    part.write(data[10_000:])
    part.commit()
    assert holds(store) == {part.digest}
    store.close()


def test_eviction_works_on_a_full_disk(disk: Path) -> None:
    now = [1_000_000.0]
    store = FileBlobs(disk / "store", Limits(min_free=1 << 20, grace=10.0), clock=lambda: now[0])
    for number in range(10):
        put(store, content(number, PIECE))
    now[0] += 100
    fill_up(disk)
    keeper = Keeper(store)
    keeper.round()
    assert os.statvfs(disk).f_bavail * BLOCK >= 1 << 20
    put(store, content(99))
    assert 0 < len(holds(store)) < 10
    store.close()


@pytest.mark.parametrize("ballast", [True, False])
def test_starting_on_a_full_disk(disk: Path, ballast: bool) -> None:
    now = [1_000_000.0]
    before = FileBlobs(disk / "store", Limits(grace=10.0), clock=lambda: now[0])
    held = [put(before, content(number, PIECE)) for number in range(10)]
    if ballast:
        Keeper(before).round()
    before.close()
    now[0] += 100
    fill_up(disk)
    store = FileBlobs(disk / "store", Limits(min_free=1 << 20, grace=10.0), clock=lambda: now[0])
    opened = store.open(held[0])
    assert opened is not None  # what is held is served
    opened[1].close()
    if ballast:
        Keeper(store).round()
        put(store, content(99))
    else:
        with pytest.raises(NoRoom):
            put(store, content(99))
    store.close()


async def test_records_open_on_a_full_disk(disk: Path) -> None:
    """Even those of several processes that start at once: SQLite needs new files for it, and the ballast makes room."""
    before = open_records(disk)
    await before.put("tag/a", {"digest": "x"})
    store = FileBlobs(disk)
    Keeper(store).round()
    store.close()
    await before.close()
    fill_up(disk)
    first, second = open_records(disk), open_records(disk)
    for records in (first, second):
        assert records.get("tag/a") == {"digest": "x"}
        await records.close()


def written_elsewhere(disk: Path, key: str) -> None:
    """By another process, which leaves at once."""
    code = (
        "import asyncio, sys; from pathlib import Path; from entrepot.cache.records import DiskRecords\n"
        "async def main():\n"
        "    records = DiskRecords(Path(sys.argv[1]))\n"
        "    await records.put(sys.argv[2], {'by': 'another'})\n"
        "    await records.close()\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", code, str(disk / "records"), key], check=True)


type Crowded = tuple[DiskRecords, Path, list[float]]


@pytest.fixture
async def crowded(disk: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Crowded]:
    """Records that were opened on a disk that is full, with no ballast; what fills it; seconds on their clock."""
    before = open_records(disk)
    await before.put("tag/a", {"digest": "x"})
    await before.put("tag/b", {"digest": "y"}, ttl=-1.0)
    await before.put_bytes("manifest/a", b"bytes")
    await before.close()
    foreign = fill_up(disk)
    records = open_records(disk)
    assert "they are only read until there is room" in caplog.text
    now = [0.0]
    records._clock = lambda: now[0]
    records._tried = 0.0
    yield records, foreign, now
    await records.close()


async def test_without_ballast_records_are_read(crowded: Crowded) -> None:
    records, _, _ = crowded
    assert records.read_only
    assert records.get("tag/a") == {"digest": "x"}
    assert records.get_bytes("manifest/a") == b"bytes"
    assert (records.get("tag/b"), records.get("tag/c")) == (None, None)
    assert list(records.scan("tag/")) == [("tag/a", {"digest": "x"})]
    assert await asyncio.to_thread(records.get, "tag/a") == {"digest": "x"}
    assert await asyncio.to_thread(records.has, "tag/a")


async def test_without_room_nothing_is_kept(crowded: Crowded) -> None:
    records, _, now = crowded
    for _ in range(2):
        with pytest.raises(NoRoom, match="the disk is full"):
            await records.put("tag/c", {})
        with pytest.raises(NoRoom):
            await records.delete("tag/a")
        now[0] += 60
    assert records.get("tag/a") == {"digest": "x"}


async def test_when_there_is_room_records_are_kept_again(crowded: Crowded) -> None:
    records, foreign, now = crowded
    assert records.get("tag/a") == {"digest": "x"}
    foreign.unlink()
    with pytest.raises(NoRoom):  # it was tried a moment ago
        await records.put("tag/a", {"digest": "z"})
    now[0] += 1
    await records.put("tag/a", {"digest": "z"})
    assert not records.read_only
    assert records.get("tag/a") == {"digest": "z"}
    assert await records.delete("tag/a")
    assert records.get("tag/a") is None


@pytest.mark.parametrize("later", [0.0, 60.0], ids=["and can only be read here", "and can be written here"])
async def test_what_another_process_writes_is_seen(crowded: Crowded, disk: Path, later: float) -> None:
    """It found room; what was read before does not count any more."""
    records, foreign, now = crowded
    assert records.get("tag/c") is None
    foreign.unlink()
    written_elsewhere(disk, "tag/c")
    written_elsewhere(disk, "tag/a")
    now[0] += later
    async with asyncio.timeout(20):
        while records.get("tag/c") is None:  # what was read is remembered for a millisecond
            await asyncio.sleep(0.001)
    assert records.get("tag/a") == {"by": "another"}
    assert records.read_only == (later == 0)


async def test_records_that_were_never_made_are_not_read(disk: Path) -> None:
    fill_up(disk)
    with pytest.raises(StoreError, match="cannot open the records"):
        open_records(disk)
