"""One fetch, over all waiters and processes (DESIGN rules 1 and 2).

Two stores on one directory stand for two processes: the flock is per open file, so they exclude each other as
processes do.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.upstream.scripted import CONTENT, DIGEST, PIECE, No, Upstream

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.interface import DigestMismatch
from entrepot.registry.digests import Digest
from entrepot.upstream.errors import Unreachable
from entrepot.upstream.fetch import Abandoned, TransferError
from entrepot.upstream.source import Effort
from entrepot.upstream.transfer import LINGER, Transfer
from entrepot.upstream.transfers import Transfers


async def read(transfer: Transfer, start: int = 0) -> bytes:
    await transfer.opened()
    out, buffer = b"", memoryview(bytearray(50_000))
    while await transfer.wait(start + len(out)):
        room = transfer.available - start - len(out)
        n = transfer.reader.read(start + len(out), buffer[: min(room, len(buffer))])
        out += buffer[:n]
    return out


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], FileBlobs]:
    return lambda: FileBlobs(tmp_path)


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.upstream.fetch.BACK_OFF", (0.0,) * 5)
    monkeypatch.setattr("entrepot.upstream.transfer.FOLLOW_INTERVAL", 0.001)


async def finished(transfers: Transfers, digest: Digest = DIGEST) -> None:
    while transfers.running(digest):
        await asyncio.sleep(0)


async def test_all_waiters_read_one_transfer(store: Callable[[], FileBlobs]) -> None:
    transfers, upstream = Transfers(store()), Upstream()
    joined = [transfers.join(DIGEST, upstream, None) for _ in range(10)]
    assert [mine for _, mine in joined] == [True] + [False] * 9
    assert {await read(transfer) for transfer, _ in joined} == {CONTENT}
    await finished(transfers)
    assert upstream.opened == [0]
    assert upstream.open_now == 0


async def test_bytes_are_given_out_as_they_come_but_the_last(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(hold=asyncio.Event())
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    assert await transfer.wait(PIECE - 2)
    assert (transfer.available, transfer.size) == (PIECE - 1, len(CONTENT))
    assert upstream.hold is not None
    upstream.hold.set()
    assert await read(transfer) == CONTENT
    await finished(transfers)


async def test_processes_share_one_transfer(store: Callable[[], FileBlobs]) -> None:
    upstream, other = Upstream(hold=asyncio.Event()), Upstream()
    one, two = Transfers(store()), Transfers(store())
    leading, _ = one.join(DIGEST, upstream, None)
    await leading.opened()
    following, _ = two.join(DIGEST, other, None)
    await following.opened()
    assert following.size == len(CONTENT)
    assert await following.wait(PIECE - 2)
    assert not following.verified
    assert upstream.hold is not None
    upstream.hold.set()
    assert await read(following) == await read(leading) == CONTENT
    await finished(one)
    await finished(two)
    assert (upstream.opened, other.opened) == ([0], [])


async def test_a_follower_takes_over_from_the_last_byte(store: Callable[[], FileBlobs]) -> None:
    upstream, other = Upstream(hold=asyncio.Event()), Upstream()
    one, two = Transfers(store()), Transfers(store())
    leading, _ = one.join(DIGEST, upstream, None)
    await leading.wait(PIECE - 2)
    following, _ = two.join(DIGEST, other, None)
    await following.opened()
    await one.close()  # the leader's process ends
    assert await read(following) == CONTENT
    assert other.opened == [PIECE]
    await finished(two)


async def test_a_broken_body_is_resumed_as_long_as_it_brings_bytes(store: Callable[[], FileBlobs]) -> None:
    cuts = [PIECE] * 20
    upstream = Upstream(script=[*cuts, 5])
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    assert await read(transfer) == CONTENT
    assert upstream.opened == [PIECE * n for n in range(21)] + [PIECE * 20 + 5]
    await finished(transfers)


async def test_an_ignored_range_is_skipped_over(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(script=[15_000], ignore_range=True)
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    assert await read(transfer) == CONTENT
    await finished(transfers)


async def test_what_brings_nothing_is_given_up_and_its_bytes_are_kept(store: Callable[[], FileBlobs]) -> None:
    gone = Unreachable("quay.io", "refused")
    upstream = Upstream(script=[PIECE, *[gone] * 5])
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(Unreachable):
        await read(transfer)
    await finished(transfers)
    again = Upstream()
    transfer, _ = transfers.join(DIGEST, again, None)
    assert await read(transfer) == CONTENT
    assert again.opened == [PIECE]
    await finished(transfers)


async def test_an_end_short_of_the_size_is_not_an_end(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(content=CONTENT[:100], total=None)
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, len(CONTENT))  # a manifest told the size
    with pytest.raises(TransferError, match="100 of 256000 bytes"):
        await read(transfer)
    await finished(transfers)


async def test_wrong_bytes_are_dropped_the_last_one_withheld_and_all_fetched_once_more(
    store: Callable[[], FileBlobs], caplog: pytest.LogCaptureFixture
) -> None:
    blobs, upstream = store(), Upstream(content=b"x" + CONTENT[1:])
    transfers = Transfers(blobs)
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(DigestMismatch):
        await read(transfer)
    assert transfer.available == len(CONTENT) - 1
    assert blobs.open(DIGEST) is None
    upstream.content = CONTENT
    await finished(transfers)
    assert upstream.opened == [0, 0]
    assert blobs.open(DIGEST) is not None
    assert f"wrong bytes registry=quay.io digest={DIGEST} size=256000 received=256000 try=1" in caplog.text


async def test_bytes_that_stay_wrong_are_given_up(store: Callable[[], FileBlobs], tmp_path: Path) -> None:
    upstream = Upstream(content=b"x" + CONTENT[1:])
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(DigestMismatch):
        await read(transfer)
    await finished(transfers)
    assert upstream.opened == [0, 0]
    assert not list((tmp_path / "incoming").glob("*.part"))
    right = Upstream()
    transfer, _ = transfers.join(DIGEST, right, None)
    assert await read(transfer) == CONTENT
    await finished(transfers)


@pytest.mark.parametrize("total", [len(CONTENT) - 1, len(CONTENT) + 1])
async def test_a_size_that_contradicts_the_manifest(store: Callable[[], FileBlobs], total: int) -> None:
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, Upstream(total=total), len(CONTENT))
    with pytest.raises(DigestMismatch, match="announced"):
        await read(transfer)
    await finished(transfers)


async def test_a_refusal_ends_it_at_once_and_leaves_nothing(store: Callable[[], FileBlobs], tmp_path: Path) -> None:
    upstream = Upstream(script=[No("no")])
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(No):
        await transfer.opened()
    await finished(transfers)
    assert upstream.opened == [0]
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_an_upstream_that_is_away_is_told_soon(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(script=[Unreachable("quay.io", "refused")] * 9)
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(Unreachable):
        await transfer.opened()
    await finished(transfers)
    assert len(upstream.opened) == 2


async def test_a_committed_blob_needs_no_upstream(store: Callable[[], FileBlobs]) -> None:
    blobs = store()
    transfers, first, second = Transfers(blobs), Upstream(), Upstream()
    assert await read(transfers.join(DIGEST, first, None)[0]) == CONTENT
    await finished(transfers)
    assert await read(transfers.join(DIGEST, second, None)[0], 1000) == CONTENT[1000:]
    await finished(transfers)
    assert second.opened == []


async def test_a_body_of_unknown_size(store: Callable[[], FileBlobs]) -> None:
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, Upstream(total=None), None)
    assert await read(transfer) == CONTENT
    await finished(transfers)


async def test_a_cancelled_waiter_disturbs_nobody(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(hold=asyncio.Event())
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, upstream, None)
    waiters = [asyncio.ensure_future(read(transfer)) for _ in range(3)]
    await transfer.opened()
    waiters[0].cancel()
    assert upstream.hold is not None
    upstream.hold.set()
    assert await asyncio.gather(*waiters[1:]) == [CONTENT, CONTENT]
    await finished(transfers)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_another_admitted_credential_takes_over_when_the_first_is_refused(
    store: Callable[[], FileBlobs],
) -> None:
    expired, good = Upstream(script=[PIECE, No("401")]), Upstream()
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, expired, None)
    transfer.offer(good)
    assert await read(transfer) == CONTENT
    await finished(transfers)
    assert (expired.opened, good.opened) == ([0, PIECE], [PIECE])


async def test_the_last_refusal_ends_it_and_keeps_what_is_there(store: Callable[[], FileBlobs]) -> None:
    transfers = Transfers(store())
    transfer, _ = transfers.join(DIGEST, Upstream(script=[PIECE, No("401")]), None)
    transfer.offer(Upstream(script=[No("403")]))
    with pytest.raises(No, match="403"):
        await read(transfer)
    await finished(transfers)
    again = Upstream()
    assert await read(transfers.join(DIGEST, again, None)[0]) == CONTENT
    assert again.opened == [PIECE]
    await finished(transfers)


@pytest.mark.parametrize(
    ("good_part", "fill_alone", "goes_on"), [(False, True, False), (True, True, True), (True, False, False)]
)
async def test_what_nobody_waits_for(
    store: Callable[[], FileBlobs], good_part: bool, fill_alone: bool, goes_on: bool
) -> None:
    """It goes on for a while; then only if a good part is in and the policy says so. What is there stays."""
    clock = Clock()
    piece = len(CONTENT) // 5 if good_part else len(CONTENT) // 50
    upstream = Upstream(hold=asyncio.Event(), piece=piece)
    assert upstream.hold is not None
    transfers = Transfers(store(), clock=clock)
    transfers.effort = Effort(fill_alone=fill_alone)
    transfer, _ = transfers.join(DIGEST, upstream, len(CONTENT))
    with transfer.waiting():
        await transfer.wait(piece - 2)
        clock.now += 2 * LINGER
    clock.now += LINGER - 1
    assert transfer.is_wanted
    clock.now += 2
    upstream.hold.set()
    await finished(transfers)
    assert transfer.verified == goes_on
    assert isinstance(transfer.error, Abandoned) != goes_on
    again = Upstream()
    assert await read(transfers.join(DIGEST, again, None)[0]) == CONTENT
    assert again.opened == ([] if goes_on else [2 * piece])
    await finished(transfers)


async def test_who_waits_in_time_keeps_it_going(store: Callable[[], FileBlobs]) -> None:
    clock = Clock()
    upstream = Upstream(hold=asyncio.Event(), piece=1000)
    assert upstream.hold is not None
    transfers = Transfers(store(), clock=clock)
    transfer, _ = transfers.join(DIGEST, upstream, len(CONTENT))
    await transfer.opened()
    clock.now += LINGER - 1
    transfer.arrive()
    clock.now += 10 * LINGER
    upstream.hold.set()
    await finished(transfers)
    assert transfer.verified


async def test_as_many_attempts_as_the_policy_says(store: Callable[[], FileBlobs]) -> None:
    upstream = Upstream(script=[PIECE, *[Unreachable("quay.io", "refused")] * 20])
    transfers = Transfers(store())
    transfers.effort = Effort(attempts=9)
    transfer, _ = transfers.join(DIGEST, upstream, None)
    with pytest.raises(Unreachable):
        await read(transfer)
    await finished(transfers)
    assert upstream.opened == [0, *[PIECE] * 9]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fetch", "windows"):
        monkeypatch.setattr(f"entrepot.upstream.{module}.WINDOW", 2 * PIECE)
    monkeypatch.setattr("entrepot.upstream.pace.LARGE", 1000)
    monkeypatch.setattr("entrepot.upstream.pace.REST", 1000)


def slow(upstream: Upstream, clock: Clock) -> Upstream:
    """One connection brings a piece a second, several bring several."""

    def arrived(size: int) -> None:
        clock.now += size / PIECE / max(1, upstream.open_now)

    upstream.arrived = arrived
    return upstream


@pytest.mark.usefixtures("small_windows")
async def test_a_slow_connection_is_helped_by_others(store: Callable[[], FileBlobs]) -> None:
    clock = Clock()
    upstream = slow(Upstream(parallel=True), clock)
    transfers = Transfers(store(), connections=4, clock=clock)
    transfer, _ = transfers.join(DIGEST, upstream, None)
    assert await read(transfer) == CONTENT
    await finished(transfers)
    assert upstream.opened[0] == 0
    assert upstream.most_open >= 3
    assert all(stop is not None for _, stop in upstream.asked[1:])
    assert transfer.received == len(CONTENT)  # no byte twice
    assert upstream.open_now == 0


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("upstream", [Upstream(), Upstream(parallel=True, ranges=False)])
async def test_no_ranges_where_they_are_not_welcome(store: Callable[[], FileBlobs], upstream: Upstream) -> None:
    clock = Clock()
    transfers = Transfers(store(), connections=4, clock=clock)
    transfer, _ = transfers.join(DIGEST, slow(upstream, clock), None)
    assert await read(transfer) == CONTENT
    await finished(transfers)
    assert upstream.asked == [(0, None)]


@pytest.mark.usefixtures("small_windows")
async def test_one_connection_goes_on_when_ranges_go_wrong(store: Callable[[], FileBlobs]) -> None:
    clock = Clock()
    upstream = slow(Upstream(parallel=True, shift=7), clock)
    transfers = Transfers(store(), connections=4, clock=clock)
    transfer, _ = transfers.join(DIGEST, upstream, None)
    assert await read(transfer) == CONTENT
    await finished(transfers)
    whole = [offset for offset, stop in upstream.asked if stop is None]
    assert len(whole) == 2
    assert transfer.received == len(CONTENT)


@pytest.mark.usefixtures("small_windows")
async def test_ranges_end_with_the_transfer(store: Callable[[], FileBlobs]) -> None:
    clock = Clock()
    upstream = slow(Upstream(parallel=True), clock)
    transfers = Transfers(store(), connections=4, clock=clock)
    transfers.join(DIGEST, upstream, None)
    async with asyncio.timeout(20):
        while upstream.open_now < 2:
            await asyncio.sleep(0)
    await transfers.close()
    assert upstream.open_now == 0
