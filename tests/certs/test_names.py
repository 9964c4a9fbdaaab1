import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.certs import names
from entrepot.certs.errors import NameNotPermitted

_LABEL = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", re.ASCII), fullmatch=True)
_NAME = st.lists(_LABEL, min_size=2, max_size=5).map(".".join).filter(lambda name: not name.split(".")[-1].isdigit())


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("quay.io", "quay.io"),
        ("QUAY.io", "quay.io"),
        ("quay.io.", "quay.io"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    ],
)
def test_a_host_name_is_brought_to_one_form(given_name: str, expected: str) -> None:
    assert names.checked(given_name) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "quay..io", ".quay.io", "quay.io..", "*.quay.io", "-quay.io", "quay-.io", "a_b.quay.io"),
        *("quay.io\x00.evil", "quay.io\n", "quay .io", "bücher.example", "quay.io:443", "quay.io/x", "../etc"),
        *("127.0.0.1", "1", "::1", "[::1]", "a." + "b" * 64 + ".io", ".".join(["a" * 63] * 4)),
    ],
)
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(NameNotPermitted):
        names.checked(text)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused_with_our_error(text: str) -> None:
    try:
        name = names.checked(text)
    except NameNotPermitted as refusal:
        assert str(refusal).isprintable()
    else:
        assert names.checked(name) == name
        assert name.isascii()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gcr.io", "gcr.io"),
        ("eu.gcr.io", "gcr.io"),
        ("a.b.gcr.io", "gcr.io"),
        ("evilgcr.io", None),
        ("io", None),
        ("gcr.io.evil.example", None),
        ("x.eu.example.com", "eu.example.com"),
    ],
)
def test_a_subtree_covers_itself_and_what_is_below(name: str, expected: str | None) -> None:
    assert names.covering(name, {"gcr.io", "quay.io", "example.com", "eu.example.com"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quay.io", "quay.io"),
        ("*.GCR.io", "gcr.io"),
        ("quay.io.", "quay.io"),
        ("com", None),
        ("*.com", None),
        ("10.0.0.5", None),
        ("my_registry.example", None),
        ("a.*.example", None),
        ("", None),
    ],
)
def test_rule_12_what_a_ca_may_be_constrained_to(text: str, expected: str | None) -> None:
    assert names.subtree(text) == expected


def test_subtrees_that_others_cover_are_left_out() -> None:
    wanted = ["registry.gitlab.com", "gitlab.com", "*.gcr.io", "gcr.io", "quay.io", "box"]
    assert names.minimal(wanted) == ("gcr.io", "gitlab.com", "quay.io")


@given(st.lists(_NAME, max_size=12))
def test_the_fewest_subtrees_cover_all_and_not_each_other(wanted: list[str]) -> None:
    found = names.minimal(wanted)
    assert all(names.covering(name, found) is not None for name in wanted)
    assert all(names.covering(name.partition(".")[2], found) is None for name in found)
    assert names.minimal(found) == found
