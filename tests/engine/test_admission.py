"""What each word of the registry changes about who may read (DESIGN rule 3)."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.access import Access
from entrepot.engine.admission import LOOK_AGAIN, SURE, Admission
from entrepot.engine.identity import ANONYMOUS, Identity
from entrepot.engine.messages import PullRequest
from entrepot.engine.policy import Policy
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor
from entrepot.registry.routes import ManifestRoute

REPOSITORY = "org/app"
POLICY = Policy(access=300.0, public=86_400.0, grace=604_800.0)
LAYER = Descriptor("application/octet-stream", Digest.of(b"layer"), 5)


@dataclass
class Looker:
    """Stands for the anonymous look: says what it is told."""

    says: bool | None = None
    looks: int = 0
    answers: int | None = None  # the status, for who wants to know it

    async def look(self, request: PullRequest, repository: str, reference: Digest | str) -> bool | None:
        self.looks += 1
        return self.says

    async def status(self, request: PullRequest, repository: str, reference: Digest | str) -> int | None:
        self.looks += 1
        return self.answers


@dataclass
class Bench:
    looker: Looker = field(default_factory=Looker)
    now: float = 1000.0
    down: bool = False
    told: list[Identity] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.access = Access(MemoryRecords(lambda: self.now), lambda: self.now)

        async def told(request: PullRequest) -> Identity:
            self.told.append(request.identity)
            return request.identity

        self.admission = Admission(
            self.access,
            self.looker,  # type: ignore[arg-type]  # as much of it as is used
            POLICY,
            is_out=lambda request: self.down,
            on_accepted=told,
        )

    def request(self, who: str = "token", *, account: str = "", own: bool = False) -> PullRequest:
        found = Catalogue.builtin().match("quay.io")
        assert found is not None
        identity = Identity("quay.io", who, account, anonymous=who == ANONYMOUS, own=own, grace=own)
        headers = Headers([] if who == ANONYMOUS else [("Authorization", f"Bearer {who}")])
        return PullRequest("GET", found.registry, ManifestRoute(REPOSITORY, "1"), headers, "127.0.0.1", identity)

    def admits(self, who: str = "token", *, account: str = "", own: bool = False) -> str | None:
        return self.admission.admits(self.request(who, account=account, own=own), REPOSITORY)

    async def accepted(self, who: str = "token", *, account: str = "") -> None:
        await self.admission.accepted(self.request(who, account=account), REPOSITORY, "1")
        await settle()


async def settle() -> None:
    while looks := [task for task in asyncio.all_tasks() if task.get_name().startswith("look")]:
        await asyncio.wait(looks)


async def test_nobody_is_let_in_unasked() -> None:
    bench = Bench()
    assert bench.admits() is None
    assert bench.admits(ANONYMOUS) is None
    bench.down = True
    assert bench.admits() is None
    assert bench.admits(own=True) is None


async def test_what_nobody_was_given_anyone_may_have() -> None:
    bench = Bench()
    await bench.accepted(ANONYMOUS)
    assert bench.admits("whoever") == "public"
    assert bench.looker.looks == 0
    bench.now += POLICY.public
    assert bench.admits("whoever") is None
    bench.down = True
    assert bench.admits("whoever") == "public"


async def test_an_accepted_credential_is_let_in_again_and_no_other() -> None:
    bench = Bench(Looker(False))
    await bench.accepted("hers")
    assert bench.admits("hers") == "credential"
    assert bench.admits("his") is None
    assert bench.admits(ANONYMOUS) is None
    bench.now += POLICY.access
    assert bench.admits("hers") is None


async def test_in_an_outage_the_last_yes_stands_for_the_grace() -> None:
    bench = Bench(Looker(False))
    await bench.accepted("hers", account="her")
    bench.now += POLICY.access
    bench.down = True
    assert bench.admits("her next token", account="her") == "account"
    assert bench.admits("his", account="him") is None
    bench.now += POLICY.grace - POLICY.access - 1
    assert bench.admits("her next token", account="her") == "account"
    bench.now += 1
    assert bench.admits("her next token", account="her") is None


async def test_a_token_of_ours_has_the_grace_whatever_the_registry_does() -> None:
    """The token service alone may be down."""
    bench = Bench(Looker(False))
    await bench.accepted("hers", account="her")
    bench.now += POLICY.access
    assert bench.admits("ours", account="her", own=True) == "account"
    assert bench.admits("ours", own=True) is None


async def test_one_look_tells_whether_anyone_might_have_had_it() -> None:
    bench = Bench(Looker(True))
    await bench.accepted("hers", account="her")
    assert bench.admits("whoever") == "public"
    assert bench.told == []  # her password is worth nothing here: nothing is kept of it
    await bench.accepted("hers", account="her")
    assert bench.looker.looks == 1


async def test_a_private_repository_is_looked_at_now_and_then() -> None:
    bench = Bench(Looker(False))
    await bench.accepted("0123456789abcdef", account="her")
    await bench.accepted("0123456789abcdef", account="her")
    assert bench.looker.looks == 1
    assert [identity.account for identity in bench.told] == ["her", "her"]
    bench.now += LOOK_AGAIN
    bench.looker.says = True
    await bench.accepted("0123456789abcdef")
    assert bench.admits("whoever") == "public"


async def test_a_look_without_a_verdict_changes_nothing() -> None:
    bench = Bench(Looker(None))
    await bench.accepted("hers")
    assert bench.admits("hers") == "credential"
    assert bench.admits("his") is None
    assert bench.told == []


async def test_a_refusal_ends_the_grant_and_makes_look_again() -> None:
    bench = Bench(Looker(False))
    await bench.accepted(ANONYMOUS)
    await bench.accepted("hers")
    await bench.admission.refused(bench.request("hers"), REPOSITORY, 403)
    await settle()
    assert bench.looker.looks == 1
    assert bench.admits("hers") is None
    assert bench.told == []  # a refusal is no admission


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_what_is_no_refusal_ends_nothing(status: int) -> None:
    bench = Bench(Looker(False))
    await bench.accepted("hers")
    await bench.admission.refused(bench.request("hers"), REPOSITORY, status)
    assert bench.admits("hers") == "credential"


async def test_who_comes_without_a_credential_is_challenged_without_a_look() -> None:
    """A challenge is not a verdict."""
    bench = Bench(Looker(False))
    await bench.accepted(ANONYMOUS)
    await bench.admission.refused(bench.request(ANONYMOUS), REPOSITORY, 401)
    await settle()
    assert bench.looker.looks == 0
    assert bench.admits(ANONYMOUS) == "public"


async def test_what_a_public_repository_serves_is_no_secret_anywhere() -> None:
    bench = Bench(Looker(False))
    request = bench.request(ANONYMOUS)
    await bench.admission.served(request, "org/private", LAYER)
    assert not bench.access.is_open_secret(LAYER.digest)
    await bench.accepted(ANONYMOUS)
    await bench.admission.served(request, REPOSITORY, LAYER)
    assert bench.access.is_open_secret(LAYER.digest)
    assert bench.admission.belongs(replace(request), REPOSITORY, LAYER.digest)


async def test_what_the_box_is_given_is_nobodys_right() -> None:
    """DESIGN rule 3: neither a grant of the client that asks nor a proof that anyone may."""
    bench = Bench(Looker(False))
    for who in (ANONYMOUS, "his"):
        request = bench.request(who)
        await bench.admission.accepted(replace(request, asks="box"), REPOSITORY, "1")
        await bench.admission.accepted(replace(request, asks="nobody"), REPOSITORY, "1")
        await settle()
        assert bench.admits(who) is None
    assert bench.access.publicness("quay.io", REPOSITORY) is None
    assert (bench.looker.looks, bench.told) == (0, [])


async def test_what_the_box_is_refused_costs_nobody_anything() -> None:
    bench = Bench(Looker(False))
    await bench.accepted("hers")
    await bench.accepted(ANONYMOUS)
    for status in (401, 403):
        await bench.admission.refused(replace(bench.request("hers"), asks="box"), REPOSITORY, status)
    await settle()
    bench.now += 1
    assert bench.looker.looks == 1  # of her being accepted
    assert bench.admits("whoever") == "public"
    assert bench.access.granted(REPOSITORY, bench.request("hers").identity, POLICY.access) == "credential"


async def test_what_nobody_is_refused_is_looked_at_at_once() -> None:
    bench = Bench(Looker(False))
    await bench.accepted(ANONYMOUS)
    await bench.admission.refused(replace(bench.request(ANONYMOUS), asks="nobody"), REPOSITORY, 401)
    assert bench.admits(ANONYMOUS) is None


@pytest.mark.parametrize(
    ("answers", "sure", "public"),
    [(200, True, True), (304, True, True), (401, False, False), (403, False, False), (404, False, True)],
)
async def test_before_the_box_asks_for_others_nobody_does(answers: int, sure: bool, public: bool) -> None:
    bench = Bench(Looker(answers=answers))
    await bench.accepted(ANONYMOUS)
    request = bench.request(ANONYMOUS)
    assert await bench.admission.is_surely_public(request, REPOSITORY, "1")
    assert bench.looker.looks == 0
    bench.now += SURE
    assert not await bench.admission.is_surely_public(request, REPOSITORY, None)
    assert await bench.admission.is_surely_public(request, REPOSITORY, "1") is sure
    assert bench.admission.is_public(request, REPOSITORY) is public
    assert bench.looker.looks == 1


@pytest.mark.parametrize("answers", [None, 429, 500])
async def test_when_the_registry_does_not_say_what_is_known_counts(answers: int | None) -> None:
    bench = Bench(Looker(answers=answers))
    request = bench.request(ANONYMOUS)
    assert not await bench.admission.is_surely_public(request, REPOSITORY, "1")
    await bench.accepted(ANONYMOUS)
    bench.now += SURE
    assert await bench.admission.is_surely_public(request, REPOSITORY, "1")
    bench.now += POLICY.public
    assert not await bench.admission.is_surely_public(request, REPOSITORY, "1")
