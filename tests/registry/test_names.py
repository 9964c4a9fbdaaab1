"""Names as the specification has them, and image names as docker has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry.digests import Digest
from entrepot.registry.names import (
    MAX_REPOSITORY,
    ImageReference,
    InvalidName,
    check_repository,
    check_tag,
    is_repository,
    is_tag,
)

HEX = "0123456789abcdef" * 4
DIGEST = Digest("sha256", HEX)

REPOSITORIES = [
    "a",
    "0",
    "library/alpine",
    "a/b/c/d/e",
    "a.b",
    "a_b",
    "a__b",
    "a-b",
    "a---b",
    "manifests/blobs",
    "a" * MAX_REPOSITORY,
    HEX,
]
NOT_REPOSITORIES = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "A",
    "aB",
    "a..b",
    "..",
    "a/../b",
    "./a",
    "a/.",
    "a._b",
    "a___b",
    "-a",
    "a-",
    "_a",
    "a_",
    ".a",
    "a.",
    "a b",
    "a:b",
    "a@b",
    "a%2fb",
    "a\\b",
    "a\n",
    "a\x00",
    "\u212a",  # the Kelvin sign, which lower-cases to k
    "caf\u00e9",
    "a" * (MAX_REPOSITORY + 1),
]


@pytest.mark.parametrize("text", REPOSITORIES)
def test_repository(text: str) -> None:
    assert check_repository(text) == text
    assert is_repository(text)


@pytest.mark.parametrize("text", NOT_REPOSITORIES)
def test_not_a_repository(text: str) -> None:
    assert not is_repository(text)
    with pytest.raises(InvalidName, match="repository name"):
        check_repository(text)


@pytest.mark.parametrize("text", ["latest", "1", "_", "1.2.3-rc.1_x", "A", "a" * 128, "v1..2", "a-"])
def test_tag(text: str) -> None:
    assert check_tag(text) == text
    assert is_tag(text)


@pytest.mark.parametrize("text", ["", ".", "..", "-a", ".a", "a" * 129, "a/b", "a:b", "a b", "a\n", "a%20", "\u00e9"])
def test_not_a_tag(text: str) -> None:
    assert not is_tag(text)
    with pytest.raises(InvalidName, match="not a tag"):
        check_tag(text)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("alpine", "docker.io", "library/alpine", "latest", None),
        ("alpine:3.20", "docker.io", "library/alpine", "3.20", None),
        ("org/app", "docker.io", "org/app", "latest", None),
        ("docker.io/alpine", "docker.io", "library/alpine", "latest", None),
        ("index.docker.io/alpine", "docker.io", "library/alpine", "latest", None),
        ("registry-1.docker.io/org/app:1", "docker.io", "org/app", "1", None),
        ("Docker.IO/alpine", "docker.io", "library/alpine", "latest", None),
        ("quay.io/org/app:1", "quay.io", "org/app", "1", None),
        ("quay.io/app", "quay.io", "app", "latest", None),
        ("quay.io/a/b/c/d:x", "quay.io", "a/b/c/d", "x", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhost:5000/app:1", "localhost:5000", "app", "1", None),
        ("registry:5000/app", "registry:5000", "app", "latest", None),
        ("registry/app", "docker.io", "registry/app", "latest", None),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", "latest", None),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1", None),
        (f"alpine@sha256:{HEX}", "docker.io", "library/alpine", None, DIGEST),
        (f"alpine:3@sha256:{HEX}", "docker.io", "library/alpine", "3", DIGEST),
        (f"localhost:5000/a/b@sha256:{HEX}", "localhost:5000", "a/b", None, DIGEST),
    ],
)
def test_parse(text: str, registry: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    reference = ImageReference.parse(text)
    assert reference == ImageReference(registry, repository, tag, digest)
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":tag",
        "@",
        "alpine:",
        "alpine@",
        "alpine@latest",
        "alpine@sha256:123",
        "alpine:1:2",
        "Alpine",
        "org/App",
        "Org/app",
        "https://quay.io/org/app",
        "docker://alpine",
        "quay.io/",
        "quay.io//app",
        "quay.io:/app",
        "quay.io:0/app",
        "quay.io:65536/app",
        "quay.io:x/app",
        "-quay.io/app",
        "quay..io/app",
        "doc\u212aer.io/app",
        "al pine",
        "alpine\n",
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidName):
        ImageReference.parse(text)


def test_a_scheme_is_named_in_the_error() -> None:
    with pytest.raises(InvalidName, match="leave out the https://"):
        ImageReference.parse("https://quay.io/org/app")


def test_str_and_reference() -> None:
    assert str(ImageReference.parse("alpine")) == "docker.io/library/alpine:latest"
    both = ImageReference.parse(f"quay.io/a:1@sha256:{HEX}")
    assert str(both) == f"quay.io/a:1@sha256:{HEX}"
    assert both.reference == DIGEST
    assert ImageReference("quay.io", "a", "1").reference == "1"
    assert ImageReference("quay.io", "a").reference == "latest"


NAME_ALPHABET = st.text(alphabet="aZ09.:/@-_[] %\u212a", max_size=40)


@given(st.one_of(st.text(), NAME_ALPHABET))
def test_parse_or_invalid_name(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except InvalidName:
        return
    assert is_repository(reference.repository)
    assert ImageReference.parse(str(reference)) == reference


def test_a_long_name_of_many_parts_is_refused_without_back_tracking() -> None:
    # 2**n for a pattern that can match in two ways; the timeout of the suite is the judge.
    for text in ("a" * 254 + "!", "a-" * 127 + "!", "a/" * 127 + "!", "a__" * 84 + "a_!", "-" * 255):
        assert len(text) == 255
        assert not is_repository(text)
