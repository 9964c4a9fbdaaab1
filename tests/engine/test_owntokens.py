"""Tokens of our own: what they say, and that nobody else makes one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.engine.fields import to_upstream
from entrepot.engine.owntokens import LIFE, MAX_REPOSITORIES, OwnToken, OwnTokens, holds_own_token
from entrepot.headers import Headers

KEY = b"k" * 32


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_says_what_it_was_made_with() -> None:
    tokens = OwnTokens(KEY, Clock())
    token = tokens.mint("quay.io", "account-1", frozenset({"org/app", "org/b"}), grace=True)
    assert tokens.read(token) == OwnToken(
        "quay.io", "account-1", frozenset({"org/app", "org/b"}), grace=True, until=1_000_000.0 + LIFE
    )
    assert all(character.isalnum() or character in "-._~+/" for character in token)  # RFC 6750, b64token


def test_a_token_ends() -> None:
    clock = Clock()
    tokens = OwnTokens(KEY, clock)
    token = tokens.mint("quay.io", "", frozenset(), grace=False)
    clock.now += LIFE - 1
    assert tokens.read(token) is not None
    clock.now += 1
    assert tokens.read(token) is None


def test_another_box_reads_nothing() -> None:
    token = OwnTokens(KEY, Clock()).mint("quay.io", "a", frozenset(), grace=True)
    assert OwnTokens(b"o" * 32, Clock()).read(token) is None


@given(at=st.integers(min_value=0), character=st.sampled_from("abzAZ09-_~."))
def test_whoever_changes_a_character_has_nothing(at: int, character: str) -> None:
    tokens = OwnTokens(KEY, Clock())
    token = tokens.mint("quay.io", "", frozenset({"org/app"}), grace=False)
    at %= len(token)
    changed = token[:at] + character + token[at + 1 :]
    read = tokens.read(changed)
    assert read is None or changed == token


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_none(text: str) -> None:
    assert OwnTokens(KEY, Clock()).read(f"entrepot~{text}") is None
    assert OwnTokens(KEY, Clock()).read(text) is None


def test_a_token_has_bounds() -> None:
    tokens = OwnTokens(KEY, Clock())
    read = tokens.read(tokens.mint("q", "a", frozenset(f"org/{n}" for n in range(100)), grace=False))
    assert read is not None
    assert len(read.repositories) == MAX_REPOSITORIES


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", " Bearer "])
def test_a_token_of_ours_never_goes_upstream(scheme: str) -> None:
    token = OwnTokens(KEY, Clock()).mint("quay.io", "", frozenset(), grace=False)
    for ours in (token, token[:-1]):  # good or not
        assert holds_own_token(scheme + ours)
        sent = to_upstream(Headers([("Authorization", scheme + ours), ("Accept", "a"), ("X-Other", "b")]))
        assert list(sent) == [("Accept", "a")]


def test_what_is_not_ours_goes_upstream_once() -> None:
    """The credential by which we know the client is the one that upstream judges."""
    for credential in ("Bearer abc", "Basic ZW50cmVwb3R+", "Bearer x entrepot~"):
        fields = Headers([("Authorization", credential), ("authorization", "Bearer other"), ("Accept", "a")])
        assert list(to_upstream(fields, ("X", "y"))) == [("Authorization", credential), ("Accept", "a"), ("X", "y")]
