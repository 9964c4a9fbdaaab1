"""Tags and referrers: upstream's own answer, or the last good one while there is none (DESIGN rule 5)."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.engine import outages
from tests.engine.outages import MANIFEST, REPOSITORY, TAGS, Box
from tests.engine.test_engine import GOOD
from tests.fakes.images import push_image
from tests.fakes.registry import Fault

from entrepot.engine import lists
from entrepot.engine.bodies import PassingBody
from entrepot.engine.lists import MAX_LIST, UNCHANGED
from entrepot.registry.mediatypes import OCI_INDEX

BODY = b'{"name":"org/app","tags":["1","2"]}'
LINK = ("Link", f'<{TAGS}?last=1&n=1>; rel="next"')
GRACE = 7 * 86400.0


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A client has pulled the image, so that it may have what is remembered."""
    async with outages.box() as made:
        made.registry.pages[TAGS] = BODY, {}
        await made.one.get(MANIFEST)
        yield made


def written(box: Box) -> list[str]:
    return [key for key, _ in box.records.scan("list/")]


class TestWhileUpstreamIsThere:
    async def test_its_answer_is_passed_on_every_time(self, box: Box) -> None:
        box.registry.forget()
        for tags in (BODY, b'{"name":"org/app","tags":["1","2","3"]}'):
            box.registry.pages[TAGS] = tags, dict([LINK, ("X-Total-Count", "2")])
            answer, body = await box.one.get(TAGS)
            assert (answer.status, answer.verdict, body) == (200, "pass", tags)
            assert answer.headers.get("content-type") == "application/json"
            assert answer.headers.get("link") == LINK[1]
            assert answer.headers.get("x-total-count") == "2"
            assert "age" not in answer.headers
        assert box.registry.requests() == [f"GET {TAGS}"] * 2

    @pytest.mark.parametrize("status", [401, 403, 404, 405])
    async def test_a_refusal_is_passed_on_and_not_remembered(self, box: Box, status: int) -> None:
        await box.one.get(TAGS)
        box.registry.faults.append(Fault(path="/tags/", status=status))
        answer, body = await box.one.get(TAGS)
        assert (answer.status, answer.verdict) == (status, "refused")
        assert b"injected" in body
        await box.goes_down()
        assert (await box.one.get(TAGS))[1] == BODY

    async def test_a_long_list_is_passed_on_as_it_comes(self, box: Box) -> None:
        tags = json.dumps({"tags": ["x" * 100] * (2 * MAX_LIST // 100)}).encode()
        box.registry.pages[TAGS] = tags, {}
        answer, body = await box.one.get(TAGS)
        assert (answer.status, body) == (200, tags)
        assert written(box) == []

    async def test_a_list_of_just_the_limit_is_remembered(self, box: Box) -> None:
        tags = b'{"tags":["%s"]}' % (b"x" * (MAX_LIST - 13))
        assert len(tags) == MAX_LIST
        box.registry.pages[TAGS] = tags, {}
        await box.one.get(TAGS)
        await box.goes_down()
        assert (await box.one.get(TAGS))[1] == tags

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            (b"<html>please log in</html>", {"Content-Type": "text/html"}),
            (b"<html>please log in</html>", {}),
            (b'{"tags":["1"', {}),
            (b'["1"]', {}),
            (b'{"tags":["\xff"]}', {}),
            (b"\x1f\x8b...", {"Content-Encoding": "gzip"}),
        ],
    )
    async def test_what_is_no_list_is_passed_on_and_not_remembered(
        self, box: Box, body: bytes, fields: dict[str, str]
    ) -> None:
        """Rule 1: a gateway's page must not stand for a list for days."""
        box.registry.pages[TAGS] = body, fields
        answer, passed = await box.one.get(TAGS)
        assert (answer.status, passed) == (200, body)
        assert answer.headers.get("content-encoding") == fields.get("Content-Encoding")
        assert written(box) == []

    async def test_the_same_answer_is_not_written_each_time(self, box: Box) -> None:
        for seconds in (0.0, 1.0, UNCHANGED, UNCHANGED - 1.0):
            box.clock.now += seconds
            await box.one.get(TAGS)
        await box.goes_down()
        answer, _ = await box.one.get(TAGS)
        assert answer.headers.get("age") == str(int(UNCHANGED - 1.0))

    async def test_a_redirect_is_followed_inside(self, box: Box) -> None:
        """And the next page is where the answer came from, not where the client asked."""
        box.cdn.pages["/elsewhere/tags/list"] = BODY, {"Link": '<list?last=1>; rel="next", </v2/x>; rel="x"'}
        box.cdn.pages["/v2/elsewhere/tags/list"] = box.cdn.pages.pop("/elsewhere/tags/list")
        where = f"{box.cdn.url}/v2/elsewhere/tags/list"
        box.registry.faults.append(Fault(path="/tags/", status=307, headers={"Location": where}))
        answer, body = await box.one.get(TAGS, GOOD)
        assert (answer.status, body) == (200, BODY)
        there = f"{box.cdn.url}/v2"
        assert answer.headers.get("link") == f'<{there}/elsewhere/tags/list?last=1>; rel="next", <{there}/x>; rel="x"'
        assert not box.cdn.seen[0].authorized

    async def test_a_redirect_within_the_registry_shows_no_name_of_ours(self, box: Box) -> None:
        box.registry.pages["/v2/moved/tags/list"] = BODY, {"Link": '<?last=1>; rel="next"'}
        box.registry.faults.append(Fault(path="/tags/", status=301, headers={"Location": "/v2/moved/tags/list"}))
        answer, _ = await box.one.get(TAGS)
        assert answer.headers.get("link") == '</v2/moved/tags/list?last=1>; rel="next"'


class TestWhileItIsDown:
    async def test_who_may_read_the_repository_has_the_last_answer(self, box: Box) -> None:
        box.registry.pages[TAGS] = BODY, dict([LINK, ("Set-Cookie", "a=b"), ("X-Request-Id", "7")])
        await box.one.get(TAGS)
        await box.goes_down()
        box.clock.now += 100.0
        answer, body = await box.one.get(TAGS)
        assert (answer.status, answer.verdict, answer.why, body) == (200, "stale", "upstream is down", BODY)
        assert answer.admitted == "public"
        assert {name.lower(): value for name, value in answer.headers} == {
            "content-type": "application/json",
            "link": LINK[1],
            "age": "100",
            "cache-status": "entrepot; hit; detail=stale",
            "warning": '111 entrepot "Revalidation Failed"',
            "x-entrepot": "stale",
        }

    async def test_each_page_is_remembered_by_itself(self, box: Box) -> None:
        for query in ("?n=1", "?last=1&n=1"):
            box.registry.pages[TAGS + query] = json.dumps({"tags": [query]}).encode(), {}
            await box.one.get(TAGS + query)
        await box.goes_down()
        for query in ("?n=1", "?last=1&n=1"):
            assert json.loads((await box.one.get(TAGS + query))[1]) == {"tags": [query]}
        assert (await box.one.get(TAGS))[0].status == 502  # never asked for

    async def test_pages_share_a_bounded_number_of_places(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lists, "PAGES", 2)
        for number in range(20):
            box.registry.pages[f"{TAGS}?n={number}"] = BODY, {}
            await box.one.get(f"{TAGS}?n={number}")
        assert len(written(box)) == 2
        await box.goes_down()
        served = [(await box.one.get(f"{TAGS}?n={number}"))[0].status for number in range(20)]
        assert served.count(200) == 2  # and never one page for another

    async def test_it_is_kept_as_long_as_outages_are_bridged(self, box: Box) -> None:
        await box.one.get(TAGS)
        await box.one.get(MANIFEST)
        await box.goes_down()
        box.clock.now += GRACE
        assert (await box.one.get(TAGS))[0].status != 200

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_trouble_is_not_passed_on_either(self, box: Box, status: int) -> None:
        await box.one.get(TAGS)
        box.registry.faults.append(Fault(path="/tags/", status=status))
        answer, body = await box.one.get(TAGS)
        assert (answer.status, answer.verdict, body) == (200, "stale", BODY)

    async def test_nor_is_a_body_that_breaks(self, box: Box) -> None:
        await box.one.get(TAGS)
        box.registry.faults.append(Fault(path="/tags/", cut_after=5))
        answer, body = await box.one.get(TAGS)
        assert (answer.status, answer.verdict, body) == (200, "stale", BODY)

    async def test_a_client_does_not_wait_for_a_slow_one(self, box: Box) -> None:
        await box.one.get(TAGS)
        box.registry.silent = asyncio.Event()
        box.one.has_no_patience()
        answer, body = await box.one.get(TAGS)
        assert (answer.status, answer.verdict, answer.why, body) == (200, "stale", "upstream is slow", BODY)
        box.registry.forget()
        answer, _ = await box.one.get(TAGS)
        assert (answer.verdict, answer.why) == ("stale", "upstream is down")
        assert f"GET {TAGS}" not in box.registry.requests()
        box.registry.silent.set()
        await box.one.knows_that_it_is_well()

    async def test_what_comes_late_is_remembered(self, box: Box) -> None:
        await box.one.get(TAGS)
        box.registry.silent = asyncio.Event()
        new = b'{"name":"org/app","tags":["3"]}'
        box.registry.pages[TAGS] = new, {}
        box.one.has_no_patience()
        assert (await box.one.get(TAGS))[1] == BODY
        box.registry.silent.set()
        await box.one.knows_that_it_is_well()
        async with asyncio.timeout(5):
            while new.decode() not in str(list(box.records.scan("list/"))):
                await asyncio.sleep(0.01)

    async def test_a_long_one_that_comes_late_is_let_go(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = asyncio.Event()

        class Watched(PassingBody):
            def close(self) -> None:
                super().close()
                closed.set()

        monkeypatch.setattr(lists, "PassingBody", Watched)
        await box.one.get(TAGS)
        box.registry.silent = asyncio.Event()
        box.registry.pages[TAGS] = b"x" * (8 * MAX_LIST), {}
        box.one.has_no_patience()
        assert (await box.one.get(TAGS))[1] == BODY
        box.registry.silent.set()
        await asyncio.wait_for(closed.wait(), 5)


class TestPrivate:
    """Rule 3, in an outage too."""

    @pytest.fixture
    async def private(self, box: Box) -> Box:
        repository = "org/private"
        box.registry.private.add(repository)
        image = push_image(box.registry, repository)
        box.registry.pages[f"/v2/{repository}/tags/list"] = BODY, {}
        box.registry.pages[f"/v2/{repository}/referrers/{image.index}"] = BODY, {}
        await box.one.get(f"/v2/{repository}/manifests/1", GOOD)
        for target in self.targets(box):
            assert (await box.one.get(target, GOOD))[0].status == 200
        await box.goes_down()
        return box

    def targets(self, box: Box) -> list[str]:
        return [path for path in box.registry.pages if "private" in path]

    async def test_whom_the_registry_has_admitted(self, private: Box) -> None:
        for target in self.targets(private):
            answer, body = await private.one.get(target, GOOD)
            assert (answer.verdict, answer.admitted, body) == ("stale", "credential", BODY)

    async def test_an_old_yes_counts_only_when_nobody_can_be_asked(self, private: Box) -> None:
        """Beyond `access_ttl`, and within `outage_grace`."""
        private.clock.now += 1000.0
        for target in self.targets(private):
            answer, body = await private.one.get(target, GOOD)
            assert (answer.verdict, answer.admitted, body) == ("stale", "credential", BODY)
        await private.registry.connections.plug_in()
        private.clock.now += 1.0
        await private.one.get(MANIFEST + "00")  # refused, and has it looked at
        await private.one.knows_that_it_is_well()
        private.registry.faults.append(Fault(path="/tags/", status=503, count=1000))
        for _ in range(10):  # a client can make it look sick, and gains nothing by it
            answer, body = await private.one.get(self.targets(private)[0], GOOD)
            assert (answer.status, answer.admitted) == (503, "")
            assert b"tags" not in body

    @pytest.mark.parametrize("credential", [None, "Bearer bad", "Basic Z29vZDo="])
    async def test_nobody_else(self, private: Box, credential: str | None) -> None:
        more = [("Authorization", credential)] if credential else []
        targets = self.targets(private)
        assert len(targets) == 2
        for target in targets:
            answer, body = await private.one.get(target, *more)
            assert answer.status in {401, 502}
            assert b"tags" not in body


class TestReferrers:
    def target(self, box: Box, query: str = "") -> str:
        return f"/v2/{REPOSITORY}/referrers/{box.image.index}{query}"

    async def test_they_are_remembered_with_their_filter(self, box: Box) -> None:
        target = self.target(box, "?artifactType=application/x")
        body = b'{"schemaVersion":2,"manifests":[]}'
        box.registry.pages[target] = body, {"Content-Type": OCI_INDEX, "OCI-Filters-Applied": "artifactType"}
        answer, _ = await box.one.get(target)
        assert answer.verdict == "pass"
        await box.goes_down()
        answer, same = await box.one.get(target)
        assert (answer.verdict, same) == ("stale", body)
        assert answer.headers.get("content-type") == OCI_INDEX
        assert answer.headers.get("oci-filters-applied") == "artifactType"

    async def test_of_what_the_repository_is_not_known_to_have_nothing_is(self, box: Box) -> None:
        """Registries answer for any digest: it would cost nothing to fill the disk."""
        target = f"/v2/{REPOSITORY}/referrers/sha256:{'ab' * 32}"
        box.registry.pages[target] = b'{"manifests":[]}', {"Content-Type": OCI_INDEX}
        assert (await box.one.get(target))[0].status == 200
        assert written(box) == []
