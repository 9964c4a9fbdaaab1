"""Who requests stand for: what was learnt of their tokens, and what their passwords are worth while nobody can ask."""

from dataclasses import replace
from math import inf

import pytest
from tests.engine.test_engine import Clock
from tests.fakes.tokens import basic

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.claims import Claim
from entrepot.engine.identity import ANONYMOUS, REMEMBERED_FOR, VOID, Identities, Identity, Issued
from entrepot.engine.keys import Keys
from entrepot.engine.owntokens import LIFE, OwnTokens
from entrepot.engine.policy import Policy
from entrepot.engine.verifiers import Verifiers
from entrepot.registry.catalogue import Catalogue, RegistryOverride

REGISTRY = Catalogue([]).with_overrides([RegistryOverride("a.test")]).registries()[0]
KEYS = Keys(b"k" * 32)
APP = frozenset({"org/app"})
ANN = basic("ann", "anns-password")[1]


class Process:
    """Of a box whose processes share the records."""

    def __init__(self, records: MemoryRecords, clock: Clock) -> None:
        self.clock = clock
        self.own = OwnTokens(KEYS.own_tokens, clock)
        self.verifiers = Verifiers(records, KEYS, Policy(), clock)
        self.identities = Identities(records, KEYS, self.own, self.verifiers, clock)

    def identify(self, authorization: str | None) -> Identity:
        return self.identities.identify("a.test", authorization)

    async def offline(self, authorization: str | None) -> Identity:
        return await self.identities.identify_offline(REGISTRY, authorization)

    async def accepted(self, authorization: str) -> Identity:
        return await self.identities.accepted(REGISTRY, self.identify(authorization), authorization)

    async def issue(self, token: str, claim: Claim | None = None, life: float = 300.0) -> str:
        """As when a token service gives it out; what a client sends then."""
        until = self.clock() + life
        if claim is None:
            await self.identities.learn(token, Issued(until, anonymous=True))
        else:
            proof = await self.verifiers.proof(REGISTRY, claim)
            assert proof is not None
            account = self.verifiers.account(REGISTRY, proof)
            await self.identities.learn(token, Issued(until, False, account, APP, proof))
        self.clock.now += 1
        return f"Bearer {token}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> MemoryRecords:
    return MemoryRecords(clock)


@pytest.fixture
def one(records: MemoryRecords, clock: Clock) -> Process:
    return Process(records, clock)


@pytest.fixture
def two(records: MemoryRecords, clock: Clock) -> Process:
    return Process(records, clock)


def test_no_credential_is_nobody(one: Process) -> None:
    for nothing in (None, ""):
        assert one.identify(nothing) == Identity("a.test", ANONYMOUS, anonymous=True)


@pytest.mark.parametrize("authorization", ["Bearer unknown", ANN, "Negotiate abc", "x", "Bearer ", "Bearer \udcff"])
def test_a_credential_of_which_nothing_is_known_stands_for_itself(one: Process, authorization: str) -> None:
    found = one.identify(authorization)
    assert found == Identity("a.test", KEYS.credential("a.test", authorization))
    assert found.until == inf
    assert found != one.identities.identify("b.test", authorization)
    assert authorization not in repr(found)


async def test_a_token_issued_to_nobody(one: Process, two: Process, clock: Clock) -> None:
    until = clock() + 300
    found = two.identify(await one.issue("t"))
    assert (found.anonymous, found.account, found.until) == (True, "", until)
    assert found.credential != ANONYMOUS, "grants of one are not those of the other"


async def test_a_token_is_known_at_every_registry(one: Process) -> None:
    """lscr.io challenges with the realm of ghcr.io."""
    assert one.identities.identify("b.test", await one.issue("t")).anonymous


async def test_what_was_learnt_ends_with_the_token(one: Process, clock: Clock) -> None:
    authorization = await one.issue("t", life=100)
    assert one.identify(authorization).anonymous
    clock.now += 100
    assert not one.identify(authorization).anonymous


async def test_a_token_is_of_an_account_only_after_it_was_admitted(one: Process, two: Process, clock: Clock) -> None:
    claim = Claim("ann", "anns-password")
    authorization = await one.issue("t1", claim)
    assert one.identify(authorization).account == two.identify(authorization).account == ""
    found = await two.accepted(authorization)
    assert found.account != ""
    assert two.identify(authorization).account == found.account, "the process that knows does at once"
    clock.now += REMEMBERED_FOR
    assert one.identify(authorization).account == found.account
    again = one.identify(await one.issue("t2", claim))
    assert (again.account, again.anonymous) == (found.account, False)
    wrong = one.identify(await one.issue("t3", Claim("ann", "wrong")))
    assert (wrong.account, wrong.anonymous) == ("", False)


async def test_a_token_for_one_repository_opens_no_other(one: Process) -> None:
    found = await one.accepted(await one.issue("t1", Claim("ann", "anns-password")))
    for each in (found, one.identify("Bearer t1")):
        assert each.account_for("org/app") == found.account != ""
        assert each.account_for("org/other") == ""


async def test_nobody_is_no_account_however_often_admitted(one: Process, records: MemoryRecords) -> None:
    authorization = await one.issue("t")
    assert await one.accepted(authorization) == one.identify(authorization)
    assert await one.accepted("Bearer unknown") == one.identify("Bearer unknown")
    assert await one.identities.accepted(REGISTRY, one.identify(None), None) == one.identify(None)
    assert list(records.scan("verifier/")) == []


async def test_a_password_sent_to_the_registry_itself(one: Process, two: Process) -> None:
    assert (await one.offline(ANN)) == one.identify(ANN), "nothing is known of it: what it was granted itself counts"
    account = (await one.accepted(ANN)).account
    assert account != ""
    for process in (one, two):
        found = await process.offline(ANN)
        assert found == replace(process.identify(ANN), account=account, offline=True)
        assert found.account_for("any/thing") == account
        wrong = await process.offline(basic("ann", "wrong")[1])
        assert (wrong.credential[: len(VOID)], wrong.account, wrong.anonymous) == (VOID, "", False)
        assert wrong.credential != (await process.offline(basic("ann", "wrong")[1])).credential


async def test_an_old_password_is_void_even_if_it_was_granted_something(one: Process, two: Process) -> None:
    await one.accepted(ANN)
    one.clock.now += 10
    await two.accepted(basic("ann", "changed")[1])
    assert (await one.offline(ANN)).credential.startswith(VOID)
    assert (await two.offline(ANN)).credential.startswith(VOID)


async def test_a_password_that_the_registry_refuses_is_void(one: Process, two: Process) -> None:
    await one.accepted(ANN)
    one.clock.now += 10
    await one.identities.refused(REGISTRY, "Bearer whatever")
    await one.identities.refused(REGISTRY, None)
    assert (await two.offline(ANN)).account != ""
    await one.identities.refused(REGISTRY, ANN)
    assert (await two.offline(ANN)).credential.startswith(VOID)


async def test_a_token_of_ours(one: Process, two: Process, clock: Clock) -> None:
    authorization = f"Bearer {one.own.mint('a.test', 'account-1', APP, grace=True)}"
    found = two.identify(authorization)
    assert (found.account, found.own, found.grace, found.anonymous) == ("account-1", True, True, False)
    assert (found.until, found.account_for("org/app"), found.account_for("x")) == (clock() + LIFE, "account-1", "")
    nobody = two.identify(f"Bearer {one.own.mint('a.test', '', APP, grace=False)}")
    assert (nobody.account, nobody.own, nobody.grace, nobody.anonymous) == ("", True, False, True)
    clock.now += LIFE
    assert two.identify(authorization) == Identity("a.test", KEYS.credential("a.test", authorization))


async def test_a_token_of_ours_proves_nothing_to_us(one: Process, records: MemoryRecords) -> None:
    """Upstream never saw it: what it answered, it answered nobody."""
    authorization = f"Bearer {one.own.mint('a.test', 'account-1', APP, grace=True)}"
    assert await one.accepted(authorization) == one.identify(authorization)
    assert list(records.scan("verifier/")) == []


async def test_records_of_another_shape_say_nothing(one: Process, records: MemoryRecords) -> None:
    key = one.identities.token_key("t")
    for broken in ({}, {"until": 1}, {"until": "x", "anonymous": True, "account": "", "repositories": []}):
        await records.put(key, broken)
        assert not one.identify("Bearer t").anonymous
        one.clock.now += REMEMBERED_FOR


def test_the_memory_of_a_process_is_bounded(one: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.engine.identity.MAX_REMEMBERED", 10)
    for number in range(100):
        one.identify(f"Bearer {number}")
    assert len(one.identities._memo) <= 10


def test_names_of_secrets_are_of_these_texts_only() -> None:
    assert KEYS.name("user", "ab", "c") != KEYS.name("user", "a", "bc")
    assert KEYS.name("user", "a\0b") != KEYS.name("user", "a", "b")
    assert KEYS.name("user", "a") != Keys(b"o" * 32).name("user", "a")
    assert KEYS.salt("a", "b") != KEYS.salt("a", "c")
    assert len(KEYS.salt("a")) == 16
    assert len({KEYS.own_tokens, KEYS.verifiers, b"k" * 32}) == 3
