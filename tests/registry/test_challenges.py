"""WWW-Authenticate, as written by the specification and as written by registries."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.errors import EntrepotError
from entrepot.registry.challenges import Challenge, InvalidChallenge, parse_challenges

HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # As captured from registries.
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
            [Challenge("bearer", HUB)],
        ),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [Challenge("bearer", {**HUB, "scope": "repository:a/b:pull,push"})],
        ),
        (
            'Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",error="invalid_token"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://gitlab.com/jwt/auth", "service": "container_registry", "error": "invalid_token"},
                )
            ],
        ),
        ('Bearer realm="https://nvcr.io/proxy_auth"', [Challenge("bearer", {"realm": "https://nvcr.io/proxy_auth"})]),
        (
            'Basic realm="https://1.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"',
            [
                Challenge(
                    "basic", {"realm": "https://1.dkr.ecr.us-east-1.amazonaws.com/", "service": "ecr.amazonaws.com"}
                )
            ],
        ),
        (
            'Bearer realm="https://registry.suse.com/auth",service="SUSE Linux Docker Registry"',
            [Challenge("bearer", {"realm": "https://registry.suse.com/auth", "service": "SUSE Linux Docker Registry"})],
        ),
        # RFC 9110 11.6.1
        (
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [
                Challenge("basic", {"realm": "simple"}),
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        ("Negotiate, NTLM", [Challenge("negotiate"), Challenge("ntlm")]),
        ("Negotiate a87421000492aa874209af8bc028==", [Challenge("negotiate", {}, "a87421000492aa874209af8bc028==")]),
        (
            'Negotiate abc=, Basic realm="x"',
            [Challenge("negotiate", {}, "abc="), Challenge("basic", {"realm": "x"})],
        ),
        (", ,Basic realm=x,,", [Challenge("basic", {"realm": "x"})]),
        # Leniency, one case each.
        ("Basic", [Challenge("basic")]),
        ("Basic ", [Challenge("basic")]),
        ("BEARER REALM=x", [Challenge("bearer", {"realm": "x"})]),
        (
            "Bearer realm=https://a.example/token?x=1,service=a.example",
            [Challenge("bearer", {"realm": "https://a.example/token?x=1", "service": "a.example"})],
        ),
        ('Bearer realm = "x" , service\t=\ty', [Challenge("bearer", {"realm": "x", "service": "y"})]),
        ('Bearer realm="x" service="y"', [Challenge("bearer", {"realm": "x", "service": "y"})]),
        ('Bearer  realm="x",  service="y"', [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (
            "Bearer realm=x,scope=repository:a:pull,push,service=y",
            [Challenge("bearer", {"realm": "x", "scope": "repository:a:pull,push", "service": "y"})],
        ),
        (
            "Bearer scope=repository:a:pull,Basic",
            [Challenge("bearer", {"scope": "repository:a:pull"}), Challenge("basic")],
        ),
        ('Bearer realm="x', [Challenge("bearer", {"realm": "x"})]),
        ('Bearer realm="x\\', [Challenge("bearer", {"realm": "x"})]),
        ('Bearer realm="",service=', [Challenge("bearer", {"realm": "", "service": ""})]),
        ('Bearer realm="a",realm="b"', [Challenge("bearer", {"realm": "a"})]),
        ('Bearer realm="a, Basic b=c"', [Challenge("bearer", {"realm": "a, Basic b=c"})]),
        ("", []),
        (" , ", []),
    ],
)
def test_parse(line: str, expected: list[Challenge]) -> None:
    assert parse_challenges([line]) == expected


def test_several_lines_are_one_list() -> None:
    lines = ['Bearer realm="x"', "Basic"]
    assert parse_challenges(lines) == parse_challenges([", ".join(lines)])
    assert parse_challenges([]) == []


@pytest.mark.parametrize(
    "line", ['realm="x"', "=", '"Bearer"', "Bearer/x", 'Basic realm="x" "y"', "Bearer\nrealm=x", "(", "é"]
)
def test_refused(line: str) -> None:
    with pytest.raises(InvalidChallenge, match="not a challenge"):
        parse_challenges([line])


def test_the_error_is_ours() -> None:
    with pytest.raises(EntrepotError):
        parse_challenges(["="])


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (Challenge("bearer", HUB), 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'),
        (Challenge("basic"), "Basic"),
        (Challenge("negotiate", {}, "abc="), "Negotiate abc="),
        (Challenge("basic", {"realm": 'a "b" \\ c'}), 'Basic realm="a \\"b\\" \\\\ c"'),
    ],
)
def test_str(challenge: Challenge, text: str) -> None:
    assert str(challenge) == text
    assert parse_challenges([text]) == [challenge]


@given(st.one_of(st.text(), st.text(alphabet='Ab=, "\\/:;\t1')))
def test_parse_or_invalid_challenge(line: str) -> None:
    try:
        challenges = parse_challenges([line])
    except InvalidChallenge:
        return
    for challenge in challenges:
        assert re.fullmatch(r"[^\sA-Z]+", challenge.scheme)
        assert not (challenge.params and challenge.token68)


TOKENS = st.text(alphabet="abcxyz-_1", min_size=1, max_size=8)


@given(st.lists(st.builds(Challenge, TOKENS, st.dictionaries(TOKENS, st.text(max_size=20), min_size=1))))
def test_round_trip(challenges: list[Challenge]) -> None:
    assert parse_challenges([", ".join(str(challenge) for challenge in challenges)]) == challenges
    assert parse_challenges([str(challenge) for challenge in challenges]) == challenges


@pytest.mark.parametrize("piece", ["a", "a ", "a=", 'a="', "a b=", "a,", "\\", "a=\\", "a=pull,", "scope=a,pull,", " "])
def test_a_long_header_costs_one_pass(piece: str) -> None:
    # Quadratic would be 10**10 steps here; the timeout of the suite is the judge.
    line = "Bearer " + piece * 20_000
    with contextlib.suppress(InvalidChallenge):
        parse_challenges([line])
