"""Digests: only what can be verified, and nothing that could name another file."""

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest, InvalidDigest

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_parse_gives_the_text_back(text: str) -> None:
    digest = Digest.parse(text)
    assert str(digest) == text
    assert digest == Digest(digest.algorithm, digest.hex)
    assert {digest: 1}[Digest.parse(text)] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        SHA256[:-1],
        SHA256 + "0",
        SHA256.upper(),
        SHA256.replace("a", "A"),
        SHA256 + "\n",
        " " + SHA256,
        SHA256.replace("sha256", "sha512"),
        SHA512.replace("sha512", "sha256"),
        SHA256.replace("sha256", "SHA256"),
        SHA256.replace("sha256", "sha1"),
        SHA256.replace("sha256", "md5"),
        "sha256:../../../../../../etc/passwd" + "0" * 33,
        "sha256:" + "\u0661" * 64,  # digits to int(), not to us
        "sha256:" + "/" * 64,
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidDigest, match="not a digest"):
        Digest.parse(text)


def test_a_digest_cannot_be_made_wrong() -> None:
    with pytest.raises(InvalidDigest):
        Digest("sha256", "../secret")


def test_the_error_is_ours_and_does_not_repeat_a_huge_input() -> None:
    with pytest.raises(EntrepotError) as caught:
        Digest.parse("x" * 10_000)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_of_agrees_with_hashlib_and_with_the_hasher(algorithm: str) -> None:
    data = b"some bytes"
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    hasher = digest.hasher()
    hasher.update(data[:4])
    hasher.update(data[4:])
    assert hasher.hexdigest() == digest.hex
    assert digest != Digest.of(b"other bytes", algorithm)


def test_of_refuses_what_it_could_not_parse() -> None:
    with pytest.raises(InvalidDigest):
        Digest.of(b"", "md5")


def test_it_crosses_processes() -> None:
    assert pickle.loads(pickle.dumps(Digest.parse(SHA256))) == Digest.parse(SHA256)


@given(st.text())
def test_parse_or_invalid_digest(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidDigest:
        return
    assert str(digest) == text


@given(st.binary())
def test_round_trip(data: bytes) -> None:
    assert Digest.parse(str(Digest.of(data))) == Digest.of(data)
