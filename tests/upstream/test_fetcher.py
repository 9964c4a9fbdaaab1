"""The fetching process and the workers that give it orders, over a real socket and one store (DESIGN rule 2).

Several `Transfers` on one directory stand for several processes: the flock is per open file, so they exclude each other
as processes do.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.upstream.scripted import CONTENT, DIGEST, PIECE, No, Upstream
from tests.upstream.test_transfer import finished, read

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.interface import NoRoom, StoreError
from entrepot.errors import EntrepotError
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.tasks import spawn
from entrepot.upstream.errors import Unreachable
from entrepot.upstream.fetch import TransferError
from entrepot.upstream.fetcher import Fetcher
from entrepot.upstream.news import hear, say
from entrepot.upstream.remote import Remote
from entrepot.upstream.sharing import SharedBandwidth
from entrepot.upstream.source import Effort
from entrepot.upstream.transfers import Transfers


class Box:
    """One store, one fetching process that can be ended and started again, any number of workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upstreams: dict[str, Upstream] = {}  # what the fetching process makes of an order's source
        self.transfers = Transfers(FileBlobs(folder))
        self.patience = 0.0
        self.granted: list[tuple[str, int]] = []
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stop = asyncio.Event()
        self.transfers = Transfers(FileBlobs(self.folder))
        fetcher = Fetcher(self.transfers, self._source, _failed, self._grant, mine=No)
        ready = asyncio.Event()
        self._serving = spawn(fetcher.serve(self.folder / "sock", ready.set, self._stop, 0.0), name="fetcher")
        await ready.wait()

    async def end(self) -> None:
        """As if killed: nothing is said to anybody."""
        self._stop.set()
        if self._serving is not None:
            await self._serving
        await self.transfers.close()

    def worker(self) -> Transfers:
        return Transfers(FileBlobs(self.folder), remote=Remote(self.folder / "sock", _restored, patience=self.patience))

    def upstream(self, **more: object) -> Upstream:
        made = Upstream(name=f"upstream-{len(self.upstreams)}", **more)  # type: ignore[arg-type]
        self.upstreams[made.name] = made
        return made

    def here(self, upstream: Upstream) -> Upstream:
        """The same source as the worker has it: it must not be asked there."""
        return Upstream(name=upstream.name, script=[No("asked by the worker")] * 9)

    def _source(self, order: Mapping[str, object]) -> Upstream:
        return self.upstreams[str(order["name"])]

    async def _grant(self, registry: str, wanted: int) -> int:
        self.granted.append((registry, wanted))
        return min(wanted, 1000)


def _failed(error: EntrepotError) -> Mapping[str, object]:
    return {"kind": type(error).__name__, "text": str(error)}


def _restored(document: Mapping[str, object]) -> EntrepotError:
    kinds: dict[str, Callable[[str], EntrepotError]] = {"No": No, "NoRoom": NoRoom, "TransferError": TransferError}
    return kinds.get(str(document["kind"]), TransferError)(str(document["text"]))


async def until(condition: Callable[[], bool]) -> None:
    """For what has no event of its own."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    monkeypatch.setattr("entrepot.upstream.fetch.BACK_OFF", (0.0,) * 5)
    made = Box(tmp_path)
    await made.start()
    yield made
    await made.end()


async def test_a_worker_has_it_fetched_and_reads_along(box: Box) -> None:
    upstream = box.upstream(hold=asyncio.Event())
    assert upstream.hold is not None
    worker, mine = box.worker(), box.here(upstream)
    transfer, _ = worker.join(DIGEST, mine, None)
    assert await transfer.wait(PIECE - 2)
    assert (transfer.size, transfer.verified) == (len(CONTENT), False)
    assert mine.accepted
    upstream.hold.set()
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert (upstream.opened, mine.opened) == ([0], [])
    assert FileBlobs(box.folder).open(DIGEST) is not None


async def test_workers_share_one_transfer(box: Box) -> None:
    upstream, another = box.upstream(hold=asyncio.Event()), box.upstream()
    assert upstream.hold is not None
    workers = [box.worker() for _ in range(3)]
    first, _ = workers[0].join(DIGEST, box.here(upstream), None)
    await first.wait(PIECE - 2)
    mine = box.here(another)
    rest = [worker.join(DIGEST, mine, None)[0] for worker in workers[1:]]
    for transfer in rest:
        await transfer.wait(PIECE - 2)
    assert not mine.accepted  # upstream was asked in another name
    upstream.hold.set()
    assert [await read(transfer) for transfer in (first, *rest)] == [CONTENT] * 3
    for worker in workers:
        await finished(worker)
    assert (upstream.opened, another.opened) == ([0], [])


async def test_the_last_byte_is_withheld_until_it_is_verified(box: Box) -> None:
    upstream = box.upstream(content=b"x" + CONTENT[1:])
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(upstream), None)
    with pytest.raises(TransferError):
        await read(transfer)
    assert transfer.available == len(CONTENT) - 1
    await finished(worker)
    assert FileBlobs(box.folder).open(DIGEST) is None


async def test_a_death_of_the_fetching_process_is_noticed_by_nobody(box: Box) -> None:
    """The worker goes on by itself, from the last byte on disk."""
    upstream = box.upstream(hold=asyncio.Event())
    worker, mine = box.worker(), Upstream(name=upstream.name)
    transfer, _ = worker.join(DIGEST, mine, None)
    assert await transfer.wait(PIECE - 2)
    await box.end()
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert mine.opened == [PIECE]


async def test_a_successor_goes_on(box: Box) -> None:
    """It is waited for, and fetches from the last byte on disk; the worker never does."""
    box.patience = 20.0
    upstream = box.upstream(hold=asyncio.Event())
    worker, mine = box.worker(), box.here(upstream)
    transfer, _ = worker.join(DIGEST, mine, None)
    for n in range(1, 4):
        assert await transfer.wait(PIECE * n - 2)
        await box.end()
        await asyncio.sleep(0)
        await box.start()
    upstream.hold = None
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert upstream.opened == [0, PIECE, 2 * PIECE, 3 * PIECE]
    assert mine.opened == []


async def test_a_successor_is_told_of_what_was_offered(box: Box) -> None:
    """The credential that began it may have ended meanwhile."""
    box.patience = 20.0
    expired = box.upstream(script=[len(CONTENT), No("401")], hold=asyncio.Event())
    good = box.upstream()
    worker, mine = box.worker(), box.here(expired)
    transfer, _ = worker.join(DIGEST, mine, None)
    await transfer.wait(PIECE - 2)
    transfer.offer(box.here(good))
    await box.end()
    await asyncio.sleep(0)
    await box.start()
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert (expired.opened, good.opened, mine.opened) == ([0, PIECE], [PIECE], [])


async def test_what_is_offered_at_once_is_told_at_once(box: Box) -> None:
    """Also when the one it is for is refused before anything else could be said."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # as under mitmproxy's master
    expired, good = box.upstream(script=[No("401")]), box.upstream()
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(expired), None)
    transfer.offer(box.here(good))
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert (expired.opened, good.opened) == ([0], [0])


async def test_without_a_fetching_process_the_worker_does_it(box: Box) -> None:
    await box.end()
    worker, mine = box.worker(), Upstream()
    assert await read(worker.join(DIGEST, mine, None)[0]) == CONTENT
    await finished(worker)
    assert mine.opened == [0]


async def test_a_refusal_reaches_whose_credential_it_was(box: Box) -> None:
    bad, good = box.upstream(script=[No("401 for a bad one")]), box.upstream()
    one, two = box.worker(), box.worker()
    refused, _ = one.join(DIGEST, box.here(bad), None)
    with pytest.raises(No, match="401 for a bad one"):
        await refused.opened()
    assert await read(two.join(DIGEST, box.here(good), None)[0]) == CONTENT
    await finished(one)
    await finished(two)


async def test_a_refusal_of_another_is_not_passed_on(box: Box) -> None:
    """Both wait for one answer, and the credential that was used is refused: the other's is used then."""
    gate = asyncio.Event()

    class Waiting(Upstream):
        @asynccontextmanager
        async def open(self, offset: int, stop: int | None = None) -> AsyncIterator[object]:  # type: ignore[override]
            await gate.wait()
            raise No("401")
            yield

    box.upstreams["bad"] = Waiting(name="bad")
    good = box.upstream()
    one, two = box.worker(), box.worker()
    refused, _ = one.join(DIGEST, Upstream(name="bad"), None)
    await until(lambda: len(box.transfers) > 0)
    mine = box.here(good)
    served, _ = two.join(DIGEST, mine, None)
    bad_one = box.transfers.running(DIGEST)
    assert bad_one is not None
    await until(lambda: len(bad_one._sources) > 1)
    gate.set()
    assert await read(served) == CONTENT
    await finished(two)
    await finished(one)
    assert refused.verified or isinstance(refused.error, No)


async def test_a_source_offered_later_takes_over(box: Box) -> None:
    expired = box.upstream(script=[PIECE, No("401")], hold=asyncio.Event())
    assert expired.hold is not None
    good = box.upstream()
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(expired), None)
    await transfer.wait(PIECE - 2)
    transfer.offer(box.here(good))
    running = box.transfers.running(DIGEST)
    assert running is not None
    await until(lambda: len(running._sources) > 1)
    expired.hold.set()
    assert await read(transfer) == CONTENT
    await finished(worker)
    assert good.opened == [PIECE]


async def test_what_fails_there_is_raised_here(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FileBlobs, digest: Digest) -> None:
        raise NoRoom("no room at all")

    monkeypatch.setattr(FileBlobs, "claim", full)
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(box.upstream()), None)
    with pytest.raises(StoreError, match="no room at all"):
        await transfer.opened()
    await finished(worker)


async def test_who_waits_there_is_known_here(box: Box) -> None:
    """A transfer that no client of any worker waits for ends when the policy says so."""
    upstream = box.upstream(hold=asyncio.Event(), piece=1000)
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(upstream), None)
    await transfer.opened()
    running = box.transfers.running(DIGEST)
    assert running is not None
    box.transfers.effort = Effort(fill_alone=False)
    with transfer.waiting():
        await until(lambda: running._waiters > 0)
    await until(lambda: not running._waiters)
    await worker.close()


async def test_how_far_it_is_is_told_only_where_somebody_waits(box: Box) -> None:
    upstream = box.upstream(hold=asyncio.Event())
    assert upstream.hold is not None
    reader, writer = await asyncio.open_unix_connection(str(box.folder / "sock"))
    say(writer, {"digest": str(DIGEST), "size": None, "source": {"name": upstream.name}, "others": []})
    assert await hear(reader) == {"opened": len(CONTENT), "accepted": True}
    while await hear(reader) != {"at": PIECE - 1}:
        pass
    running = box.transfers.running(DIGEST)
    assert running is not None
    say(writer, {"waiting": False})
    await until(lambda: not running._waiters)
    say(writer, {"waiting": True})
    assert await hear(reader) == {"at": PIECE - 1}  # it may have missed something
    say(writer, {"waiting": False})
    await until(lambda: not running._waiters)
    upstream.hold.set()
    assert await hear(reader) == {"done": len(CONTENT)}
    writer.close()
    await writer.wait_closed()


async def test_a_worker_that_dies_leaves_no_waiter_behind(box: Box) -> None:
    upstream = box.upstream(hold=asyncio.Event())
    assert upstream.hold is not None
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(upstream), None)
    transfer.arrive()
    await transfer.opened()
    running = box.transfers.running(DIGEST)
    assert running is not None
    await worker.close()
    await until(lambda: not running._waiters)
    upstream.hold.set()
    await finished(box.transfers)
    assert running.verified  # and the transfer goes on


async def test_an_order_that_makes_no_sense_ends_its_connection_only(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = b'{"digest":"sha256:x","size":1,"source":{},"others":[]}\n'
    for order in (b"{}\n", b"nonsense\n", unknown, b'{"pace":1,"bytes":2}\n'):
        reader, writer = await asyncio.open_unix_connection(str(box.folder / "sock"))
        writer.write(order)
        assert await reader.read() == b""
        writer.close()
    assert caplog.text.count("an order that makes no sense") == 3  # what is no line of ours is a peer that died
    assert await read(box.worker().join(DIGEST, box.here(box.upstream()), None)[0]) == CONTENT
    await finished(box.transfers)


async def test_the_socket_is_for_its_owner(box: Box) -> None:
    assert (box.folder / "sock").stat().st_mode & 0o077 == 0


async def test_bytes_past_the_store_keep_to_the_caps_of_the_box(box: Box) -> None:
    registry = Catalogue.builtin().registry("quay.io")
    assert registry is not None

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, 5000, 2500):
            yield CONTENT[at : at + 2500]

    shared = SharedBandwidth(Remote(box.folder / "sock", _restored))
    assert b"".join([piece async for piece in shared.pace(registry, chunks())]) == CONTENT[:5000]
    assert box.granted == []  # there is no cap
    shared.reconfigure(10**9, 1)
    assert b"".join([piece async for piece in shared.pace(registry, chunks())]) == CONTENT[:5000]
    assert [wanted for _, wanted in box.granted] == [2500, 1500, 500] * 2
    await box.end()
    assert b"".join([piece async for piece in shared.pace(registry, chunks())]) == CONTENT[:5000]


async def test_an_upstream_that_is_away_is_told(box: Box) -> None:
    gone = Unreachable("quay.io", "refused")
    upstream = box.upstream(script=[gone] * 9)
    worker = box.worker()
    transfer, _ = worker.join(DIGEST, box.here(upstream), None)
    with pytest.raises(TransferError, match="refused"):
        await transfer.opened()
    await finished(worker)


async def test_refusals_of_all_others_are_not_passed_on(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """More others than are kept in case one is refused: the good one starts anew."""
    monkeypatch.setattr("entrepot.upstream.transfer.MAX_SOURCES", 1)
    gate = asyncio.Event()

    class Waiting(Upstream):
        @asynccontextmanager
        async def open(self, offset: int, stop: int | None = None) -> AsyncIterator[object]:  # type: ignore[override]
            await gate.wait()
            raise No("401")
            yield

    box.upstreams["bad"] = Waiting(name="bad")
    good = box.upstream()
    one, two = box.worker(), box.worker()
    refused, _ = one.join(DIGEST, Upstream(name="bad"), None)
    await until(lambda: len(box.transfers) > 0)
    running = box.transfers.running(DIGEST)
    assert running is not None
    served, _ = two.join(DIGEST, box.here(good), None)
    await until(lambda: running._waiters > 1)
    gate.set()
    assert await read(served) == CONTENT
    with pytest.raises(No):
        await refused.ended()
    await finished(two)
    await finished(one)
