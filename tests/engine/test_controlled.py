"""Tags under control, through the engine, against a registry on loopback (DESIGN rule 7)."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.engine.outages import REPOSITORY, Box, box
from tests.engine.test_engine import ACCEPT
from tests.fakes.images import Image, push_image
from tests.fakes.registry import Fault

from entrepot.engine import decree
from entrepot.engine.access import Access
from entrepot.engine.decree import Order, Step
from entrepot.engine.keeping import Keeping
from entrepot.engine.messages import Answer
from entrepot.engine.orders import Orders
from entrepot.engine.policy import Policy
from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute

OTHER_ACCEPT = ("Accept", mediatypes.DOCKER_MANIFEST)  # besides those that are always sent
BESIDE = ("gather", "prefetch", "transfer")  # names of tasks
GOOD = ("Authorization", "Bearer good")
DAY, TTL = 86400.0, 60.0
POLICY = Policy(tag=TTL, access=300.0, prefetch=False)
NAME = ("registry.test", REPOSITORY)


def orders(made: Box) -> Orders:
    return Orders(made.records, lambda _: 100)


def order(made: Box, why: str = "") -> Order:
    return Order(made.clock(), "alice", why)


async def do(made: Box, *steps: Step) -> None:
    await orders(made).carry_out(steps, order(made))


async def pull(made: Box, tag: str = "1", *headers: tuple[str, str], worker: int = 0) -> tuple[Answer, Digest]:
    answer, body = await made.workers[worker].get(f"/v2/{REPOSITORY}/manifests/{tag}", *headers)
    return answer, Digest.of(body)


async def moved(made: Box, *layers: bytes) -> Image:
    """Upstream moves the tag, and long enough has passed for the box to look."""
    image = push_image(made.registry, REPOSITORY, layers=layers or (b"new",))
    made.clock.now += TTL + 1
    return image


async def pushed(made: Box) -> None:
    """The tag has just been pushed through the box."""
    await made.one.engine.changed(made.one.known, ManifestRoute(REPOSITORY, "1"))


def reconfigure(made: Box, policy: Policy) -> None:
    for worker in made.workers:
        worker.engine.reconfigure(policy)


def digests(made: Box, tag: str = "1") -> Sequence[Sequence[tuple[str, bool, str]]]:
    """The histories of a tag: digest, whether it was taken up, how it was seen."""
    state = orders(made).state(*NAME, tag)
    return [[(move.digest, bool(move.taken), move.how) for move in moves] for moves in state.moves.values()]


class TestHistory:
    async def test_every_move_and_nothing_else_is_kept(self) -> None:
        async with box() as made:
            await pull(made)
            for _ in range(3):
                made.clock.now += TTL + 1
                await pull(made)
            new = await moved(made)
            await pull(made)
            assert digests(made) == [[(str(made.image.index), True, "pull"), (str(new.index), True, "check")]]
            (moves,) = orders(made).state(*NAME, "1").moves.values()
            assert moves[0].last == made.clock.now - TTL - 1  # until then it was seen
            assert moves[1].seen == moves[1].taken == made.clock.now
            assert moves[0].by == "nobody"
            assert moves[0].client

    async def test_it_is_bounded(self) -> None:
        async with box() as made:
            reconfigure(made, replace(POLICY, history=2))
            images = list[Image]()
            for layer in (b"x", b"y", b"z"):
                await pull(made)
                images.append(await moved(made, layer))
            await pull(made)
            (moves,) = orders(made).state(*NAME, "1").moves.values()
            assert [move.digest for move in moves] == [str(image.index) for image in images[1:]]

    async def test_no_credential_is_in_it(self) -> None:
        async with box() as made:
            made.registry.private.add(REPOSITORY)
            await pull(made, "1", GOOD)
            (moves,) = orders(made).state(*NAME, "1").moves.values()
            assert moves[0].by.startswith("credential:")
            assert "good" not in str(moves)


class TestHold:
    async def test_a_held_tag_is_served_without_asking(self) -> None:
        async with box(workers=2) as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            await moved(made)
            made.registry.forget()
            for worker in range(2):
                answer, digest = await pull(made, worker=worker)
                assert (answer.verdict, answer.why, digest) == ("held", "held", made.image.index)
                assert answer.headers.get("cache-status") == "entrepot; hit; detail=held"
            assert made.registry.requests() == []

    async def test_other_classes_of_accept_get_the_same(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            await moved(made)
            answer, digest = await pull(made, "1", OTHER_ACCEPT)
            assert (answer.verdict, digest) == ("held", made.image.index)

    async def test_a_tag_nobody_has_asked_for_is_held_as_it_is_first_seen(self) -> None:
        async with box() as made:
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            answer, _ = await pull(made)
            assert answer.verdict == "miss"
            await moved(made)
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("held", made.image.index)

    async def test_a_pattern_holds_what_comes(self) -> None:
        async with box() as made:
            await orders(made).add_pattern(f"registry.test/{REPOSITORY}:*", order(made))
            await pull(made)
            await moved(made)
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("held", made.image.index)
            assert answer.why == f"held by registry.test/{REPOSITORY}:*"
            (step,) = orders(made).to_release(f"registry.test/{REPOSITORY}:*", order(made))
            await orders(made).remove_pattern(f"registry.test/{REPOSITORY}:*", order(made))
            await do(made, step)
            answer, digest = await pull(made)
            assert digest != made.image.index

    async def test_a_pattern_holds_what_is_known_where_it_is(self) -> None:
        async with box() as made:
            await pull(made)
            await orders(made).add_pattern("registry.test/*:*", order(made))
            await moved(made)
            assert (await pull(made))[1] == made.image.index
            (held,) = orders(made).held()
            assert held.exact is not None
            assert held.exact.digest == str(made.image.index)  # also when the tag's record is purged

    async def test_one_tag_is_let_out_of_a_pattern(self) -> None:
        async with box() as made:
            await orders(made).add_pattern("registry.test/*:*", order(made))
            await pull(made)
            state = orders(made).state(*NAME, "1")
            await do(made, decree.release(state, order(made), covered=orders(made).is_covered(state)))
            new = await moved(made)
            assert (await pull(made))[1] == new.index

    async def test_a_digest_that_is_not_here_comes_from_upstream(self) -> None:
        async with box() as made:
            old = made.image
            await moved(made)
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), str(old.index), order(made)))
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("miss", old.index)
            assert (await pull(made))[0].verdict == "held"

    async def test_private_stays_private(self, caplog: pytest.LogCaptureFixture) -> None:
        """DESIGN rule 3: an order about a tag is no right to read it."""
        async with box() as made:
            made.registry.private.add(REPOSITORY)
            await pull(made, "1", GOOD)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            for headers in ((), (("Authorization", "Bearer bad"),)):
                answer, _ = await pull(made, "1", *headers)
                assert answer.status == 401
            with caplog.at_level(logging.INFO, "entrepot.audit"):
                assert (await pull(made, "1", GOOD))[0].verdict == "held"
            assert "ground=granted" in caplog.text

    async def test_a_digest_of_another_repository_is_not_served(self) -> None:
        """DESIGN rule 3: the digest must belong to the repository, whoever names it in an order."""
        async with box() as made:
            other = push_image(made.registry, "secret/app", layers=(b"secret",))
            await made.one.get("/v2/secret/app/manifests/1")
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), str(other.index), order(made)))
            answer, _ = await pull(made)
            assert answer.status == 404

    async def test_builds_go_on_when_upstream_deletes_it(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            made.registry.manifests.clear()
            made.registry.tags.clear()
            made.clock.now += 2 * DAY  # the proof that anyone may pull it is old
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("held", made.image.index)
            made.clock.now += 7 * DAY
            assert (await pull(made))[0].status == 404

    async def test_in_an_outage(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            await made.goes_down()
            made.clock.now += 2 * DAY
            assert (await pull(made))[0].verdict == "held"

    async def test_a_push_through_the_box_does_not_move_it(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            new = push_image(made.registry, REPOSITORY, layers=(b"pushed",))
            await pushed(made)
            assert (await pull(made))[1] == made.image.index
            await do(made, decree.release(orders(made).state(*NAME, "1"), order(made), covered=False))
            assert (await pull(made))[1] == new.index

    async def test_what_belongs_to_it_is_kept(self) -> None:
        """DESIGN rule 10: also what comes later."""
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            keeping = Keeping(made.records)
            assert keeping.is_kept(made.image.index)
            assert keeping.is_kept(made.image.manifest)
            assert not keeping.is_kept(made.image.layers[0])
            await pull(made, str(made.image.manifest))
            assert keeping.is_kept(made.image.layers[0])
            assert keeping.is_kept(made.image.config)
            await do(made, decree.release(orders(made).state(*NAME, "1"), order(made), covered=False))
            assert not keeping.is_kept(made.image.layers[0])
            assert not keeping.is_kept(made.image.index)

    async def test_new_tags_are_held_if_the_configuration_says_so(self) -> None:
        async with box() as made:
            await pull(made, "1")
            reconfigure(made, replace(POLICY, new="hold"))
            made.registry.tags[REPOSITORY, "2"] = made.image.index
            await pull(made, "2")
            new = await moved(made)
            push_image(made.registry, REPOSITORY, tag="2", layers=(b"two",))
            assert (await pull(made, "1"))[1] == new.index  # was known before
            answer, digest = await pull(made, "2")
            assert (answer.verdict, digest) == ("held", made.image.index)
            await do(made, decree.release(orders(made).state(*NAME, "2"), order(made), covered=False))
            assert (await pull(made, "2"))[1] != made.image.index


class TestPromote:
    async def test_to_what_the_registry_has_and_held_there(self) -> None:
        async with box(workers=2) as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            new = await moved(made)
            assert (await pull(made))[1] == made.image.index
            await do(made, decree.promote(orders(made).state(*NAME, "1"), "latest", order(made)))
            for worker in (1, 0):
                assert (await pull(made, worker=worker))[1] == new.index
            await moved(made, b"newer")
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("held", new.index)
            assert Keeping(made.records).is_kept(new.index)

    async def test_by_a_client_that_only_asks_what_it_is(self) -> None:
        """As docker does, which then gets the digest: the tag is that from then on, in the history too."""
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            new = await moved(made)
            await do(made, decree.promote(orders(made).state(*NAME, "1"), "latest", order(made)))
            answer = await made.one.ask("HEAD", f"/v2/{REPOSITORY}/manifests/1", ACCEPT)
            assert answer.headers.get("docker-content-digest") == str(new.index)
            await do(made, decree.rollback(orders(made).state(*NAME, "1"), "-1", order(made)))
            assert [one[:2] for one in digests(made)[0]] == [
                (str(made.image.index), True), (str(new.index), True), (str(made.image.index), True)
            ]  # fmt: skip

    async def test_while_upstream_is_away_it_stays(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            new = await moved(made)
            await made.goes_down()
            await do(made, decree.promote(orders(made).state(*NAME, "1"), "latest", order(made)))
            assert (await pull(made))[1] == made.image.index
            await made.registry.connections.plug_in()
            await made.one.knows_that_it_is_well()
            assert (await pull(made))[1] == new.index

    async def test_to_a_digest(self) -> None:
        async with box() as made:
            await pull(made)
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            new = await moved(made)
            await moved(made, b"newer")
            await do(made, decree.promote(orders(made).state(*NAME, "1"), str(new.index), order(made)))
            assert (await pull(made))[1] == new.index


class TestRollback:
    async def test_to_what_it_was_before(self) -> None:
        async with box(workers=2) as made:
            await pull(made)
            new = await moved(made)
            assert (await pull(made))[1] == new.index
            await do(made, decree.rollback(orders(made).state(*NAME, "1"), "-1", order(made)))
            for worker in (0, 1):
                answer, digest = await pull(made, worker=worker)
                assert (answer.verdict, digest) == ("held", made.image.index)
            assert digests(made)[0][-1] == (str(made.image.index), True, "rollback")

    async def test_it_follows_again_when_it_is_released(self) -> None:
        async with box() as made:
            await pull(made)
            new = await moved(made)
            await pull(made)
            await do(made, decree.rollback(orders(made).state(*NAME, "1"), "-1", order(made)))
            await do(made, decree.release(orders(made).state(*NAME, "1"), order(made), covered=False))
            assert (await pull(made))[1] == new.index
            assert [one[0] for one in digests(made)[0]] == [
                str(made.image.index), str(new.index), str(made.image.index), str(new.index)
            ]  # fmt: skip


class TestCooldown:
    @pytest.fixture
    def policy(self) -> Policy:
        return replace(POLICY, cooldown=DAY)

    async def test_a_move_waits(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            await pull(made)
            new = await moved(made)
            for _ in range(3):
                answer, digest = await pull(made)
                assert (answer.verdict, answer.why, digest) == ("held", "cooldown", made.image.index)
                assert (await pull(made))[0].why == "cooldown"  # from the record
                made.clock.now += DAY / 4
            made.clock.now += DAY / 2
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("miss", new.index)
            assert (await pull(made))[0].why == "fresh"

    async def test_a_move_that_is_taken_back_was_never_served(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            await pull(made)
            bad = await moved(made)
            await pull(made)
            made.registry.tags[REPOSITORY, "1"] = made.image.index
            made.clock.now += 2 * DAY
            answer, digest = await pull(made)
            assert (answer.verdict, digest) == ("revalidated", made.image.index)
            assert (str(bad.index), False, "check") in digests(made)[0]

    async def test_what_is_pushed_through_the_box_does_not_wait(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            await pull(made)
            new = push_image(made.registry, REPOSITORY, layers=(b"pushed",))
            await pushed(made)
            assert (await pull(made))[1] == new.index
            assert digests(made)[0][-1] == (str(new.index), True, "push")

    async def test_promoting_ends_the_wait(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            await pull(made)
            new = await moved(made)
            await pull(made)
            await do(made, decree.promote(orders(made).state(*NAME, "1"), "latest", order(made)))
            assert (await pull(made))[1] == new.index

    async def test_for_another_class_of_accept_too(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            await pull(made)
            await moved(made)
            answer, digest = await pull(made, "1", OTHER_ACCEPT)
            assert (answer.why, digest) == ("cooldown", made.image.index)

    async def test_of_a_registry_that_knows_no_head(self, policy: Policy) -> None:
        async with box() as made:
            reconfigure(made, policy)
            made.registry.faults.append(Fault("/manifests/", method="HEAD", status=405, count=99))
            await pull(made)
            await moved(made)
            answer, digest = await pull(made)
            assert (answer.why, digest) == ("cooldown", made.image.index)


def dated_name(made: Box, ago: float = 0.0) -> str:
    return datetime.fromtimestamp(made.clock.now - ago, UTC).strftime("1.%Y%m%d")


class TestDatedNames:
    async def test_what_a_tag_was_on_a_day_and_in_a_minute(self) -> None:
        async with box() as made:
            await pull(made)
            made.clock.now += 3 * DAY
            new = await moved(made)
            await pull(made)
            answer, digest = await pull(made, dated_name(made, 2 * DAY))
            assert (answer.status, digest, answer.why) == (200, made.image.index, "what 1 was")
            assert answer.headers.get("cache-status") == "entrepot; hit; detail=dated"
            assert (await pull(made, dated_name(made)))[1] == new.index
            minute = datetime.fromtimestamp(made.clock.now - TTL - 60, UTC).strftime("1.%Y%m%dT%H%M")
            assert (await pull(made, minute))[1] == made.image.index

    async def test_before_and_after_all_that_is_known_there_is_none(self) -> None:
        async with box() as made:
            await pull(made)
            for ago in (2 * DAY, -2 * DAY):
                assert (await pull(made, dated_name(made, ago)))[0].status == 404

    async def test_a_tag_of_upstream_goes_before(self) -> None:
        async with box() as made:
            await pull(made)
            name = dated_name(made)
            own = push_image(made.registry, REPOSITORY, tag=name, layers=(b"own",))
            answer, digest = await pull(made, name)
            assert digest == own.index
            assert "upstream's own" in answer.headers.get("cache-status", "")

    async def test_in_an_outage(self) -> None:
        async with box() as made:
            await pull(made)
            await made.goes_down()
            answer, digest = await pull(made, dated_name(made))
            assert (answer.status, digest) == (200, made.image.index)

    async def test_what_is_private_stays_so(self) -> None:
        async with box() as made:
            made.registry.private.add(REPOSITORY)
            await pull(made, "1", GOOD)
            assert (await pull(made, dated_name(made)))[0].status == 401
            assert (await pull(made, dated_name(made), GOOD))[1] == made.image.index
            made.registry.credentials.clear()  # a refusal is passed on, whatever was granted before
            made.clock.now += 6  # that there is no such tag is remembered for 5 seconds
            assert (await pull(made, dated_name(made), GOOD))[0].status == 401

    async def test_while_it_is_rolled_back_the_name_says_so(self) -> None:
        async with box() as made:
            await pull(made)
            await moved(made)
            await pull(made)
            await do(made, decree.rollback(orders(made).state(*NAME, "1"), "-1", order(made)))
            made.clock.now += DAY
            assert (await pull(made, dated_name(made)))[1] == made.image.index


class TestRules:
    async def test_denied_is_403_with_the_reason(self) -> None:
        async with box() as made:
            await pull(made)
            reconfigure(made, replace(POLICY, deny=(f"registry.test/{REPOSITORY}:1",)))
            made.registry.forget()
            for name in ("1", dated_name(made), str(made.image.index)):
                answer, body = await made.one.get(f"/v2/{REPOSITORY}/manifests/{name}")
                assert (answer.status, answer.verdict) == (403, "denied")
                assert b'"DENIED"' in body
                assert f"registry.test/{REPOSITORY}:1".encode() in body
            assert made.registry.requests() == []
            made.registry.tags[REPOSITORY, "2"] = made.image.index
            assert (await pull(made, "2"))[0].status == 200
            assert (await pull(made, str(made.image.index)))[0].status == 200  # it is another tag's too

    async def test_a_repository_is_denied_with_its_blobs(self) -> None:
        async with box() as made:
            await pull(made)
            reconfigure(made, replace(POLICY, deny=("registry.test/*",)))
            answer, _ = await made.one.get(f"/v2/{REPOSITORY}/blobs/{made.image.config}")
            assert answer.status == 403


async def test_membership_is_not_made_by_orders() -> None:
    """What an order names does not belong to the repository by that."""
    async with box() as made:
        other = Digest.of(b"never seen")
        await do(made, decree.hold(orders(made).state(*NAME, "1"), str(other), order(made)))
        assert not Access(made.records, made.clock).belongs(*NAME, other)


class TestGathering:
    @pytest.fixture
    def policy(self) -> Policy:
        return replace(POLICY, prefetch=True)

    async def test_what_is_missing_of_a_held_image_is_fetched(self, policy: Policy) -> None:
        """The rest of a platform of which there is something, and what refers to the image; and it is kept."""
        async with box() as made:
            signature = made.registry.push_blob(REPOSITORY, b"signature")
            descriptor = {"mediaType": "application/x", "digest": str(signature), "size": 9}
            document = {
                "schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, "artifactType": "application/x",
                "config": descriptor, "layers": [], "subject": {**descriptor, "digest": str(made.image.index)},
            }  # fmt: skip
            signed = made.registry.push_manifest(REPOSITORY, json.dumps(document).encode())
            listed = {"schemaVersion": 2, "manifests": [{**descriptor, "digest": str(signed)}]}
            made.registry.pages[f"/v2/{REPOSITORY}/referrers/{made.image.index}"] = json.dumps(listed).encode(), {}
            await pull(made)
            await pull(made, str(made.image.manifest))
            await made.one.get(f"/v2/{REPOSITORY}/blobs/{made.image.config}")
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            reconfigure(made, policy)
            assert (await pull(made))[0].verdict == "held"
            async with asyncio.timeout(10):
                while not {signature, *made.image.layers} <= made.blobs.blobs.keys():
                    await asyncio.sleep(0.01)
            assert Keeping(made.records).is_kept(signature)
            await pull(made)
            assert len(made.registry.requests("/referrers/")) == 1

    async def test_other_platforms_are_not(self, policy: Policy) -> None:
        async with box() as made:
            await pull(made)
            await pull(made, str(made.image.manifest))
            await do(made, decree.hold(orders(made).state(*NAME, "1"), "", order(made)))
            reconfigure(made, policy)
            await pull(made)
            await made.registry.arrived("/referrers/")
            while tasks := [each for each in asyncio.all_tasks() if each.get_name().startswith(BESIDE)]:
                await asyncio.wait(tasks)
            assert made.registry.requests("/blobs/") == []
