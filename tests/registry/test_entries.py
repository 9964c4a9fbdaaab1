"""The entries of the catalogue check what they are made of."""

import re

import pytest

from entrepot.registry.entries import (
    Family,
    InvalidRegistry,
    Registry,
    check_host,
    check_name,
    check_upstream,
    family,
)

MODEL = Registry("", (), (), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("quay.io", "quay.io"), ("Quay.IO.", "quay.io"), ("registry", "registry"), ("a_b.example", "a_b.example")],
)
def test_host(text: str, expected: str) -> None:
    assert check_host(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a.b",
        "a-.b",
        "a b",
        "https://a.b",
        "a.b:443",
        "a.b/c",
        "*.a.b",
        "10.0.0.1",
        "::1",
        "[::1]",
        "doc\u212aer.io",
        "caf\u00e9.example",
        "a.b\n",
        "a" * 64 + ".b",
        ".".join(["a" * 60] * 5),
    ],
)
def test_not_a_host(text: str) -> None:
    with pytest.raises(InvalidRegistry, match="not a host name"):
        check_host(text)


@pytest.mark.parametrize("text", ["registry.example:5000", "registry", "10.0.0.1:5000", "[::1]:5000"])
def test_name(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "https://a.b", "a.b/c", "*.a.b", "user@a.b", "a.b:x", "\u212a.example"])
def test_not_a_name(text: str) -> None:
    with pytest.raises(InvalidRegistry, match="not a registry"):
        check_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://quay.io", "https://quay.io"),
        ("https://Quay.IO/", "https://quay.io"),
        ("http://registry.example:5000", "http://registry.example:5000"),
        ("https://10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("https://[fd00::1]:5000", "https://[fd00::1]:5000"),
    ],
)
def test_upstream(text: str, expected: str) -> None:
    assert check_upstream(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quay.io",
        "ftp://quay.io",
        "https://",
        "https://a.b/c",
        "https://a.b?x",
        "https://a.b#x",
        "https://a.b:0",
        "https://a.b:99999",
        "https://a.b:x",
        "https://u:p@a.b",
        "https://[::1",
        "https://a b",
        "https://\u212a.b",
    ],
)
def test_not_an_upstream(text: str) -> None:
    with pytest.raises(InvalidRegistry, match="not an upstream"):
        check_upstream(text)


def test_family() -> None:
    one = family("*.azurecr.io", MODEL)
    assert (one.stars, one.suffix, one.subtrees()) == (1, "azurecr.io", ["azurecr.io"])
    assert one.takes("acme")
    two = family("*.*.geo.azurecr.io", MODEL)
    assert (two.stars, two.suffix) == (2, "geo.azurecr.io")


def test_family_of_listed_first_labels() -> None:
    one = family("*.pkg.dev", MODEL, first=["us-docker", "eu-docker"])
    assert one.takes("us-docker")
    assert not one.takes("us-python")
    assert one.subtrees() == ["eu-docker.pkg.dev", "us-docker.pkg.dev"]


def test_family_by_expression() -> None:
    one = family("*.dkr.ecr.eu-west-1.amazonaws.com", MODEL, label=re.compile("[0-9]{12}"))
    assert one.takes("123456789012")
    assert not one.takes("1234567890123")
    assert not one.takes("evil")


@pytest.mark.parametrize("pattern", ["*", "*.io", "quay.io", "a.*.io", "*.a*.io", "*.*.io", "*.*.*", "*.a..io", ""])
def test_not_a_family(pattern: str) -> None:
    with pytest.raises(InvalidRegistry):
        family(pattern, MODEL)


def test_first_labels_go_with_one_star() -> None:
    with pytest.raises(InvalidRegistry, match="one star"):
        family("*.*.a.io", MODEL, first=["x"])


def test_a_family_is_a_value() -> None:
    assert family("*.a.io", MODEL) == Family("*.a.io", MODEL, None, None, 1, "a.io")
