"""Pulls through the engine, against a registry on loopback: what is answered, and what upstream was asked for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
from tests.fakes.images import Image, push_image
from tests.fakes.registry import FakeRegistry, Fault, running

from entrepot.cache.interface import BlobStore
from entrepot.cache.memory import MemoryBlobs, MemoryRecords
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Answer, PullRequest
from entrepot.engine.policy import Policy
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry import mediatypes
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.digests import Digest
from entrepot.registry.routes import parse_target
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.transfers import Transfers

ACCEPT = ("Accept", f"{mediatypes.OCI_INDEX}, {mediatypes.OCI_MANIFEST}")
GOOD = ("Authorization", "Bearer good")
BAD = ("Authorization", "Bearer bad")


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """An engine, the registry behind it, and the clock."""

    registry: FakeRegistry
    engine: Engine
    blobs: BlobStore
    transfers: Transfers
    known: Registry
    clock: Clock
    image: Image
    bodies: list[bytes] = field(default_factory=list)

    async def ask(self, method: str, target: str, *headers: tuple[str, str]) -> Answer:
        route = parse_target(target)
        assert route is not None
        verb: Literal["GET", "HEAD"] = "HEAD" if method == "HEAD" else "GET"
        return await self.engine.answer(PullRequest(verb, self.known, route, Headers(headers), "192.0.2.1"))

    async def get(self, target: str, *headers: tuple[str, str]) -> tuple[Answer, bytes]:
        answer = await self.ask("GET", target, *headers)
        return answer, await content(answer)

    def manifest(self, reference: object, repository: str = "org/app") -> str:
        return f"/v2/{repository}/manifests/{reference}"

    def blob(self, digest: object, repository: str = "org/app") -> str:
        return f"/v2/{repository}/blobs/{digest}"


async def settled(bench: Bench) -> None:
    """Nothing of the engine runs in the background any more."""
    while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith(("transfer", "prefetch"))]:
        await asyncio.wait(tasks)


async def content(answer: Answer) -> bytes:
    """The whole body; raises what the body raises."""
    if isinstance(answer.body, bytes):
        return answer.body
    buffer, out = memoryview(bytearray(10_000)), b""
    try:
        while True:
            n = answer.body.read_now(buffer)
            if n < 0:
                n = await answer.body.read(buffer)
            if n == 0:
                return out
            out += buffer[:n]
    finally:
        answer.body.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # as under mitmproxy's master
    async with running() as registry:
        image = push_image(registry, "org/app")
        catalogue = Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream=registry.url)])
        found = catalogue.match("registry.test")
        assert found is not None
        clock = Clock()
        blobs, records = MemoryBlobs(clock), MemoryRecords(clock)
        settings = ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0)
        client = UpstreamClient(settings, Resolver([], lambda: (), clock=clock))
        transfers = Transfers(blobs)
        engine = Engine(
            blobs,
            records,
            client,
            transfers,
            key=b"k" * 32,
            policy=Policy(tag=60.0, access=300.0, prefetch=False),
            clock=clock,
        )
        yield Bench(registry, engine, blobs, transfers, found.registry, clock, image)
        await transfers.close()
        await engine.close()
        await client.aclose()


class TestManifests:
    async def test_a_tag_is_fetched_once_and_then_served(self, bench: Bench) -> None:
        answer, body = await bench.get(bench.manifest("1"), ACCEPT)
        assert (answer.status, answer.verdict) == (200, "miss")
        assert Digest.of(body) == bench.image.index
        assert answer.headers.get("content-type") == mediatypes.OCI_INDEX
        assert answer.headers.get("docker-content-digest") == str(bench.image.index)
        assert bench.registry.requests() == ["GET /v2/org/app/manifests/1"]
        bench.registry.forget()
        again, same = await bench.get(bench.manifest("1"), ACCEPT)
        assert (again.verdict, same) == ("hit", body)
        assert bench.registry.requests() == []

    async def test_head_is_like_get(self, bench: Bench) -> None:
        got, body = await bench.get(bench.manifest("1"), ACCEPT)
        head = await bench.ask("HEAD", bench.manifest("1"), ACCEPT)
        assert head.length == len(body) == got.length
        for name in ("content-type", "docker-content-digest", "etag"):
            assert head.headers.get(name) == got.headers.get(name) is not None

    async def test_an_old_tag_is_checked_by_a_conditional_head(self, bench: Bench) -> None:
        """DESIGN rule 4."""
        await bench.get(bench.manifest("1"), ACCEPT)
        bench.clock.now += 61
        bench.registry.forget()
        answer, _ = await bench.get(bench.manifest("1"), ACCEPT)
        assert (answer.status, answer.verdict) == (200, "revalidated")
        (seen,) = bench.registry.seen
        assert str(seen) == "HEAD /v2/org/app/manifests/1"
        assert seen.headers["If-None-Match"] == f'"{bench.image.index}"'

    async def test_a_moved_tag_is_taken_up(self, bench: Bench) -> None:
        await bench.get(bench.manifest("1"), ACCEPT)
        moved = push_image(bench.registry, "org/app", layers=(b"new",))
        bench.clock.now += 61
        bench.registry.forget()
        answer, body = await bench.get(bench.manifest("1"), ACCEPT)
        assert Digest.of(body) == moved.index
        assert bench.registry.requests() == [
            "HEAD /v2/org/app/manifests/1",
            f"GET /v2/org/app/manifests/{moved.index}",
        ]
        assert answer.headers.get("age") == "0"

    async def test_head_then_get_by_digest_costs_one_get(self, bench: Bench) -> None:
        """What docker and containerd do."""
        head = await bench.ask("HEAD", bench.manifest("1"), ACCEPT)
        assert head.headers.get("docker-content-digest") == str(bench.image.index)
        await bench.get(bench.manifest(bench.image.index), ACCEPT)
        await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
        gets = [request for request in bench.registry.requests() if request.startswith("GET")]
        assert len(gets) == 2

    async def test_classes_of_accept_are_kept_apart(self, bench: Bench) -> None:
        await bench.get(bench.manifest("1"), ACCEPT)
        bench.registry.forget()
        await bench.get(bench.manifest("1"), ("Accept", mediatypes.DOCKER_MANIFEST))
        assert bench.registry.requests() == ["GET /v2/org/app/manifests/1"]
        bench.registry.forget()
        await bench.get(bench.manifest("1"), ("Accept", f"{mediatypes.OCI_MANIFEST},{mediatypes.OCI_INDEX};q=0.5"))
        assert bench.registry.requests() == []

    async def test_an_altered_manifest_is_neither_served_nor_kept(self, bench: Bench) -> None:
        """DESIGN rule 1: many clients do not verify what a digest gives them."""
        bench.registry.faults.append(Fault(str(bench.image.manifest), flip_at=5))
        answer, body = await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
        assert answer.status == 502
        assert b"sent a manifest sha256:" in body
        good, _ = await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
        assert (good.status, good.verdict) == (200, "miss")

    async def test_many_at_once_are_one_get(self, bench: Bench) -> None:
        answers = await asyncio.gather(*(bench.get(bench.manifest("1"), ACCEPT) for _ in range(20)))
        assert {Digest.of(body) for _, body in answers} == {bench.image.index}
        assert len(bench.registry.requests("/manifests/")) == 1

    async def test_what_upstream_does_not_have(self, bench: Bench) -> None:
        for method in ("GET", "HEAD"):
            answer = await bench.ask(method, bench.manifest("nope"), ACCEPT)
            assert (answer.status, answer.verdict) == (404, "refused")
        answer, body = await bench.get(bench.manifest("nope"), ACCEPT)
        assert b"MANIFEST_UNKNOWN" in body

    async def test_a_registry_that_refuses_head(self, bench: Bench) -> None:
        """containerd takes a 405 as "use GET"; a GET must work whatever HEAD says."""
        await bench.get(bench.manifest("1"), ACCEPT)
        bench.clock.now += 61
        bench.registry.faults.append(Fault(method="HEAD", status=405, count=100))
        answer, body = await bench.get(bench.manifest("1"), ACCEPT)
        assert (answer.status, Digest.of(body)) == (200, bench.image.index)

    async def test_a_head_without_digest_is_passed_on(self, bench: Bench) -> None:
        bench.registry.faults.append(Fault(method="HEAD", drop_headers=("Docker-Content-Digest",), count=100))
        head = await bench.ask("HEAD", bench.manifest("1"), ACCEPT)
        assert (head.status, head.headers.get("docker-content-digest")) == (200, None)
        assert head.headers.get("content-type") == mediatypes.OCI_INDEX
        assert head.length == len(bench.registry.manifests["org/app", bench.image.index][0])

    async def test_not_modified_for_a_client_that_has_it(self, bench: Bench) -> None:
        await bench.get(bench.manifest("1"), ACCEPT)
        answer, body = await bench.get(bench.manifest("1"), ACCEPT, ("If-None-Match", f'"{bench.image.index}"'))
        assert (answer.status, body) == (304, b"")

    async def test_upstream_away_serves_what_was_good(self, bench: Bench) -> None:
        await bench.get(bench.manifest("1"), ACCEPT)
        bench.clock.now += 61
        object.__setattr__(bench.known, "upstream", "http://127.0.0.1:1")
        answer, body = await bench.get(bench.manifest("1"), ACCEPT)
        assert (answer.status, answer.verdict, Digest.of(body)) == (200, "stale", bench.image.index)
        assert answer.headers.get("age") == "61"
        assert answer.headers.get("warning", "").startswith("111 ")


class TestAccess:
    """DESIGN rule 3."""

    @pytest.fixture
    async def private(self, bench: Bench) -> Bench:
        bench.registry.private.add("org/app")
        for target in (bench.manifest("1"), bench.manifest(bench.image.manifest), bench.blob(bench.image.layers[1])):
            answer, _ = await bench.get(target, ACCEPT, GOOD)
            assert answer.status == 200
        await settled(bench)
        bench.registry.forget()
        return bench

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("credential", [None, BAD])
    async def test_held_content_is_refused_as_upstream_refuses_it(
        self, private: Bench, method: str, credential: tuple[str, str] | None
    ) -> None:
        more = [credential] if credential else []
        image = private.image
        for target in (private.manifest("1"), private.manifest(image.manifest), private.blob(image.layers[1])):
            answer = await private.ask(method, target, ACCEPT, *more)
            assert (answer.status, answer.verdict) == (401, "refused"), target
            assert answer.headers.get("www-authenticate", "").startswith('Bearer realm="https://auth.test/token"')
            if method == "GET":
                assert b"UNAUTHORIZED" in await content(answer)

    async def test_a_grant_is_believed_for_its_time(self, private: Bench) -> None:
        blob = private.blob(private.image.layers[1])
        answer, _ = await private.get(blob, GOOD)
        assert answer.verdict == "hit"
        assert private.registry.requests() == []
        private.clock.now += 301
        answer, _ = await private.get(blob, GOOD)
        assert answer.verdict == "proved"
        assert private.registry.requests() == [f"HEAD {blob}"]

    async def test_a_withdrawn_credential_is_noticed(self, private: Bench) -> None:
        private.clock.now += 301
        private.registry.credentials.clear()
        answer, _ = await private.get(private.blob(private.image.layers[1]), GOOD)
        assert answer.status == 401

    async def test_another_good_credential_proves_itself(self, private: Bench) -> None:
        private.registry.credentials.add("other")
        answer, _ = await private.get(private.blob(private.image.layers[1]), ("Authorization", "Bearer other"))
        assert answer.verdict == "proved"

    async def test_a_digest_of_a_foreign_repository_gives_nothing_away(self, private: Bench) -> None:
        """Knowing a digest is no right to it: the asker has access to a repository, but not to this content."""
        push_image(private.registry, "mine/app", layers=(b"my own",))
        await private.get(private.manifest("1", "mine/app"), ACCEPT)
        secret = private.image.layers[1]
        for target in (private.blob(secret, "mine/app"), private.manifest(private.image.manifest, "mine/app")):
            for method in ("GET", "HEAD"):
                answer = await private.ask(method, target, ACCEPT)
                assert answer.status == 404, target

    async def test_joining_a_running_transfer_needs_admission_too(self, bench: Bench) -> None:
        bench.registry.private.add("org/app")
        go_on = asyncio.Event()
        layer = bench.image.layers[1]
        bench.registry.faults.append(Fault(str(layer), method="GET", hold=go_on, hold_after=100))
        first = await bench.ask("GET", bench.blob(layer), GOOD)
        refused = await bench.ask("GET", bench.blob(layer), BAD)
        assert (first.status, refused.status) == (200, 401)
        go_on.set()
        assert Digest.of(await content(first)) == layer

    async def test_credentials_are_nowhere_in_the_records(self, private: Bench) -> None:
        records = private.engine._manifests._records
        text = " ".join(f"{key} {value}" for key, value in records.scan(""))
        assert "grant/" in text
        assert "good" not in text
        assert "Bearer" not in text

    async def test_only_what_upstream_needs_is_passed_on(self, bench: Bench) -> None:
        await bench.get(bench.manifest("1"), ACCEPT, GOOD, ("Cookie", "c=1"), ("X-Forwarded-For", "192.0.2.1"))
        seen = bench.registry.seen[0]
        assert seen.headers["Authorization"] == "Bearer good"
        assert seen.headers["Accept-Encoding"] == "identity"
        assert seen.headers["Via"] == "1.1 entrepot-test"
        assert not {"Cookie", "X-Forwarded-For"} & set(seen.headers)


class TestWhatARefusalTells:
    @pytest.mark.parametrize("kind", ["blob", "manifest"])
    async def test_as_many_questions_for_what_is_held_as_for_what_is_not(self, bench: Bench, kind: str) -> None:
        """DESIGN rule 3: the time of a refusal must not tell who has pulled what."""
        held = bench.image.layers[0] if kind == "blob" else bench.image.index
        await bench.get(bench.manifest("1"), ACCEPT)
        await bench.get(bench.blob(bench.image.layers[0]))
        await settled(bench)
        asked = []
        for digest in (held, Digest.of(b"nobody has this")):
            bench.registry.forget()
            target = f"/v2/org/other/{kind}s/{digest}"
            assert (await bench.ask("GET", target, ACCEPT)).status == 404
            asked.append(sorted(request.partition(" ")[0] for request in bench.registry.requests(str(digest))))
        assert asked == [["GET", "HEAD"]] * 2


class TestBlobs:
    @pytest.mark.parametrize("redirects", [False, True])
    async def test_cold_then_held(self, bench: Bench, redirects: bool) -> None:
        bench.registry.redirects = redirects
        layer = bench.image.layers[1]
        answer, body = await bench.get(bench.blob(layer))
        assert (answer.status, answer.verdict, Digest.of(body)) == (200, "miss", layer)
        assert answer.length == len(body)
        assert answer.headers.get("location") is None
        bench.registry.forget()
        again, same = await bench.get(bench.blob(layer))
        assert (again.verdict, same) == ("hit", body)
        assert bench.registry.requests() == []
        for name in ("content-type", "docker-content-digest", "etag", "accept-ranges"):
            assert again.headers.get(name) == answer.headers.get(name) is not None

    async def test_many_waiters_are_one_transfer(self, bench: Bench) -> None:
        """DESIGN rule 2."""
        layer = bench.image.layers[1]
        answers = await asyncio.gather(*(bench.get(bench.blob(layer)) for _ in range(16)))
        assert {Digest.of(body) for _, body in answers} == {layer}
        assert [request for request in bench.registry.requests("/blobs/") if request.startswith("GET")] == [
            f"GET {bench.blob(layer)}"
        ]

    async def test_bytes_reach_the_client_while_upstream_still_sends(self, bench: Bench) -> None:
        go_on = asyncio.Event()
        layer = bench.image.layers[1]
        bench.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
        answer = await bench.ask("GET", bench.blob(layer))
        assert not isinstance(answer.body, bytes)
        buffer = memoryview(bytearray(100))
        assert await answer.body.read(buffer) == 100
        assert bytes(buffer) == b"b" * 100
        go_on.set()
        answer.body.close()

    async def test_the_transfer_outlives_its_client(self, bench: Bench) -> None:
        go_on = asyncio.Event()
        layer = bench.image.layers[1]
        bench.registry.faults.append(Fault(str(layer), hold=go_on, hold_after=5000))
        answer = await bench.ask("GET", bench.blob(layer))
        assert not isinstance(answer.body, bytes)
        answer.body.close()
        transfer = bench.transfers.running(layer)
        assert transfer is not None
        go_on.set()
        await transfer.wait(len(b"b" * 70_000) - 1)
        bench.registry.forget()
        _, body = await bench.get(bench.blob(layer))
        assert Digest.of(body) == layer
        assert bench.registry.requests() == []

    async def test_a_wrong_byte_never_ends_clean_and_is_not_kept(self, bench: Bench) -> None:
        """DESIGN rule 1."""
        layer = bench.image.layers[1]
        bench.registry.faults.append(Fault(str(layer), flip_at=60_000))
        answer = await bench.ask("GET", bench.blob(layer))
        with pytest.raises(EntrepotError, match=str(layer)):
            await content(answer)
        assert bench.blobs.open(layer) is None
        _, body = await bench.get(bench.blob(layer))
        assert Digest.of(body) == layer

    async def test_a_size_that_contradicts_the_manifest_never_ends_clean(self, bench: Bench) -> None:
        await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
        layer = bench.image.layers[1]
        bench.registry.blobs["org/app", layer] = b"<html>login</html>"
        answer = await bench.ask("GET", bench.blob(layer))
        with pytest.raises(EntrepotError, match=str(layer)):
            await content(answer)
        assert bench.blobs.open(layer) is None

    async def test_a_cut_upstream_is_resumed_out_of_sight(self, bench: Bench) -> None:
        layer = bench.image.layers[1]
        cuts = [(30_000, asyncio.Event()), (40_000, asyncio.Event())]
        bench.registry.faults += [
            Fault(str(layer), hold=cuts[0][1], hold_after=30_000, cut_after=0),
            Fault(str(layer), hold=cuts[1][1], hold_after=10_000, cut_after=0),
        ]
        answer = await bench.ask("GET", bench.blob(layer))
        transfer = bench.transfers.running(layer)
        assert transfer is not None
        for held, cut in cuts:  # the cut comes when what was sent before is on the disk
            await transfer.wait(held - 2)
            cut.set()
        assert (answer.status, Digest.of(await content(answer))) == (200, layer)
        ranges = [seen.headers.get("Range") for seen in bench.registry.seen]
        assert ranges == [None, "bytes=30000-", "bytes=40000-"]

    async def test_a_resumption_whose_range_is_ignored(self, bench: Bench) -> None:
        layer = bench.image.layers[1]
        bench.registry.faults += [Fault(str(layer), cut_after=30_000), Fault(str(layer), ignore_range=True)]
        _, body = await bench.get(bench.blob(layer))
        assert Digest.of(body) == layer

    async def test_refusals_are_passed_on_and_not_remembered(self, bench: Bench) -> None:
        layer = bench.image.layers[1]
        for status in (403, 404, 429, 503):
            bench.registry.faults.append(Fault(str(layer), status=status, headers={"Retry-After": "7"}))
            answer, body = await bench.get(bench.blob(layer))
            assert (answer.status, answer.headers.get("retry-after")) == (status, "7")
            assert b"injected" in body
        answer, _ = await bench.get(bench.blob(layer))
        assert answer.status == 200

    @pytest.mark.parametrize("held", [True, False])
    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [("bytes=60000-", 60_000, 70_000), ("bytes=0-1", 0, 2), ("bytes=-5", 69_995, 70_000)],
    )
    async def test_ranges(self, bench: Bench, held: bool, asked: str, start: int, stop: int) -> None:
        layer = bench.image.layers[1]
        await bench.get(bench.manifest(bench.image.manifest), ACCEPT)
        if held:
            await bench.get(bench.blob(layer))
        answer, body = await bench.get(bench.blob(layer), ("Range", asked))
        assert answer.status == 206
        assert answer.headers.get("content-range") == f"bytes {start}-{stop - 1}/70000"
        assert body == b"b" * (stop - start)
        assert answer.length == stop - start

    @pytest.mark.parametrize("breaks", [False, True])
    async def test_a_distant_range_of_a_cold_blob_is_answered_at_once(self, bench: Bench, breaks: bool) -> None:
        """DESIGN rule 2: lazy pullers want the end of a layer first."""
        whole = bytes(range(251)) * 40_000
        image = push_image(bench.registry, "big/app", layers=(whole,))
        await bench.get(bench.manifest(image.manifest, "big/app"), ACCEPT)
        blob, go_on = bench.blob(image.layers[0], "big/app"), asyncio.Event()
        bench.registry.faults.append(Fault(str(image.layers[0]), hold=go_on, hold_after=1000))
        if breaks:
            bench.registry.faults.append(Fault(str(image.layers[0]), cut_after=3000))
        answer = await bench.ask("GET", blob, ("Range", "bytes=9000000-9004999"))
        assert (answer.status, answer.headers.get("content-range")) == (206, f"bytes 9000000-9004999/{len(whole)}")
        if breaks:  # then it waits for the fill
            go_on.set()
        assert await content(answer) == whole[9_000_000:9_005_000]
        go_on.set()
        _, body = await bench.get(blob)
        assert body == whole
        ranges = [seen.headers.get("Range") for seen in bench.registry.seen if seen.path == blob]
        assert ranges == [None, "bytes=9000000-9004999"]

    async def test_what_cannot_be_verified_is_not_passed_on_from_a_suspicious_registry(self, bench: Bench) -> None:
        """A range by a request of its own only the client could verify: it waits for the fill instead."""
        whole = bytes(range(251)) * 40_000
        image = push_image(bench.registry, "big/app", layers=(whole,))
        await bench.get(bench.manifest(image.manifest, "big/app"), ACCEPT)
        await bench.engine.conduct.wrong_bytes("registry.test", str(image.layers[0]))
        bench.registry.forget()
        answer, body = await bench.get(bench.blob(image.layers[0], "big/app"), ("Range", "bytes=9000000-9004999"))
        assert (answer.status, body) == (206, whole[9_000_000:9_005_000])
        assert [seen.headers.get("Range") for seen in bench.registry.seen] == [None]

    async def test_a_range_beyond_the_end(self, bench: Bench) -> None:
        layer = bench.image.layers[1]
        await bench.get(bench.blob(layer))
        answer, body = await bench.get(bench.blob(layer), ("Range", "bytes=70000-"))
        assert (answer.status, answer.headers.get("content-range"), body) == (416, "bytes */70000", b"")

    async def test_if_range_with_another_validator_gets_the_whole(self, bench: Bench) -> None:
        layer = bench.image.layers[1]
        await bench.get(bench.blob(layer))
        answer, body = await bench.get(bench.blob(layer), ("Range", "bytes=5-"), ("If-Range", '"other"'))
        assert (answer.status, len(body)) == (200, 70_000)

    @pytest.mark.parametrize("redirects", [False, True])
    async def test_head_before_and_after(self, bench: Bench, redirects: bool) -> None:
        bench.registry.redirects = redirects
        layer = bench.image.layers[1]
        cold = await bench.ask("HEAD", bench.blob(layer))
        assert (cold.status, cold.length) == (200, 70_000)
        await bench.get(bench.blob(layer))
        warm = await bench.ask("HEAD", bench.blob(layer))
        assert (warm.status, warm.length, warm.verdict) == (200, 70_000, "hit")

    async def test_a_second_repository_shares_the_bytes(self, bench: Bench) -> None:
        push_image(bench.registry, "other/app")
        layer = bench.image.layers[1]
        await bench.get(bench.blob(layer))
        await settled(bench)
        bench.registry.forget()
        answer, body = await bench.get(bench.blob(layer, "other/app"))
        assert (answer.verdict, Digest.of(body)) == ("proved", layer)
        assert bench.registry.requests() == [f"HEAD {bench.blob(layer, 'other/app')}"]


class TestNoRoom:
    """DESIGN rule 10: a full disk means pass-through, not failure."""

    @pytest.fixture
    def full(self, bench: Bench) -> Bench:
        small = MemoryBlobs(bench.clock, size=10_000)
        bench.engine._blobs._store = bench.transfers._store = small
        bench.blobs = small
        return bench

    async def test_what_does_not_fit_is_passed_through(self, full: Bench) -> None:
        layer = full.image.layers[1]
        for _ in range(2):
            answer, body = await full.get(full.blob(layer))
            assert (answer.status, answer.verdict, Digest.of(body)) == (200, "pass", layer)
            assert answer.length == 70_000
            assert "not stored" in answer.why
        assert full.blobs.open(layer) is None

    async def test_a_range_of_it_too(self, full: Bench) -> None:
        answer, body = await full.get(full.blob(full.image.layers[1]), ("Range", "bytes=69990-"))
        assert (answer.status, answer.headers.get("content-range")) == (206, "bytes 69990-69999/70000")
        assert body == b"b" * 10

    async def test_wrong_bytes_never_end_clean_there_either(self, full: Bench) -> None:
        """DESIGN rule 1."""
        layer = full.image.layers[1]
        full.registry.faults.append(Fault(str(layer), skip=1, flip_at=60_000))  # the first GET finds no room
        answer = await full.ask("GET", full.blob(layer))
        with pytest.raises(EntrepotError, match=str(layer)):
            await content(answer)

    async def test_what_fits_is_held(self, full: Bench) -> None:
        layer = full.image.layers[0]
        await full.get(full.blob(layer))
        answer, _ = await full.get(full.blob(layer))
        assert answer.verdict == "hit"


class TestPrefetch:
    LAYERS = tuple(bytes([n]) * 1000 for n in range(8))

    async def pulled(self, bench: Bench, *, prefetch: bool = True) -> Image:
        bench.engine.reconfigure(Policy(prefetch=prefetch))
        image = push_image(bench.registry, "big/app", layers=self.LAYERS)
        await bench.get(bench.manifest(image.manifest, "big/app"), ACCEPT, GOOD)
        return image

    async def test_the_first_layer_brings_the_rest(self, bench: Bench) -> None:
        image = await self.pulled(bench)
        assert bench.registry.requests("/blobs/") == []  # who only looks costs nothing
        await bench.get(bench.blob(image.config, "big/app"), GOOD)
        assert bench.registry.requests("/blobs/") == [f"GET {bench.blob(image.config, 'big/app')}"]
        await bench.get(bench.blob(image.layers[0], "big/app"), GOOD)
        await settled(bench)
        bench.registry.private.add("big/app")  # the client's credential was used: the same is good enough now
        assert all(seen.authorized for seen in bench.registry.seen if "/blobs/" in seen.path)
        bench.registry.forget()
        for layer in image.layers[1:]:
            answer, _ = await bench.get(bench.blob(layer, "big/app"), GOOD)
            assert answer.verdict == "hit"
        assert bench.registry.requests() == []

    async def test_it_can_be_switched_off(self, bench: Bench) -> None:
        image = await self.pulled(bench, prefetch=False)
        await bench.get(bench.blob(image.layers[0], "big/app"), GOOD)
        await settled(bench)
        assert bench.registry.requests("/blobs/") == [f"GET {bench.blob(image.layers[0], 'big/app')}"]

    async def test_nothing_ahead_of_need_from_a_suspicious_registry(self, bench: Bench) -> None:
        image = await self.pulled(bench)
        await bench.engine.conduct.wrong_bytes("registry.test", str(image.layers[0]))
        await bench.get(bench.blob(image.layers[0], "big/app"), GOOD)
        await settled(bench)
        assert bench.registry.requests("/blobs/") == [f"GET {bench.blob(image.layers[0], 'big/app')}"]

    async def test_a_client_s_own_request_joins_what_is_on_its_way(self, bench: Bench) -> None:
        image = await self.pulled(bench)
        go_on = asyncio.Event()
        bench.registry.faults.append(Fault(str(image.layers[1]), hold=go_on, hold_after=500))
        await bench.get(bench.blob(image.layers[0], "big/app"), GOOD)
        await asyncio.wait_for(bench.registry.arrived(str(image.layers[1])), 5)
        answer = await bench.ask("GET", bench.blob(image.layers[1], "big/app"), GOOD)
        go_on.set()
        assert (answer.verdict, await content(answer)) == ("joined", self.LAYERS[1])
        assert bench.registry.requests(str(image.layers[1])) == [f"GET {bench.blob(image.layers[1], 'big/app')}"]


class TestFailures:
    async def test_unreachable_is_502_in_the_words_of_the_spec(self, bench: Bench) -> None:
        object.__setattr__(bench.known, "upstream", "http://127.0.0.1:1")
        for target in ("/v2/", bench.manifest("1"), bench.blob(bench.image.config)):
            answer, body = await bench.get(target)
            assert (answer.status, answer.verdict) == (502, "failed")
            assert b'"code":"UNAVAILABLE"' in body

    async def test_the_ping_is_relayed(self, bench: Bench) -> None:
        answer, body = await bench.get("/v2/")
        assert (answer.status, answer.verdict, body) == (200, "pass", b"{}")

    def test_what_the_engine_takes(self) -> None:
        digest = Digest.of(b"")
        for target in ("/v2/", "/v2/a/manifests/1", f"/v2/a/blobs/{digest}"):
            assert Engine.takes("GET", parse_target(target))
            assert Engine.takes("HEAD", parse_target(target))
            assert not Engine.takes("PUT", parse_target(target))
        for target in ("/v2/a/tags/list", f"/v2/a/referrers/{digest}"):
            assert Engine.takes("GET", parse_target(target))
            assert not Engine.takes("HEAD", parse_target(target))
        for target in ("/v2/_catalog", "/token", "/"):
            assert not Engine.takes("GET", parse_target(target))
