"""What is asked in nobody's name, or in the box's: when, and that it gives nothing to anyone (DESIGN rule 3)."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.engine.errand_bench import (
    BIG,
    PRIVATE,
    PUBLIC,
    Bench,
    blob,
    errand_bench,
    manifest,
    settled,
)
from tests.engine.test_engine import content
from tests.fakes.guarded import NOBODY
from tests.fakes.images import push_image
from tests.fakes.registry import Fault

from entrepot.engine.admission import SURE
from entrepot.engine.freshmanifests import question_of
from entrepot.engine.messages import InNameOf, PullRequest
from entrepot.engine.passes import SHUT
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute

TAG = manifest(PUBLIC, "1")
USED_UP = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}  # as Docker Hub says it


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The box has an account, for itself."""
    async with errand_bench(tmp_path) as made:
        yield made


@pytest.fixture
async def sharing(tmp_path: Path) -> AsyncIterator[Bench]:
    """And for the anonymous."""
    async with errand_bench(tmp_path, share="public") as made:
        yield made


async def held_and_old(bench: Bench) -> None:
    """The public tag has been pulled by somebody without an account, and is to be checked."""
    await bench.get(TAG, await bench.log_in(NOBODY, PUBLIC))
    bench.clock.now += 61
    bench.registry.forget()


class TestTagsOfWhatAnyoneMayHave:
    async def test_who_shows_nothing_gets_it_checked_with_nobodys_rights(self, bench: Bench) -> None:
        await held_and_old(bench)
        answer, body = await bench.get(TAG)
        assert (answer.status, answer.verdict, answer.admitted) == (200, "revalidated", "public")
        assert Digest.of(body) == bench.public.index
        assert bench.registry.by(NOBODY) == [f"HEAD {TAG}"]
        assert bench.registry.by("box", "") == []
        (seen,) = [seen for seen in bench.registry.seen if seen.headers.get("Authorization")]
        assert seen.headers["If-None-Match"] == f'"{bench.public.index}"'

    async def test_one_token_is_used_until_shortly_before_its_end(self, bench: Bench) -> None:
        await held_and_old(bench)
        for _ in range(5):
            await bench.get(TAG)
            bench.clock.now += 61
        assert (len(bench.registry.requests("/token")), len(bench.registry.by(NOBODY))) == (1, 5)
        await bench.get(TAG)
        assert (len(bench.registry.requests("/token")), len(bench.registry.by(NOBODY))) == (2, 6)

    async def test_who_shows_what_has_ended_too(self, bench: Bench) -> None:
        token = await bench.log_in("ann", PUBLIC)
        await held_and_old(bench)
        bench.registry.revoke("ann")
        answer, _ = await bench.get(TAG, token)
        assert (answer.status, answer.verdict) == (200, "revalidated")
        assert (bench.registry.by("ann"), bench.registry.by(NOBODY)) == ([f"HEAD {TAG}"], [f"HEAD {TAG}"])

    async def test_who_shows_what_is_good_asks_for_himself(self, bench: Bench) -> None:
        token = await bench.log_in("ann", PUBLIC)
        await held_and_old(bench)
        answer, _ = await bench.get(TAG, token)
        assert (answer.verdict, answer.admitted) == ("revalidated", "checked")
        assert bench.registry.requests() == [f"HEAD {TAG}"]

    async def test_a_moved_tag_is_taken_up(self, bench: Bench) -> None:
        await held_and_old(bench)
        moved = push_image(bench.registry, PUBLIC, layers=(b"new",))
        answer, body = await bench.get(TAG)
        assert (answer.verdict, Digest.of(body)) == ("miss", moved.index)
        assert bench.registry.by(NOBODY) == [f"HEAD {TAG}", f"GET {manifest(PUBLIC, moved.index)}"]

    @pytest.mark.parametrize("hides", [False, True])
    async def test_what_has_turned_private_is_nobodys_any_more(self, bench: Bench, *, hides: bool) -> None:
        await held_and_old(bench)
        bench.goes_private(PUBLIC)
        bench.registry.hides = hides
        answer, body = await bench.get(TAG)
        assert (answer.status, answer.verdict) == (401, "refused")
        assert "guarded" in answer.headers.get("www-authenticate", "")
        assert body == b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        assert bench.registry.by("box", "") == []
        if not hides:  # else it may be only the tag that has gone
            assert bench.known_public(PUBLIC) is False
            token = await bench.log_in(NOBODY, PUBLIC)
            for target in (TAG, manifest(PUBLIC, bench.public.index)):
                assert (await bench.get(target, token))[0].status == 401

    async def test_after_a_refusal_it_is_not_tried_at_once_again(self, bench: Bench) -> None:
        await held_and_old(bench)
        bench.goes_private(PUBLIC)
        await bench.get(TAG)
        await bench.engine._admission._access.set_public("registry.test", PUBLIC, public=True)
        bench.registry.forget()
        bench.clock.now += 6  # the refusal itself is remembered for 5 s
        assert (await bench.get(TAG))[0].status == 401
        assert bench.registry.requests() == [f"GET {TAG}"]
        bench.registry.readers[PUBLIC] = {NOBODY}
        bench.clock.now += SHUT
        assert (await bench.get(TAG))[0].verdict == "revalidated"

    async def test_a_deleted_tag_is_gone(self, bench: Bench) -> None:
        await held_and_old(bench)
        del bench.registry.tags[PUBLIC, "1"]
        answer, _ = await bench.get(TAG, await bench.log_in(NOBODY, PUBLIC))
        assert answer.status == 404
        assert bench.known_public(PUBLIC) is True

    async def test_who_asks_for_what_is_not_there_makes_nothing_private(self, bench: Bench) -> None:
        await held_and_old(bench)
        bob = await bench.log_in("bob", "org/another")
        assert (await bench.get(manifest(PUBLIC, "typo"), bob))[0].status == 401
        assert bench.registry.requests("typo") == [
            f"{one} {manifest(PUBLIC, 'typo')}" for one in ("GET", "HEAD", "HEAD")
        ]
        assert bench.known_public(PUBLIC) is True

    async def test_nobody_is_throttled(self, bench: Bench) -> None:
        await held_and_old(bench)
        bench.registry.faults.append(Fault("/manifests/", status=429, count=10))
        answer, _ = await bench.get(TAG)
        assert (answer.verdict, answer.why) == ("stale", "upstream throttles")
        assert bench.registry.by("box", "") == []

    async def test_no_token_service(self, bench: Bench) -> None:
        await held_and_old(bench)
        bench.registry.token_status = 500
        answer, _ = await bench.get(TAG)
        assert (answer.status, answer.verdict) == (200, "stale")

    async def test_head_too(self, bench: Bench) -> None:
        await held_and_old(bench)
        answer = await bench.ask("HEAD", TAG)
        assert (answer.status, answer.verdict) == (200, "revalidated")


class TestShared:
    """What counts against the quota of the box's account."""

    async def test_misses_of_the_anonymous(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)  # who comes first shows that it is public
        sharing.registry.forget()
        answers = await sharing.pull(sharing.public, PUBLIC, token)
        assert [answer.status for answer in answers] == [200] * 5
        assert sharing.registry.by(NOBODY) == []
        assert sharing.registry.by("box") == [
            f"GET {manifest(PUBLIC, sharing.public.manifest)}",
            *(f"GET {blob(PUBLIC, one)}" for one in (sharing.public.config, *sharing.public.layers)),
        ]
        sharing.registry.forget()
        again = await sharing.pull(sharing.public, PUBLIC)  # without any token
        assert [answer.verdict for answer in again] == ["hit"] * 5
        assert sharing.registry.requests() == []

    async def test_the_account_is_granted_nothing(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.pull(sharing.public, PUBLIC, token)
        assert sharing.registry.by("box")
        assert sharing.grants() == []

    async def test_not_unless_told_to(self, bench: Bench) -> None:
        await bench.pull(bench.public, PUBLIC, await bench.log_in(NOBODY, PUBLIC))
        assert bench.registry.by("box", "") == []

    async def test_who_has_an_account_asks_with_it(self, sharing: Bench) -> None:
        await sharing.get(TAG, await sharing.log_in(NOBODY, PUBLIC))
        await sharing.pull(sharing.public, PUBLIC, await sharing.log_in("ann", PUBLIC))
        assert sharing.registry.by("box", "") == []
        assert len(sharing.registry.by("ann")) == 4

    async def test_of_what_nobody_knows_to_be_public(self, sharing: Bench) -> None:
        await sharing.get(manifest(PRIVATE, "1"), await sharing.log_in(NOBODY, PRIVATE))
        await sharing.get(TAG, await sharing.log_in(NOBODY, PUBLIC))
        assert sharing.registry.by("box", "") == []

    async def test_it_is_looked_again_first(self, sharing: Bench) -> None:
        await sharing.get(TAG, await sharing.log_in(NOBODY, PUBLIC))
        sharing.clock.now += SURE
        sharing.registry.forget()
        token = await sharing.log_in(NOBODY, PUBLIC)
        target = manifest(PUBLIC, sharing.public.manifest)
        await sharing.get(target, token)
        assert (sharing.registry.by(NOBODY), sharing.registry.by("box")) == ([f"HEAD {target}"], [f"GET {target}"])

    @pytest.mark.parametrize("hides", [False, True])
    async def test_what_has_turned_private_is_not_asked_for(self, sharing: Bench, *, hides: bool) -> None:
        """Although it is known to have been public, and the box may have it."""
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)
        await sharing.get(manifest(PUBLIC, sharing.public.manifest), token)
        new = push_image(sharing.registry, PUBLIC, tag="2", layers=(b"secret",))
        sharing.clock.now += SURE
        sharing.goes_private(PUBLIC)
        sharing.registry.hides = hides
        sharing.registry.forget()
        token = await sharing.log_in(NOBODY, PUBLIC)
        asked = [manifest(PUBLIC, "2"), manifest(PUBLIC, new.manifest), blob(PUBLIC, sharing.public.layers[0])]
        for target in asked:
            for headers in ([], [token]):
                assert (await sharing.get(target, *headers))[0].status in {401, 404}, target
        assert sharing.registry.by("box") == []

    @pytest.mark.parametrize("hides", [False, True])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_what_nobody_was_refused_a_moment_ago(self, sharing: Bench, method: str, *, hides: bool) -> None:
        """Although the last look is not long ago."""
        await sharing.get(TAG, await sharing.log_in(NOBODY, PUBLIC))
        sharing.clock.now += 59
        await sharing.engine._admission._access.set_public("registry.test", PUBLIC, public=True)
        sharing.clock.now += 2
        push_image(sharing.registry, PUBLIC, layers=(b"secret",))
        sharing.goes_private(PUBLIC)
        sharing.registry.hides = hides
        sharing.registry.forget()
        answer = await sharing.ask(method, TAG)
        assert (answer.status, answer.verdict) == (401, "refused")
        assert sharing.registry.by("box") == []

    async def test_a_manifest_that_is_not_there_says_nothing_of_the_repository(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)
        sharing.clock.now += SURE
        assert (await sharing.get(manifest(PUBLIC, "typo"), token))[0].status == 404
        assert sharing.known_public(PUBLIC) is True

    def test_questions_in_different_names_are_different(self) -> None:
        """Whoever joins one that is under way gets what that is given."""
        known = Catalogue.builtin().registry("quay.io")
        assert known is not None
        route = ManifestRoute(PUBLIC, "1")
        names: tuple[InNameOf, ...] = ("client", "nobody", "box")
        requests = [PullRequest("GET", known, route, Headers([]), "192.0.2.1", asks=asks) for asks in names]
        assert len({question_of(request, route) for request in requests}) == 3

    async def test_what_the_account_is_refused_the_client_asks_for_itself(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)
        sharing.registry.accounts["box"] = "changed"
        sharing.registry.forget()
        answers = await sharing.pull(sharing.public, PUBLIC, token)
        assert [answer.status for answer in answers] == [200] * 5
        assert len(sharing.registry.by(NOBODY)) == 4
        assert sharing.registry.by("box") == []
        assert sharing.registry.requests("/token") == ["GET /token"]  # a wrong password is not tried over and over

    async def test_a_new_password_counts_from_the_next_reload_on(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)
        sharing.registry.accounts["box"] = "changed"
        await sharing.get(manifest(PUBLIC, sharing.public.manifest), token)
        sharing.password.write_text("changed")
        sharing.reconfigure()
        await sharing.get(blob(PUBLIC, sharing.public.config), token)
        assert sharing.registry.by("box") == [f"GET {blob(PUBLIC, sharing.public.config)}"]

    async def test_a_throttled_account_is_spared(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        await sharing.get(TAG, token)
        first = manifest(PUBLIC, sharing.public.manifest)
        sharing.registry.faults.append(Fault(first, skip=1, status=429, headers=USED_UP))  # after the challenge
        sharing.registry.forget()
        assert (await sharing.get(first, token))[0].status == 200
        assert (sharing.registry.by("box"), sharing.registry.by(NOBODY)) == ([f"GET {first}"], [f"GET {first}"])
        sharing.registry.forget()
        new = push_image(sharing.registry, PUBLIC, tag="2", layers=(b"new",))
        assert (await sharing.get(manifest(PUBLIC, new.manifest), token))[0].status == 200
        assert sharing.registry.by("box") == []

    async def test_a_check_is_shared_when_nobody_may_ask_any_more(self, sharing: Bench) -> None:
        await held_and_old(sharing)
        sharing.registry.faults.append(Fault("/manifests/", skip=1, status=429, headers=USED_UP))  # after the challenge
        answer, _ = await sharing.get(TAG)
        assert answer.verdict == "revalidated"
        assert (len(sharing.registry.by(NOBODY)), sharing.registry.by("box")) == (2, [f"HEAD {TAG}"])

    async def test_the_size_of_a_blob(self, sharing: Bench) -> None:
        token = await sharing.log_in(NOBODY, PUBLIC)
        for reference in ("1", sharing.public.manifest):
            await sharing.get(manifest(PUBLIC, reference), token)
        sharing.registry.forget()
        answer = await sharing.ask("HEAD", blob(PUBLIC, sharing.public.layers[1]), token)
        assert (answer.status, answer.length) == (200, len(BIG))
        assert len(sharing.registry.by("box")) == 1

    async def test_layers_ahead_of_need_are_on_the_account_too(self, sharing: Bench) -> None:
        sharing.reconfigure(prefetch=True)
        token = await sharing.log_in(NOBODY, PUBLIC)
        for reference in ("1", sharing.public.manifest):
            await sharing.get(manifest(PUBLIC, reference), token)
        sharing.registry.forget()
        await sharing.get(blob(PUBLIC, sharing.public.config), token)
        assert len(sharing.registry.by("box", "/blobs/")) in {1, 3}
        await sharing.get(blob(PUBLIC, sharing.public.layers[0]), token)
        assert len(sharing.registry.by("box", "/blobs/")) == 3
        assert sharing.registry.by(NOBODY, "/blobs/") == []


async def cut_half_way(bench: Bench, repository: str, digest: Digest, *headers: tuple[str, str]) -> bytes:
    """The blob, whose transfer breaks when half of it is in, and the client's token with it."""
    hold = asyncio.Event()
    bench.registry.faults.append(Fault(str(digest), hold=hold, hold_after=len(BIG) // 2, cut_after=0))
    answer = await bench.ask("GET", blob(repository, digest), *headers)
    assert answer.status == 200
    bench.registry.revoke("ann", NOBODY)
    hold.set()
    return await content(answer)


class TestTransfers:
    async def test_a_private_one_outlives_the_token_that_began_it(self, bench: Bench) -> None:
        """DESIGN rule 2: a client is never broken off while upstream can be resumed."""
        digest = bench.private.layers[1]
        token = await bench.log_in("ann", PRIVATE)
        assert await cut_half_way(bench, PRIVATE, digest, token) == BIG[::-1]
        assert [request for request in bench.registry.by("box") if "/blobs/" in request] == [
            f"GET {blob(PRIVATE, digest)}"
        ]
        await settled()
        assert bench.known_public(PRIVATE) is not True
        bob, nobody = await bench.log_in("bob", PRIVATE), await bench.log_in(NOBODY, PRIVATE)
        for headers in ([], [bob], [nobody]):
            assert (await bench.get(blob(PRIVATE, digest), *headers))[0].status == 401

    async def test_a_public_one_goes_on_with_nobodys_rights(self, bench: Bench) -> None:
        digest = bench.public.layers[1]
        token = await bench.log_in(NOBODY, PUBLIC)
        await bench.get(TAG, token)
        bench.registry.forget()
        assert await cut_half_way(bench, PUBLIC, digest, token) == BIG
        assert bench.registry.by("box", "") == []
        assert len(bench.registry.requests("/token")) == 1

    async def test_without_an_account_there_is_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        async with errand_bench(tmp_path, account=False) as bench:
            token = await bench.log_in("ann", PRIVATE)
            with pytest.raises(Exception, match="401"):
                await cut_half_way(bench, PRIVATE, bench.private.layers[1], token)

    async def test_what_the_box_may_not_read_ends_as_the_registry_says(self, bench: Bench) -> None:
        bench.registry.readers[PRIVATE] = {"ann"}
        token = await bench.log_in("ann", PRIVATE)
        with pytest.raises(Exception, match="401"):
            await cut_half_way(bench, PRIVATE, bench.private.layers[1], token)

    async def test_who_is_refused_at_the_start_has_nothing_fetched_for_him(self, bench: Bench) -> None:
        bob = await bench.log_in("bob", PRIVATE)
        answer, _ = await bench.get(blob(PRIVATE, bench.private.layers[1]), bob)
        assert answer.status == 401
        assert bench.registry.by("box", "") == []
        assert bench.blobs.open(bench.private.layers[1]) is None

    async def test_layers_ahead_of_need_come_although_the_token_has_ended(self, bench: Bench) -> None:
        bench.reconfigure(prefetch=True)
        token = await bench.log_in("ann", PRIVATE)
        for reference in ("1", bench.private.manifest):
            await bench.get(manifest(PRIVATE, reference), token)
        hold = asyncio.Event()
        bench.registry.faults.append(Fault(str(bench.private.layers[0]), hold=hold, hold_after=10))
        bench.registry.forget()
        answer = await bench.ask("GET", blob(PRIVATE, bench.private.layers[0]), token)
        bench.registry.revoke("ann")  # eager tasks: the others have been begun, and are asked for once more
        hold.set()
        await content(answer)
        await settled()
        (size, reader) = bench.blobs.open(bench.private.layers[1]) or pytest.fail("it has not come")
        reader.close()
        assert size == len(BIG)


@pytest.fixture(params=["up", "down"])
async def secretive(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Ann has pulled what is private; all that could lend it to others is on."""
    async with errand_bench(tmp_path, share="public") as made:
        made.reconfigure(prefetch=True)
        ann = await made.log_in("ann", PRIVATE)
        made.tokens["ann", PRIVATE] = ann
        for user in ("bob", NOBODY):
            made.tokens[user, PRIVATE] = await made.log_in(user, PRIVATE)
        assert [answer.status for answer in await made.pull(made.private, PRIVATE, ann)] == [200] * 5
        assert await cut_half_way(made, PRIVATE, push_layer(made), await made.log_in("ann", PRIVATE)) == BIG[1:]
        await settled()
        assert made.registry.by("box", "/blobs/")  # it may read it, and has
        if request.param == "down":
            await made.registry.connections.unplug()
            await made.get(manifest(PRIVATE, "unheard-of"))
            async with asyncio.timeout(10):
                while not made.engine.health.is_out(made.known.upstream):
                    await asyncio.sleep(0.01)
        made.registry.forget()
        yield made


def push_layer(bench: Bench) -> Digest:
    return bench.registry.push_blob(PRIVATE, BIG[1:])


@pytest.mark.parametrize("who", ["none", "nobody", "bob", "forged", "basic"])
async def test_nobody_gets_what_is_private_because_the_box_may_read_it(secretive: Bench, who: str) -> None:
    """DESIGN rule 3: up, down, with prefetch, with everything shared that can be."""
    headers = {
        "none": [],
        "nobody": [secretive.tokens[NOBODY, PRIVATE]],
        "bob": [secretive.tokens["bob", PRIVATE]],
        "forged": [("Authorization", "Bearer forged")],
        "basic": [("Authorization", "Basic Ym94Ondyb25n")],
    }[who]
    image = secretive.private
    held = [manifest(PRIVATE, one) for one in ("1", image.index, image.manifest)]
    held += [blob(PRIVATE, one) for one in (image.config, *image.layers, Digest.of(BIG[1:]))]
    for target in (*held, manifest(PRIVATE, "2"), blob(PRIVATE, Digest.of(b"unknown"))):
        for method in ("GET", "HEAD"):
            answer = await secretive.ask(method, target, *headers)
            await content(answer)
            assert answer.status in {401, 403}, (method, target, answer)
        for other in (PUBLIC, "org/other"):  # nor under the name of another repository
            answer, _ = await secretive.get(target.replace(PRIVATE, other), *headers)
            assert answer.status in {401, 403, 404, 502}, (other, target, answer)
    await settled()
    assert secretive.registry.by("box", "") == []
    assert secretive.known_public(PRIVATE) is not True


async def test_who_may_still_may(secretive: Bench) -> None:
    """Else the test above would prove nothing."""
    answers = await secretive.pull(secretive.private, PRIVATE, secretive.tokens["ann", PRIVATE])
    assert [answer.status for answer in answers] == [200] * 5


async def test_all_grants_are_those_of_clients(secretive: Bench) -> None:
    identities, issued = secretive.engine.reception._identities, secretive.registry.issued
    whose = {
        identities.identify("registry.test", f"Bearer {token}").credential: user for token, (user, _) in issued.items()
    }
    granted = [key.rpartition("/")[2] for key in secretive.grants() if PRIVATE in key]
    assert {whose.get(one, "account of a client") for one in granted} <= {"ann", "account of a client"}
    assert "ann" in {whose.get(one) for one in granted}


async def test_no_secret_is_written_down(sharing: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await sharing.log_in(NOBODY, PUBLIC)
    await sharing.pull(sharing.public, PUBLIC, token)
    digest = sharing.private.layers[1]
    await cut_half_way(sharing, PRIVATE, digest, await sharing.log_in("ann", PRIVATE))
    sharing.registry.accounts["box"] = "changed"
    sharing.clock.now += 1000
    push_image(sharing.registry, PUBLIC, tag="2", layers=(b"new",))
    await sharing.get(manifest(PUBLIC, "2"), await sharing.log_in(NOBODY, PUBLIC))
    assert "refused as wrong" in caplog.text
    kept = repr(list(sharing.records.scan(""))) + caplog.text + repr(sharing.known) + repr(vars(sharing.engine))
    boxes = [token for token, (user, _) in sharing.registry.issued.items() if user in {"box", NOBODY}]
    for secret in ("box-password", "Ym94OmJveC1wYXNzd29yZA", *boxes):
        assert secret not in kept
