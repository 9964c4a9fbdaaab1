"""The obligations of `entrepot.cache.interface`, held against every back end."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.embedded import open_blobs, open_records
from entrepot.cache.interface import BlobReader, BlobStore, DigestMismatch, NoRoom, Part, Records, StoreError, TooLarge
from entrepot.cache.layout import BLOCK
from entrepot.cache.memory import MemoryBlobs, MemoryRecords
from entrepot.cache.space import Limits
from entrepot.registry.digests import Digest

CONTENT = b"layer " * 10_000
DIGEST = Digest.of(CONTENT)
SHA512 = Digest.of(CONTENT, "sha512")


@pytest.fixture(params=["memory", "embedded"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return MemoryBlobs() if request.param == "memory" else open_blobs(tmp_path)


@pytest.fixture(params=["memory", "embedded"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    store: Records = MemoryRecords() if request.param == "memory" else open_records(tmp_path)
    yield store
    await store.close()


def claimed(blobs: BlobStore, digest: Digest = DIGEST) -> Part:
    part = blobs.claim(digest)
    assert part is not None
    return part


def everything(reader: BlobReader, start: int = 0) -> bytes:
    buffer, out = memoryview(bytearray(4096)), b""
    while n := reader.read(start + len(out), buffer):
        out += buffer[:n]
    reader.close()
    return out


def held(blobs: BlobStore, digest: Digest = DIGEST) -> bytes | None:
    opened = blobs.open(digest)
    if opened is None:
        return None
    size, reader = opened
    content = everything(reader)
    assert len(content) == size
    return content


class TestCommit:
    @pytest.mark.parametrize("digest", [DIGEST, SHA512], ids=lambda d: d.algorithm)
    def test_is_visible_after_commit_and_not_before(self, blobs: BlobStore, digest: Digest) -> None:
        part = claimed(blobs, digest)
        part.write(CONTENT[:100])
        assert held(blobs, digest) is None
        part.write(CONTENT[100:])
        part.verify()
        assert held(blobs, digest) is None
        part.commit()
        assert held(blobs, digest) == CONTENT

    @pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"<html>", b""])
    def test_wrong_bytes_are_never_visible(self, blobs: BlobStore, content: bytes) -> None:
        part = claimed(blobs)
        part.write(content)
        with pytest.raises(DigestMismatch, match=str(DIGEST)):
            part.commit()
        assert held(blobs) is None
        part.discard()
        assert claimed(blobs).load() == 0

    def test_an_empty_blob(self, blobs: BlobStore) -> None:
        empty = Digest.of(b"")
        claimed(blobs, empty).commit()
        assert held(blobs, empty) == b""

    def test_a_committed_digest_cannot_be_claimed(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        part.write(CONTENT)
        part.commit()
        assert blobs.claim(DIGEST) is None


class TestPart:
    def test_only_one_at_a_time(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        assert blobs.claim(DIGEST) is None
        part.release()
        assert blobs.claim(DIGEST) is not None

    def test_goes_on_where_an_earlier_one_stopped(self, blobs: BlobStore) -> None:
        first = claimed(blobs)
        first.write(CONTENT[:12_345])
        first.release()
        second = claimed(blobs)
        assert second.load() == second.offset == 12_345
        second.write(CONTENT[12_345:])
        second.commit()
        assert held(blobs) == CONTENT

    def test_a_bad_prefix_is_found_out(self, blobs: BlobStore) -> None:
        first = claimed(blobs)
        first.write(b"x" + CONTENT[1:100])
        first.release()
        second = claimed(blobs)
        second.load()
        second.write(CONTENT[100:])
        with pytest.raises(DigestMismatch):
            second.verify()

    def test_restart_keeps_the_right_and_drops_the_bytes(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        part.write(b"rubbish")
        part.restart()
        assert part.offset == 0
        assert blobs.claim(DIGEST) is None
        part.write(CONTENT)
        part.commit()
        assert held(blobs) == CONTENT

    def test_readers_see_what_is_written_and_outlive_the_commit(self, blobs: BlobStore) -> None:
        part, buffer = claimed(blobs), memoryview(bytearray(1000))
        reader = part.reader()
        assert reader.read(0, buffer) == 0
        part.write(CONTENT[:600])
        assert reader.read(0, buffer) == 600
        assert bytes(buffer[:600]) == CONTENT[:600]
        part.write(CONTENT[600:])
        part.commit()
        assert everything(reader, 100) == CONTENT[100:]

    def test_a_reader_does_not_keep_the_right(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        reader = part.reader()
        part.release()
        assert blobs.claim(DIGEST) is not None
        reader.close()

    def test_following(self, blobs: BlobStore) -> None:
        assert blobs.follow(DIGEST) is None
        part = claimed(blobs)
        part.write(CONTENT[:600])
        followed = blobs.follow(DIGEST)
        assert followed is not None
        assert followed[:2] == (600, None)
        followed[2].close()
        blobs.announce(DIGEST, len(CONTENT))
        followed = blobs.follow(DIGEST)
        assert followed is not None
        assert followed[:2] == (600, len(CONTENT))
        assert everything(followed[2]) == CONTENT[:600]
        part.release()
        assert blobs.follow(DIGEST) is None


class TestRoom:
    """DESIGN rule 10, as far as every back end has to keep it."""

    now = 1_000_000.0

    @pytest.fixture(params=["memory", "embedded"])
    def small(self, request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
        size = 10 * BLOCK
        if request.param == "memory":
            return MemoryBlobs(lambda: self.now, size)
        return FileBlobs(tmp_path, Limits(size=size, grace=1.0), clock=lambda: self.now)

    def test_too_large_and_no_room_are_told_apart(self, small: BlobStore) -> None:
        part, other = claimed(small), claimed(small, SHA512)
        with pytest.raises(TooLarge):
            part.reserve(11 * BLOCK)
        part.reserve(10 * BLOCK)
        with pytest.raises(NoRoom):
            other.reserve(1)
        assert not issubclass(TooLarge, NoRoom)
        assert not issubclass(NoRoom, TooLarge)
        assert issubclass(TooLarge, StoreError)
        part.discard()
        other.reserve(10 * BLOCK)

    def test_a_write_without_room_leaves_the_part_as_it_was(self, small: BlobStore) -> None:
        part, other = claimed(small), claimed(small, SHA512)
        other.reserve(8 * BLOCK)
        part.write(CONTENT[: 2 * BLOCK])
        with pytest.raises(NoRoom):
            part.write(CONTENT[2 * BLOCK : 3 * BLOCK])
        assert part.offset == 2 * BLOCK
        other.discard()
        part.write(CONTENT[2 * BLOCK : 3 * BLOCK])
        assert part.offset == 3 * BLOCK

    def test_the_least_recently_used_makes_room(self, small: BlobStore) -> None:
        digests = []
        for number in range(3):
            data = bytes([number]) * 3 * BLOCK
            digests.append(Digest.of(data))
            part = claimed(small, digests[-1])
            part.write(data)
            part.commit()
            self.now += 100
        small.touch(digests[0], self.now)
        self.now += 100
        claimed(small).reserve(4 * BLOCK)
        assert [held(small, digest) is not None for digest in digests] == [True, False, True]

    def test_bytes_left_for_later_count_and_make_room_when_asked(self, small: BlobStore) -> None:
        part = claimed(small)
        part.reserve(9 * BLOCK)
        part.write(CONTENT[:BLOCK])
        part.release()
        claimed(small, SHA512).reserve(9 * BLOCK)


class TestBlobs:
    def test_deleting_does_not_break_readers(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        part.write(CONTENT)
        part.commit()
        opened = blobs.open(DIGEST)
        assert opened is not None
        assert blobs.delete(DIGEST)
        assert held(blobs) is None
        assert everything(opened[1]) == CONTENT
        assert not blobs.delete(DIGEST)

    def test_iterate_and_touch(self, blobs: BlobStore) -> None:
        part = claimed(blobs)
        part.write(CONTENT)
        claimed(blobs, Digest.of(b"never finished"))
        assert list(blobs.iterate()) == []
        part.commit()
        blobs.touch(DIGEST, 1_000_000.0)
        (info,) = blobs.iterate()
        assert (info.digest, info.size, info.used) == (DIGEST, len(CONTENT), 1_000_000.0)


class TestRecords:
    async def test_what_is_put_is_got(self, records: Records) -> None:
        assert records.get("tag/a") is None
        await records.put("tag/a", {"digest": "sha256:1", "checked": 1.5})
        assert records.get("tag/a") == {"digest": "sha256:1", "checked": 1.5}
        await records.put("tag/a", {})
        assert records.get("tag/a") == {}
        assert await records.delete("tag/a")
        assert not await records.delete("tag/a")
        assert records.get("tag/a") is None

    async def test_bytes_and_documents_are_told_apart(self, records: Records) -> None:
        await records.put_bytes("manifest/x", b'{"schemaVersion":2}')
        assert records.get_bytes("manifest/x") == b'{"schemaVersion":2}'
        assert records.get("manifest/x") is None
        await records.put("tag/x", {"a": 1})
        assert records.get_bytes("tag/x") is None

    async def test_large_bytes(self, records: Records) -> None:
        body = bytes(range(256)) * (4 << 12)
        await records.put_bytes("manifest/big", body)
        assert records.get_bytes("manifest/big") == body

    async def test_a_record_expires(self, records: Records) -> None:
        await records.put("grant/a", {}, ttl=-1.0)
        await records.put("grant/b", {}, ttl=1000.0)
        assert records.get("grant/a") is None
        assert records.get("grant/b") == {}

    async def test_scan_gives_documents_by_prefix_in_order(self, records: Records) -> None:
        await records.put_many({"tag/b": {"n": 2}, "tag/a": {"n": 1}, "member/a": {"n": 3}})
        await records.put_bytes("tag/bytes", b"no document")
        assert list(records.scan("tag/")) == [("tag/a", {"n": 1}), ("tag/b", {"n": 2})]


@pytest.fixture
def two_processes(tmp_path: Path) -> Iterator[Callable[[], BlobStore]]:
    """Opens the embedded store anew, as another process would."""
    yield lambda: open_blobs(tmp_path)


def test_stores_on_one_directory_share_everything(two_processes: Callable[[], BlobStore]) -> None:
    one, other = two_processes(), two_processes()
    part = claimed(one)
    assert other.claim(DIGEST) is None
    part.write(CONTENT)
    assert other.follow(DIGEST) is not None
    part.commit()
    assert held(other) == CONTENT
