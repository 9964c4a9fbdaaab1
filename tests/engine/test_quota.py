"""Throttled registries and capped bandwidth, through the engine (DESIGN rule 6)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.engine.test_engine import ACCEPT, BAD, GOOD, Bench, Clock, content, settled
from tests.fakes.images import Image, push_image
from tests.fakes.registry import Fault, Quota, running

from entrepot.cache.memory import MemoryBlobs, MemoryRecords
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Answer
from entrepot.engine.policy import Policy
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.digests import Digest
from entrepot.registry.entries import HEAD_IS_FREE
from entrepot.upstream.bandwidth import BURST, Bandwidth
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.transfers import Transfers

POLICY = Policy(tag=60.0, access=300.0, prefetch=False)
RATE = 1_000_000  # bytes per second


@dataclass
class Pause:
    """Stands for `asyncio.sleep` and a clock: time passes only here."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@dataclass
class Throttled(Bench):
    pause: Pause = field(default_factory=Pause)

    async def pull(self, *headers: tuple[str, str], method: str = "GET") -> Answer:
        """The tag; drops the body."""
        answer = await self.ask(method, self.manifest("1"), ACCEPT, *headers)
        await content(answer)
        return answer

    async def pulled_once(self, *headers: tuple[str, str]) -> None:
        """The tag is held and its record old."""
        assert (await self.pull(*headers)).verdict == "miss"
        self.clock.now += 61
        self.registry.forget()

    def heads_are_free(self) -> None:
        object.__setattr__(self.known, "quirks", frozenset({HEAD_IS_FREE}))


@pytest.fixture
async def bench() -> AsyncIterator[Throttled]:
    async with running() as registry:
        image = push_image(registry, "org/app")
        found = Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream=registry.url)])
        known = found.registries()[0]
        clock, pause = Clock(), Pause()
        blobs, records = MemoryBlobs(clock), MemoryRecords(clock)
        client = UpstreamClient(
            ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=clock)
        )
        transfers = Transfers(blobs)
        bandwidth = Bandwidth(clock=lambda: pause.now, sleep=pause.sleep)
        engine = Engine(
            blobs, records, client, transfers, key=b"k" * 32, policy=POLICY, clock=clock, bandwidth=bandwidth
        )
        yield Throttled(registry, engine, blobs, transfers, known, clock, image, pause=pause)
        await transfers.close()
        await engine.close()
        await client.aclose()


def check_stale(answer: Answer, digest: Digest, why: str, age: int = 61) -> None:
    assert (answer.status, answer.verdict, answer.why) == (200, "stale", why)
    assert answer.headers.get("docker-content-digest") == str(digest)
    assert answer.headers.get("age") == str(age)
    assert answer.headers.get("warning", "").startswith("111 ")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
class TestTagsThatAreHeld:
    @pytest.mark.parametrize(
        ("status", "why"),
        [
            (429, "upstream throttles"),
            (500, "upstream is in trouble"),
            (503, "upstream is in trouble"),
            (521, "upstream is in trouble"),
        ],
    )
    async def test_a_refused_check_is_not_passed_on(self, bench: Throttled, method: str, status: int, why: str) -> None:
        await bench.pulled_once()
        bench.registry.faults.append(Fault(method="HEAD", status=status))
        check_stale(await bench.pull(method=method), bench.image.index, why)
        assert bench.registry.requests() == ["HEAD /v2/org/app/manifests/1"]  # and no GET that would cost

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_a_verdict_is(self, bench: Throttled, method: str, status: int) -> None:
        await bench.pulled_once()
        bench.registry.faults.append(Fault(status=status, count=10))
        answer = await bench.pull(method=method)
        assert (answer.status, answer.verdict) == (status, "refused")

    async def test_while_throttled_nothing_is_asked(self, bench: Throttled, method: str) -> None:
        await bench.pulled_once()
        bench.registry.faults.append(Fault(status=429, headers={"Retry-After": "100"}))
        await bench.pull(method=method)
        bench.registry.forget()
        bench.clock.now += 99
        check_stale(await bench.pull(method=method), bench.image.index, "quota of upstream is short", 160)
        assert bench.registry.requests() == []
        bench.clock.now += 1
        assert (await bench.pull(method=method)).verdict == "revalidated"

    async def test_a_fetch_that_is_throttled(self, bench: Throttled, method: str) -> None:
        """HEADs tell of a new digest, GETs are used up: what is held is the best there is, now and later."""
        bench.heads_are_free()
        bench.registry.quota = Quota(limit=1)
        await bench.pulled_once()
        moved = push_image(bench.registry, "org/app", layers=(b"new",))
        if method == "GET":
            check_stale(await bench.pull(), bench.image.index, "upstream throttles")
        else:  # as docker does: what the HEAD has told is asked for by digest
            head = await bench.pull(method="HEAD")
            assert head.headers.get("docker-content-digest") == str(moved.index)
            answer, _ = await bench.get(bench.manifest(moved.index), ACCEPT)
            assert answer.status == 429
        check_stale(await bench.pull(method=method), bench.image.index, "quota of upstream is short")
        answer, _ = await bench.get(bench.manifest(bench.image.index), ACCEPT)
        assert answer.verdict == "hit"
        bench.registry.quota = None
        bench.clock.now += 61
        assert (await bench.pull()).headers.get("docker-content-digest") == str(moved.index)
        bench.registry.forget()
        assert (await bench.pull(method=method)).verdict == "hit"  # and the move is remembered

    async def test_only_for_those_who_were_let_in(self, bench: Throttled, method: str) -> None:
        """DESIGN rule 3: throttled or not, what is held is for those the registry has let in."""
        bench.registry.private.add("org/app")
        await bench.pulled_once(GOOD)
        bench.registry.faults.append(Fault(status=429, headers={"Retry-After": "9"}, count=9))
        for credential in ([], [BAD]):
            answer = await bench.pull(*credential, method=method)
            assert (answer.status, answer.verdict) == (429, "refused")
            assert answer.headers.get("retry-after") == "9"

    async def test_a_record_whose_manifest_is_gone(self, bench: Throttled, method: str) -> None:
        await bench.pull(method="HEAD")  # a record, no manifest
        bench.clock.now += 61
        bench.registry.faults.append(Fault(status=429, count=2))
        assert (await bench.pull(method=method)).status == 429


async def test_a_registry_without_heads_and_a_throttled_get(bench: Throttled) -> None:
    await bench.pulled_once()
    bench.registry.faults += [Fault(method="HEAD", status=405), Fault(method="GET", status=429)]
    check_stale(await bench.pull(), bench.image.index, "upstream throttles")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_not_held_is_refused_in_upstream_s_words(bench: Throttled, method: str, status: int) -> None:
    for target in (
        bench.manifest("1"),
        bench.manifest(bench.image.manifest),
        bench.blob(bench.image.layers[1]),
    ):
        bench.registry.faults[:] = [Fault(status=status, headers={"Retry-After": "17"}, count=2)]
        answer = await bench.ask(method, target, ACCEPT)
        assert (answer.status, answer.verdict) == (status, "refused"), target
        assert answer.headers.get("retry-after") == "17"
        if method == "GET":
            assert b"FAULT" in await content(answer)
        bench.registry.faults.clear()
        answer = await bench.ask(method, target, ACCEPT)  # a client's miss is never held back
        assert answer.status == 200
        await content(answer)


@pytest.mark.parametrize(("left", "asked"), [(6, True), (5, False)])
async def test_the_last_of_a_quota_is_kept_for_misses(bench: Throttled, left: int, asked: bool) -> None:
    bench.registry.quota = Quota(limit=100, spent=99 - left)
    await bench.pulled_once()
    answer = await bench.pull()
    assert answer.verdict == ("revalidated" if asked else "stale")
    assert bool(bench.registry.requests()) is asked
    answer, _ = await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
    assert answer.verdict == "miss"


async def test_checks_that_cost_nothing_go_on(bench: Throttled) -> None:
    bench.heads_are_free()
    bench.registry.quota = Quota(limit=1)
    await bench.pulled_once()
    assert (await bench.pull()).verdict == "revalidated"
    assert bench.engine.quotas.snapshot(bench.clock.now)["registry.test"]["remaining"] == 0


class TestPrefetch:
    LAYERS = tuple(bytes([n]) * 1000 for n in range(5))

    async def first_layer(self, bench: Throttled) -> tuple[Image, list[str]]:
        """What is asked for when a client fetches the first layer of an image."""
        bench.engine.reconfigure(Policy())
        image = push_image(bench.registry, "big/app", layers=self.LAYERS)
        await bench.get(bench.manifest(image.manifest, "big/app"), ACCEPT)
        answer, _ = await bench.get(bench.blob(image.layers[0], "big/app"))
        assert answer.verdict == "miss"
        await settled(bench)
        return image, bench.registry.requests("/blobs/")

    @pytest.mark.parametrize(("left", "fetched"), [(21, 6), (20, 1)])
    async def test_it_stops_before_the_checks_do(self, bench: Throttled, left: int, fetched: int) -> None:
        bench.registry.quota = Quota(limit=100, spent=99 - left)
        _, asked = await self.first_layer(bench)
        assert len(asked) == fetched

    async def test_blobs_that_cost_nothing_are_fetched(self, bench: Throttled) -> None:
        bench.heads_are_free()
        bench.registry.quota = Quota(limit=1)
        _, asked = await self.first_layer(bench)
        assert len(asked) == 6

    async def test_a_429_ends_it_and_the_client_asks_for_itself(self, bench: Throttled) -> None:
        image = push_image(bench.registry, "big/app", layers=self.LAYERS)
        bench.registry.faults.append(Fault(str(image.layers[1]), status=429, headers={"Retry-After": "30"}))
        bench.engine._blobs._prefetch._room = asyncio.Semaphore(1)  # one after the other, as in the manifest
        _, asked = await self.first_layer(bench)
        wanted = (image.layers[0], image.config, image.layers[1])
        assert asked == [f"GET {bench.blob(digest, 'big/app')}" for digest in wanted]
        answer, body = await bench.get(bench.blob(image.layers[1], "big/app"))
        assert (answer.verdict, body) == ("miss", self.LAYERS[1])


async def test_the_quota_is_kept_by_credential(bench: Throttled) -> None:
    await bench.pull(GOOD)
    await bench.pull()
    bench.clock.now += 61
    told = {"Retry-After": "100", "RateLimit-Limit": "10", "RateLimit-Remaining": "0"}
    bench.registry.faults.append(Fault(status=429, headers=told))
    assert (await bench.pull(GOOD)).verdict == "stale"
    assert (await bench.pull()).verdict == "revalidated"
    shown = bench.engine.quotas.snapshot(bench.clock.now)
    assert shown["registry.test"] == {
        "limit": 10,
        "remaining": 0,
        "seen": int(bench.clock.now),
        "paused": int(bench.clock.now) + 100,
    }
    assert "good" not in str(vars(bench.engine.quotas))


class TestBandwidth:
    def cap(self, bench: Throttled, rate: int = RATE, workers: int = 1) -> None:
        bench.engine.reconfigure(Policy(prefetch=False, bandwidth=rate, workers=workers))

    @pytest.mark.parametrize(("rate", "workers"), [(RATE, 1), (4 * RATE, 4)])
    async def test_a_blob_comes_no_faster_than_allowed(self, bench: Throttled, rate: int, workers: int) -> None:
        layer = bench.registry.push_blob("org/app", b"x" * 500_000)
        self.cap(bench, rate, workers)
        answer, body = await bench.get(bench.blob(layer))
        assert (answer.status, Digest.of(body)) == (200, layer)
        assert bench.pause.now >= 0.5 - BURST

    async def test_a_registry_s_own_cap(self, bench: Throttled) -> None:
        layer = bench.registry.push_blob("org/app", b"x" * 50_000)
        object.__setattr__(bench.known, "bandwidth", 100_000)
        _, body = await bench.get(bench.blob(layer))
        assert Digest.of(body) == layer
        assert bench.pause.now >= 0.5 - BURST

    async def test_what_is_not_a_miss_does_not_wait(self, bench: Throttled) -> None:
        layer = bench.registry.push_blob("org/app", b"x" * 500_000)
        await bench.get(bench.blob(layer))
        assert bench.pause.slept == []  # no cap yet
        self.cap(bench, 10)
        answer, body = await bench.get(bench.blob(layer))
        assert (answer.verdict, len(body)) == ("hit", 500_000)
        await bench.pull()  # a manifest
        assert bench.pause.slept == []

    async def test_a_resumed_transfer_and_a_distant_range_pass_it_too(
        self, bench: Throttled, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("entrepot.engine.blobs.FAR", 1000)
        layer = bench.registry.push_blob("org/app", b"x" * 500_000)
        go_on = asyncio.Event()
        bench.registry.faults += [
            Fault(str(layer), cut_after=100_000),
            Fault(str(layer), hold=go_on, hold_after=10_000),
        ]
        self.cap(bench)
        whole = await bench.ask("GET", bench.blob(layer))
        await asyncio.wait_for(bench.registry.arrived(str(layer)), 5)
        while len(bench.registry.requests(str(layer))) < 2:  # the resumption
            await asyncio.sleep(0)
        before = bench.pause.now
        far, body = await bench.get(bench.blob(layer), ("Range", "bytes=300000-"))
        assert (far.status, len(body)) == (206, 200_000)
        assert len(bench.registry.requests(str(layer))) == 3
        assert bench.pause.now - before >= 0.2 - BURST
        go_on.set()
        assert Digest.of(await content(whole)) == layer
        assert bench.pause.now >= 0.7 - BURST
