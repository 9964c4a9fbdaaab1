"""Passwords that can be checked while nobody else can: whose count, for how long, and what puts them out of force."""

import asyncio
import threading
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from tests.engine.test_engine import Clock

from entrepot.cache.memory import MemoryRecords
from entrepot.engine import hashing
from entrepot.engine.claims import Claim
from entrepot.engine.hashing import MAX_WAITING, REMEMBERED_FOR, Busy, SlowHash
from entrepot.engine.keys import Keys
from entrepot.engine.policy import Policy
from entrepot.engine.verifiers import MAX_WRONG, WRONG_WINDOW, Proof, Standing, Verifiers
from entrepot.registry.catalogue import Catalogue, RegistryOverride

CATALOGUE = Catalogue([]).with_overrides([RegistryOverride("a.test"), RegistryOverride("b.test")])
REGISTRY, OTHER = CATALOGUE.registries()
DAY = 86400.0
POLICY = Policy(grace=7 * DAY)
OLD, NEW, WRONG = Claim("ann", "old"), Claim("ann", "new"), Claim("ann", "wrong")
PAT, OTHER_PAT = Claim("ann", "ghp_" + "A1b2" * 9), Claim("ann", "ghp_" + "C3d4" * 9)
UNKNOWN, CONTRADICTED = Standing("unknown"), Standing("contradicted")


@dataclass
class Box:
    """The processes of one box share the records."""

    records: MemoryRecords
    clock: Clock
    one: Verifiers
    two: Verifiers

    async def verify(self, claim: Claim) -> str:
        """A token service, and then the registry, accept it."""
        proof = await self.one.proof(REGISTRY, claim)
        assert proof is not None
        self.clock.now += 1
        return await self.two.promote(REGISTRY, proof)

    async def standing(self, claim: Claim) -> Standing:
        """The same in all processes."""
        first, second = await self.one.standing(REGISTRY, claim), await self.two.standing(REGISTRY, claim)
        assert first == second
        return first


@pytest.fixture
def box() -> Box:
    clock = Clock()
    records = MemoryRecords(clock)
    keys = Keys(b"k" * 32)
    return Box(records, clock, Verifiers(records, keys, POLICY, clock), Verifiers(records, keys, POLICY, clock))


async def test_nothing_is_known_of_anybody(box: Box) -> None:
    assert await box.standing(OLD) == UNKNOWN
    assert await box.standing(PAT) == UNKNOWN


async def test_a_token_given_out_proves_nothing(box: Box) -> None:
    """Some services give anyone a token that opens nothing."""
    proof = await box.one.proof(REGISTRY, WRONG)
    assert proof is not None
    assert box.one.account(REGISTRY, proof) == ""
    assert await box.standing(WRONG) == UNKNOWN


@pytest.mark.parametrize("claim", [OLD, PAT, Claim("", "identity-token")])
async def test_what_was_admitted_is_verified(box: Box, claim: Claim) -> None:
    account = await box.verify(claim)
    assert account.startswith("account-")
    assert await box.standing(claim) == Standing("verified", account)
    proof = await box.two.proof(REGISTRY, claim)
    assert proof is not None
    assert box.two.account(REGISTRY, proof) == account


async def test_the_right_password_is_of_the_right_user_of_the_right_registry(box: Box) -> None:
    await box.verify(OLD)
    assert await box.standing(WRONG) == CONTRADICTED
    assert await box.standing(Claim("bob", "old")) == UNKNOWN
    assert await box.one.standing(OTHER, OLD) == UNKNOWN


async def test_a_new_password_puts_the_old_one_out_of_force(box: Box) -> None:
    before = await box.verify(OLD)
    after = await box.verify(NEW)
    assert await box.standing(OLD) == CONTRADICTED
    assert await box.standing(NEW) == Standing("verified", after)
    assert before != after, "what one password was admitted to, another one is not"
    proof = await box.two.proof(REGISTRY, OLD)
    assert proof is not None
    assert box.two.account(REGISTRY, proof) == ""


async def test_two_passwords_that_are_good_at_the_same_time(box: Box) -> None:
    first, second = await box.verify(OLD), await box.verify(NEW)
    assert await box.verify(OLD) == first
    assert await box.standing(OLD) == Standing("verified", first)
    assert await box.standing(NEW) == Standing("verified", second)


async def test_access_tokens_stand_by_themselves(box: Box) -> None:
    """Several of one person are good at the same time, each for other things."""
    accounts = [await box.verify(claim) for claim in (OLD, PAT, OTHER_PAT)]
    assert len(set(accounts)) == 3
    for claim, account in zip((OLD, PAT, OTHER_PAT), accounts, strict=True):
        assert await box.standing(claim) == Standing("verified", account)


@pytest.mark.parametrize("claim", [OLD, PAT])
async def test_a_refusal_puts_it_out_of_force(box: Box, claim: Claim) -> None:
    await box.verify(claim)
    await box.one.refused(REGISTRY, claim)
    assert await box.standing(claim) == CONTRADICTED
    account = await box.verify(claim)
    assert await box.standing(claim) == Standing("verified", account)


async def test_a_refusal_of_another_password_changes_nothing(box: Box) -> None:
    account = await box.verify(OLD)
    await box.one.refused(REGISTRY, WRONG)
    await box.one.refused(REGISTRY, PAT)
    await box.one.refused(OTHER, OLD)
    assert await box.standing(OLD) == Standing("verified", account)


async def test_a_token_from_before_the_change_brings_nothing_back(box: Box) -> None:
    """Registries accept a token to its end, whatever becomes of the password."""
    proof = await box.one.proof(REGISTRY, OLD)
    assert proof is not None
    await box.one.promote(REGISTRY, proof)
    box.clock.now += 10
    account = await box.verify(NEW)
    assert await box.one.promote(REGISTRY, proof) == ""
    assert await box.standing(OLD) == CONTRADICTED
    assert await box.standing(NEW) == Standing("verified", account)


async def test_a_token_from_before_the_first_admission_of_the_new_password(box: Box) -> None:
    before = await box.one.proof(REGISTRY, OLD)
    assert before is not None
    box.clock.now += 10
    account = await box.verify(NEW)
    assert await box.one.promote(REGISTRY, before) == ""
    assert await box.standing(NEW) == Standing("verified", account)
    assert await box.standing(OLD) == CONTRADICTED


async def test_a_token_from_before_the_refusal_brings_nothing_back(box: Box) -> None:
    proof = await box.one.proof(REGISTRY, OLD)
    assert proof is not None
    await box.one.promote(REGISTRY, proof)
    box.clock.now += 10
    await box.one.refused(REGISTRY, OLD)
    assert await box.two.promote(REGISTRY, proof) == ""
    assert await box.standing(OLD) == CONTRADICTED


@pytest.mark.parametrize("claim", [OLD, PAT])
async def test_it_counts_for_the_time_of_grace_since_the_last_admission(box: Box, claim: Claim) -> None:
    account = await box.verify(claim)
    box.clock.now += 6 * DAY
    assert await box.verify(claim) == account
    box.clock.now += 6 * DAY
    assert await box.standing(claim) == Standing("verified", account)
    box.clock.now += 1 * DAY
    assert await box.standing(claim) == UNKNOWN


async def test_the_grace_of_the_registry_is_asked_for_each_time(box: Box) -> None:
    await box.verify(OLD)
    box.clock.now += 3600
    for verifiers in (box.one, box.two):
        verifiers.policy = replace(POLICY, grace=1800)
    assert await box.standing(OLD) == UNKNOWN


async def test_what_counts_is_not_written_again_each_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await box.verify(OLD)
    writes = 0

    async def count(*args: object, **kwargs: object) -> None:
        nonlocal writes
        writes += 1

    monkeypatch.setattr(box.records, "put", count)
    for _ in range(5):
        assert await box.verify(OLD) == account
    assert writes == 0


async def test_a_user_s_passwords_are_few(box: Box) -> None:
    claims = [Claim("ann", str(number)) for number in range(8)]
    for claim in claims:
        await box.verify(claim)
    ((_, value),) = box.records.scan("verifier/")
    entries = value["entries"]
    assert isinstance(entries, list)
    assert len(entries) == 4
    assert (await box.standing(claims[-1])).verdict == "verified"


async def test_the_same_password_elsewhere_does_not_look_the_same(box: Box) -> None:
    proofs = [
        await box.one.proof(REGISTRY, OLD),
        await box.one.proof(OTHER, OLD),
        await box.one.proof(REGISTRY, Claim("bob", "old")),
    ]
    assert len({proof.hash for proof in proofs if proof}) == 3


def kept(box: Box) -> tuple[str, dict[str, object]]:
    """The one password that is kept, and where."""
    ((key, value),) = box.records.scan("verifier/")
    assert isinstance(value["entries"], list)
    (entry,) = value["entries"]
    return key, entry


async def test_what_is_kept_is_a_hash_as_others_write_it(box: Box) -> None:
    await box.verify(OLD)
    key, entry = kept(box)
    assert "ann" not in key
    pepper = Keys(b"k" * 32).verifiers
    Argon2id.verify_phc_encoded(b"old", str(entry["hash"]), pepper)
    assert str(entry["hash"]).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_records_of_other_parameters_or_shapes_say_nothing(box: Box) -> None:
    await box.verify(OLD)
    key, entry = kept(box)
    for broken in (
        {**entry, "hash": str(entry["hash"]).replace("t=2", "t=1")},
        {**entry, "hash": 1},
        {**entry, "hash": "\u00e4$m=19456,t=2,p=1$"},
        {**entry, "at": None},
        {**entry, "active": 1},
        "entry",
    ):
        await box.records.put(key, {"entries": [broken]})
        assert await box.standing(OLD) == UNKNOWN, broken
    await box.records.put(key, {})
    assert await box.standing(OLD) == UNKNOWN


def test_a_proof_is_read_back_as_it_was_written() -> None:
    proof = Proof("verifier/a/b", "$hash", 1.0)
    assert Proof.load(proof.document()) == proof
    assert Proof.load({"key": "a"}) is None


async def test_guessing_gets_slow(box: Box) -> None:
    account = await box.verify(OLD)
    assert await box.one.standing(REGISTRY, OLD) == Standing("verified", account)
    for number in range(MAX_WRONG):
        assert await box.one.standing(REGISTRY, Claim("ann", f"guess {number}")) == CONTRADICTED
    fresh = await box.verify(NEW)
    box.one._slow._memo.clear()  # as in a process that has not seen the password yet
    assert await box.one.standing(REGISTRY, NEW) == CONTRADICTED, "not even the right one, if it might be a guess"
    assert await box.two.standing(REGISTRY, NEW) == Standing("verified", fresh)
    box.clock.now += WRONG_WINDOW
    assert await box.one.standing(REGISTRY, NEW) == Standing("verified", fresh)


async def test_a_client_that_repeats_itself_is_not_guessing(box: Box) -> None:
    account = await box.verify(OLD)
    for _ in range(3 * MAX_WRONG):
        assert await box.two.standing(REGISTRY, WRONG) == CONTRADICTED
    assert await box.two.standing(REGISTRY, OLD) == Standing("verified", account)


async def test_whoever_is_known_lately_is_not_held_up_by_guesses(box: Box) -> None:
    account = await box.verify(OLD)  # hashed in the first process
    for number in range(MAX_WRONG + 1):
        await box.one.standing(REGISTRY, Claim("ann", f"guess {number}"))
    assert await box.one.standing(REGISTRY, OLD) == Standing("verified", account)


class TestSlowHash:
    async def test_one_computation_however_many_ask(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[bytes] = []

        def make(salt: bytes, secret: bytes, pepper: bytes) -> bytes:
            made.append(secret)
            return b"hash"

        monkeypatch.setattr(hashing, "_argon2id", make)
        clock = Clock()
        slow = SlowHash(b"p", clock)
        assert await asyncio.gather(*[slow.hash(b"s" * 16, b"secret") for _ in range(5)]) == [(b"s" * 16, b"hash")] * 5
        await slow.hash(b"s" * 16, b"secret")
        assert made == [b"secret"]
        await slow.hash(b"t" * 16, b"secret")
        await slow.hash(b"s" * 16, b"other")
        clock.now += REMEMBERED_FOR
        await slow.hash(b"s" * 16, b"secret")
        assert len(made) == 4

    async def test_one_at_a_time_and_no_endless_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running = peak = 0
        go_on = threading.Event()

        def work(*args: object) -> bytes:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            go_on.wait(20)
            running -= 1
            return b"hash"

        monkeypatch.setattr("entrepot.engine.hashing._argon2id", work)
        slow = SlowHash(b"p", Clock())
        asked = [asyncio.ensure_future(slow.hash(b"s" * 16, str(n).encode())) for n in range(MAX_WAITING)]
        while not running:
            await asyncio.sleep(0)
        with pytest.raises(Busy):
            await asyncio.wait_for(slow.hash(b"s" * 16, b"one more"), 5)
        go_on.set()
        await asyncio.gather(*asked)
        assert peak == 1
        await slow.hash(b"s" * 16, b"one more")

    async def test_no_secret_in_the_name_of_a_task(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names: list[str] = []

        loop = asyncio.get_running_loop()

        def work(*args: object) -> bytes:
            names.extend(task.get_name() for task in asyncio.all_tasks(loop))
            return b"hash"

        monkeypatch.setattr("entrepot.engine.hashing._argon2id", work)
        await SlowHash(b"p", Clock()).hash(b"s" * 16, b"s3cr3t")
        assert any(name.startswith("hash ") for name in names)
        assert not any("s3cr3t" in name for name in names)
