import ssl
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from tests.certs.forge import NOW, SUBTREES, certificates

from entrepot.certs import files, profiles
from entrepot.certs.authority import Authority
from entrepot.certs.errors import AuthorityExpired, NameNotPermitted
from entrepot.certs.leaves import LeafIssuer


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(authority: Authority, clock: Clock) -> LeafIssuer:
    return LeafIssuer(authority, days=7, clock=clock)


def test_a_leaf_is_for_the_name_and_comes_with_its_issuer(issuer: LeafIssuer, authority: Authority) -> None:
    leaf = issuer.issue("cdn01.quay.io")
    certificate, parent = certificates(leaf.chain_pem)
    assert parent == authority.issuer("quay.io")
    certificate.verify_directly_issued_by(parent)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cdn01.quay.io"] == [leaf.name]
    assert certificate.public_key() == leaf.key.public_key()
    assert profiles.key_pem(leaf.key) == leaf.key_pem


def test_openssl_takes_it_for_a_server(issuer: LeafIssuer, tmp_path: Path) -> None:
    leaf = issuer.issue("quay.io")
    path = tmp_path / "leaf.pem"
    path.write_bytes(leaf.chain_pem + leaf.key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)


def test_rule_12_a_leaf_lives_days(issuer: LeafIssuer) -> None:
    leaf = issuer.issue("quay.io")
    certificate = certificates(leaf.chain_pem)[0]
    assert certificate.not_valid_before_utc == leaf.not_before == NOW - profiles.BACKDATE
    assert certificate.not_valid_after_utc == leaf.not_after == NOW + timedelta(days=7)


def test_rule_12_the_key_is_not_the_issuers_and_not_on_disk(issuer: LeafIssuer, authority: Authority) -> None:
    leaf = issuer.issue("quay.io")
    assert leaf.key.public_key() != authority.issuer("quay.io").public_key()
    for path in authority.directory.rglob("*"):
        assert not path.is_file() or leaf.key_pem not in path.read_bytes()


def test_two_processes_have_keys_of_their_own(authority: Authority, clock: Clock) -> None:
    first, second = (LeafIssuer(authority, days=7, clock=clock).issue("quay.io") for _ in range(2))
    assert first.key_pem != second.key_pem


def test_a_leaf_is_made_once_per_name(issuer: LeafIssuer) -> None:
    leaf = issuer.issue("quay.io")
    assert issuer.issue("quay.io") is leaf
    assert issuer.issue("QUAY.io.") is leaf
    assert issuer.issue("cdn01.quay.io") is not leaf
    assert issuer.issue("cdn01.quay.io").key is leaf.key


def test_rule_12_it_is_made_anew_before_it_expires(issuer: LeafIssuer, clock: Clock) -> None:
    leaf = issuer.issue("quay.io")
    clock.now = NOW + timedelta(days=7) * 2 / 3 - timedelta(seconds=1)
    assert issuer.issue("quay.io") is leaf
    clock.now = leaf.renew_at
    fresh = issuer.issue("quay.io")
    assert fresh is not leaf
    assert fresh.not_after == clock.now + timedelta(days=7)
    assert issuer.issue("quay.io") is fresh


def test_it_is_made_anew_when_the_clock_was_set_back(issuer: LeafIssuer, clock: Clock) -> None:
    clock.now = NOW + timedelta(days=3)
    leaf = issuer.issue("quay.io")
    clock.now = NOW
    fresh = issuer.issue("quay.io")
    assert fresh is not leaf
    assert fresh.not_before <= NOW


def test_it_never_outlives_the_authority(authority: Authority, clock: Clock) -> None:
    end = authority.certificate.not_valid_after_utc
    clock.now = end - timedelta(days=3)
    leaf = LeafIssuer(authority, days=7, clock=clock).issue("quay.io")
    assert leaf.not_after == end
    assert leaf.renew_at == clock.now + timedelta(days=2)


@pytest.mark.parametrize("moment", [timedelta(days=-2), timedelta(days=365 * 5)])
def test_outside_the_authority_s_years_there_are_no_leaves(issuer: LeafIssuer, clock: Clock, moment: timedelta) -> None:
    clock.now = NOW + moment
    with pytest.raises(AuthorityExpired, match="the CA is valid from 2026-11-23 to 2031-11-23 and the clock says"):
        issuer.issue("quay.io")


def test_a_leaf_for_the_first_moment_is_valid_with_its_authority(authority: Authority, clock: Clock) -> None:
    clock.now = NOW - timedelta(hours=20)
    leaf = LeafIssuer(authority, days=7, clock=clock).issue("quay.io")
    assert leaf.not_before == authority.certificate.not_valid_before_utc


@pytest.mark.parametrize("name", ["example.com", "evilquay.io", "io", "", "*.quay.io", "127.0.0.1", "quay.io\x00.x"])
def test_rule_12_other_names_are_refused(issuer: LeafIssuer, name: str) -> None:
    with pytest.raises(NameNotPermitted):
        issuer.issue(name)


def test_what_is_kept_is_bounded(authority: Authority, clock: Clock) -> None:
    issuer = LeafIssuer(authority, days=7, clock=clock, capacity=3)
    kept = issuer.issue("quay.io")
    for number in range(10):
        issuer.issue(f"host-{number}.gcr.io")
        assert issuer.issue("quay.io") is kept, "what is used stays"
    first = issuer.issue("host-9.gcr.io")
    assert issuer.issue("host-9.gcr.io") is first
    for number in range(3):
        issuer.issue(f"host-{number}.gcr.io")
    assert issuer.issue("quay.io") is not kept


def test_threads_get_one_leaf(issuer: LeafIssuer) -> None:
    barrier, found = threading.Barrier(4), []

    def ask() -> None:
        barrier.wait(10)
        found.append(issuer.issue("quay.io"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert len({id(leaf) for leaf in found}) == 1


def test_keys_do_not_show(issuer: LeafIssuer) -> None:
    assert "key" not in repr(issuer.issue("quay.io"))


def test_it_needs_no_disk(authority: Authority, clock: Clock) -> None:
    loaded = Authority.load(authority.directory)
    for key in authority.directory.rglob(files.KEY):
        key.unlink()
    assert LeafIssuer(loaded, days=7, clock=clock).issue(SUBTREES[0]).name == SUBTREES[0]
