import base64
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.certs.forge import NOW

from entrepot.certs import bundles, profiles
from entrepot.certs.authority import Authority
from entrepot.certs.errors import TrustError
from entrepot.certs.leaves import LeafIssuer


def ca(name: str) -> x509.Certificate:
    key = profiles.new_key()
    limits = profiles.constraints([name])
    return profiles.root(key.public_key(), limits, NOW, NOW + timedelta(days=9)).sign(key, SHA256())


ONE, TWO, THREE = ca("one.example"), ca("two.example"), ca("three.example")


def test_cas_are_read_from_pem_and_der() -> None:
    both = b"a comment\n" + profiles.pem(ONE) + b"\nanother\n" + profiles.pem(TWO) + profiles.pem(ONE)
    assert bundles.parse_authorities(both, "x") == [ONE, TWO]
    assert bundles.parse_authorities(ONE.public_bytes(Encoding.DER), "x") == [ONE]


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_without_a_certificate_is_said(content: bytes) -> None:
    with pytest.raises(TrustError, match=r"^ca\.pem: no certificate in it; give what `entrepot ca export` writes$"):
        bundles.parse_authorities(content, "ca.pem")


def test_a_leaf_is_no_ca(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "ca", ["quay.io"], now=NOW)
    chain = LeafIssuer(authority, days=1, clock=lambda: NOW).issue("quay.io").chain_pem
    with pytest.raises(TrustError, match=r"^chain\.pem: 'CN=quay\.io' is no CA certificate"):
        bundles.parse_authorities(chain, "chain.pem")


def test_a_certificate_that_does_not_say_it_is_a_ca_is_none() -> None:
    key = profiles.new_key()
    plain = x509.CertificateBuilder(ONE.subject, ONE.subject, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    with pytest.raises(TrustError, match="is no CA certificate"):
        bundles.parse_authorities(profiles.pem(plain.sign(key, SHA256())), "x")


def test_a_huge_file_is_not_parsed() -> None:
    with pytest.raises(TrustError, match="too large"):
        bundles.parse_authorities(b" " * (4 * 1024 * 1024 + 1), "x")


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda junk: b"-----BEGIN CERTIFICATE-----\n" + junk))
def test_any_bytes_are_cas_or_refused_with_our_error(content: bytes) -> None:
    with suppress(TrustError):
        assert bundles.parse_authorities(content, "x")


def test_added_and_taken_out_leaves_the_rest_as_it_was() -> None:
    before = b"# made by hand\r\n" + profiles.pem(ONE) + b"# the end"
    after = bundles.with_added(before, [TWO, THREE])
    assert after == before + b"\n" + profiles.pem(TWO) + profiles.pem(THREE)
    assert bundles.without(after, [TWO, THREE]) == before + b"\n"


def test_what_is_there_is_not_added_again() -> None:
    bundle = profiles.pem(ONE) + profiles.pem(TWO)
    assert bundles.with_added(bundle, [TWO, ONE]) == bundle


def test_a_certificate_is_known_whatever_its_lines() -> None:
    body = base64.b64encode(ONE.public_bytes(Encoding.DER))
    odd = (
        b"x\n-----BEGIN CERTIFICATE----- \r\n" + body[:10] + b"\r\n" + body[10:] + b"\r\n-----END CERTIFICATE-----\r\ny"
    )
    assert bundles.holds(odd, ONE)
    assert not bundles.holds(odd, TWO)
    assert bundles.without(odd, [ONE]) == b"x\ny"


def test_blocks_that_are_no_base64_are_left_alone() -> None:
    broken = b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
    assert not bundles.holds(broken, ONE)
    assert bundles.without(broken, [ONE]) == broken


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_is_around_it_a_certificate_can_be_added_and_taken_out(before: bytes, behind: bytes) -> None:
    bundle = bundles.with_added(before, [ONE])
    assert bundles.holds(bundle, ONE)
    gap = b"\n" if before and not before.endswith(b"\n") else b""
    assert bundles.without(bundle + behind, [ONE]) == before + gap + behind
