"""What TLS trusts: the system's store, and a registry's CA files for that registry alone."""

import asyncio
import ssl
from pathlib import Path

import pytest
from tests.upstream.loopback import issue

from entrepot.upstream.contexts import TrustStore, build
from entrepot.upstream.errors import Untrusted


def subjects(context: ssl.SSLContext) -> str:
    return str(context.get_ca_certs())


async def test_one_context_per_set_of_files(tmp_path: Path) -> None:
    store = TrustStore()
    a, b = issue(tmp_path, "a").ca, issue(tmp_path, "b").ca
    first, again, other, none = [await store.context(ca, host="registry.test") for ca in ((a,), (a,), (a, b), ())]
    assert first is again
    assert "CA a" in subjects(first)
    assert "CA b" not in subjects(first)
    assert "CA b" in subjects(other)
    assert "CA a" not in subjects(none)


async def test_waiters_share_one_build(tmp_path: Path) -> None:
    store = TrustStore()
    ca = (issue(tmp_path, "a").ca,)
    contexts = await asyncio.gather(*(store.context(ca, host="registry.test") for _ in range(3)))
    assert len(set(map(id, contexts))) == 1


async def test_a_waiter_that_leaves_takes_nobody_along(tmp_path: Path) -> None:
    store = TrustStore()
    ca = (issue(tmp_path, "a").ca,)
    leaver = asyncio.ensure_future(store.context(ca, host="registry.test"))
    stayer = asyncio.ensure_future(store.context(ca, host="registry.test"))
    await asyncio.sleep(0)
    leaver.cancel()
    assert isinstance(await stayer, ssl.SSLContext)
    assert leaver.cancelled()


@pytest.mark.parametrize("content", [None, b"not a certificate"])
async def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "odd.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Untrusted, match=r"registry\.test: cannot load ca from .*odd\.pem"):
        await TrustStore().context((path,), host="registry.test")


async def test_a_mended_file_works_at_once(tmp_path: Path) -> None:
    store, path = TrustStore(), tmp_path / "late.pem"
    with pytest.raises(Untrusted):
        await store.context((path,), host="registry.test")
    path.write_bytes(issue(tmp_path, "a").ca.read_bytes())
    assert "CA a" in subjects(await store.context((path,), host="registry.test"))


def test_the_systems_store_follows_ssl_cert_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(issue(tmp_path, "system").ca))
    assert "CA system" in subjects(build(()))


def test_peers_are_verified_by_name() -> None:
    context = build(())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
