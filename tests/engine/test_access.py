"""The records of access: public proofs, grants, membership (DESIGN rule 3)."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.access import SKEW, TOKEN_GRANT, Access, box_key
from entrepot.engine.identity import ANONYMOUS, Identity
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor

REGISTRY, REPOSITORY = "quay.io", "org/app"
TOKEN = Identity(REGISTRY, "hmac-of-a-token", until=1300.0)
BASIC = Identity(REGISTRY, "hmac-of-basic", account="hmac-of-user")
LAYER = Descriptor("application/octet-stream", Digest.of(b"layer"), 5)


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.records = MemoryRecords(lambda: self.now)
        self.access = Access(self.records, lambda: self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_public_proof_counts_its_time(bench: Bench) -> None:
    assert not bench.access.is_public(REGISTRY, REPOSITORY, 60)
    await bench.access.set_public(REGISTRY, REPOSITORY, public=True)
    assert bench.access.is_public(REGISTRY, REPOSITORY, 60)
    assert not bench.access.is_public(REGISTRY, "org/other", 60)
    assert not bench.access.is_public("ghcr.io", REPOSITORY, 60)
    bench.now += 60
    assert not bench.access.is_public(REGISTRY, REPOSITORY, 60)
    assert bench.access.is_public(REGISTRY, REPOSITORY, 61)
    await bench.access.set_public(REGISTRY, REPOSITORY, public=False)
    assert not bench.access.is_public(REGISTRY, REPOSITORY, 1e9)


async def test_a_clock_set_back_makes_nothing_count_longer(bench: Bench) -> None:
    await bench.access.set_public(REGISTRY, REPOSITORY, public=True)
    await bench.access.grant(REPOSITORY, TOKEN, keep=1e6)
    bench.now -= SKEW + 1
    assert not bench.access.is_public(REGISTRY, REPOSITORY, 60)
    assert not bench.access.granted(REPOSITORY, TOKEN, 300)


async def test_a_grant_is_for_one_credential_and_repository(bench: Bench) -> None:
    await bench.access.grant(REPOSITORY, TOKEN, keep=1e6)
    assert bench.access.granted(REPOSITORY, TOKEN, 300) == "credential"
    assert not bench.access.granted("org/other", TOKEN, 300)
    assert not bench.access.granted(REPOSITORY, replace(TOKEN, registry="ghcr.io"), 300)
    assert not bench.access.granted(REPOSITORY, replace(TOKEN, credential="another"), 300)
    bench.now += 299
    assert bench.access.granted(REPOSITORY, TOKEN, 300)
    bench.now += 1
    assert not bench.access.granted(REPOSITORY, TOKEN, 300)


async def test_a_token_is_forgotten_when_it_ends(bench: Bench) -> None:
    await bench.access.grant(REPOSITORY, TOKEN, keep=1e6)
    bench.now = TOKEN.until + 1
    assert not bench.access.granted(REPOSITORY, TOKEN, 1e9)
    await bench.access.grant(REPOSITORY, replace(TOKEN, until=bench.now + 1e6), keep=1e7)
    bench.now += TOKEN_GRANT + 1
    assert not bench.access.granted(REPOSITORY, TOKEN, 1e9)


async def test_another_credential_of_the_same_account(bench: Bench) -> None:
    await bench.access.grant(REPOSITORY, BASIC, keep=1e6)
    fresh = replace(BASIC, credential="another token of hers")
    assert bench.access.granted(REPOSITORY, fresh, 300) == "account"
    assert not bench.access.granted(REPOSITORY, replace(fresh, account=""), 300)
    assert not bench.access.granted(REPOSITORY, replace(fresh, account="somebody else"), 300)
    bench.now += 5e5
    assert bench.access.granted(REPOSITORY, fresh, 1e6) == "account"


async def test_a_token_of_ours_gets_no_grant_of_its_own(bench: Bench) -> None:
    await bench.access.grant(REPOSITORY, replace(TOKEN, own=True), keep=1e6)
    assert not bench.access.granted(REPOSITORY, TOKEN, 300)


async def test_a_refusal_ends_a_grant(bench: Bench) -> None:
    await bench.access.grant(REPOSITORY, BASIC, keep=1e6)
    await bench.access.withdraw(REPOSITORY, BASIC)
    assert not bench.access.granted(REPOSITORY, BASIC, 300)


async def test_what_a_manifest_names_is_not_enough_for_a_secret(bench: Bench) -> None:
    """Who may push a manifest could name any digest in it."""
    manifest = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"m"), 1)
    await bench.access.add_manifest(REGISTRY, REPOSITORY, manifest, [LAYER])
    assert bench.access.belongs(REGISTRY, REPOSITORY, manifest.digest)
    assert not bench.access.belongs(REGISTRY, REPOSITORY, LAYER.digest)
    await bench.access.add_member(REGISTRY, "org/private", LAYER, public=False)
    assert not bench.access.belongs(REGISTRY, REPOSITORY, LAYER.digest)
    await bench.access.add_member("ghcr.io", "org/public", LAYER, public=True)
    assert bench.access.belongs(REGISTRY, REPOSITORY, LAYER.digest)
    assert not bench.access.belongs(REGISTRY, "org/unrelated", LAYER.digest)


async def test_what_upstream_has_served_belongs(bench: Bench) -> None:
    await bench.access.add_member(REGISTRY, REPOSITORY, LAYER, public=False)
    assert bench.access.belongs(REGISTRY, REPOSITORY, LAYER.digest)
    member = bench.access.member(REGISTRY, REPOSITORY, LAYER.digest)
    assert member is not None
    assert (member.size, member.served) == (5, True)


async def test_what_a_manifest_told_is_kept_when_upstream_serves_it(bench: Bench) -> None:
    manifest = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"m"), 1)
    await bench.access.add_manifest(REGISTRY, REPOSITORY, manifest, [LAYER])
    await bench.access.add_member(REGISTRY, REPOSITORY, replace(LAYER, size=-1), public=False)
    member = bench.access.member(REGISTRY, REPOSITORY, LAYER.digest)
    assert member is not None
    assert (member.size, member.referrer, member.served) == (5, str(manifest.digest), True)


def test_the_key_of_the_box_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    key = box_key(tmp_path / "key")
    assert len(key) == 32
    assert box_key(tmp_path / "key") == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_nobody_is_nobody() -> None:
    assert ANONYMOUS not in {"", TOKEN.credential}
