"""Media types, and Accept headers as sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry import mediatypes
from entrepot.registry.mediatypes import accept_class, essence, is_index, is_manifest

# What clients send, from the captures: docker six lines in random order, containerd one line of five, crane one.
DOCKER = [
    mediatypes.DOCKER_MANIFEST_LIST,
    mediatypes.OCI_INDEX,
    mediatypes.DOCKER_SCHEMA1_SIGNED,
    "application/json",
    mediatypes.DOCKER_MANIFEST,
    mediatypes.OCI_MANIFEST,
]
CONTAINERD = [
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("  text/html ;q=1", "text/html"),
        ("", ""),
        (";", ""),
    ],
)
def test_essence(text: str, expected: str) -> None:
    assert essence(text) == expected


@pytest.mark.parametrize("media_type", sorted(mediatypes.MANIFEST_TYPES))
def test_manifest_types(media_type: str) -> None:
    assert is_manifest(media_type)
    assert is_manifest(media_type.upper() + "; charset=utf-8")
    assert is_index(media_type) == (media_type in {mediatypes.OCI_INDEX, mediatypes.DOCKER_MANIFEST_LIST})


@pytest.mark.parametrize(
    "media_type", ["", "*/*", "application/json", mediatypes.OCI_CONFIG, mediatypes.OCI_LAYER_GZIP]
)
def test_not_manifests(media_type: str) -> None:
    assert not is_manifest(media_type)
    assert not is_index(media_type)


@given(st.permutations(DOCKER))
def test_order_and_lines_do_not_matter(lines: list[str]) -> None:
    expected = accept_class(DOCKER)
    assert accept_class(lines) == expected
    assert accept_class([", ".join(lines)]) == expected
    assert accept_class([",".join(line.upper() for line in lines)]) == expected


def test_the_set_matters() -> None:
    assert accept_class(DOCKER) != accept_class(DOCKER[1:])
    assert accept_class(CONTAINERD) != accept_class([CONTAINERD[0].removesuffix(", */*")])
    assert accept_class([mediatypes.OCI_MANIFEST]) != accept_class([mediatypes.OCI_INDEX])


@pytest.mark.parametrize("weighted", [f"{mediatypes.OCI_INDEX};q=0.8", f" {mediatypes.OCI_INDEX} ; Q=1 ; v=2"])
def test_weights_do_not_matter(weighted: str) -> None:
    assert accept_class([weighted]) == mediatypes.OCI_INDEX


@pytest.mark.parametrize("refused", [";q=0", "; q=0.0", ";v=1;q=0.000"])
def test_weight_zero_is_a_refusal(refused: str) -> None:
    assert accept_class([f"{mediatypes.OCI_INDEX}{refused}, {mediatypes.OCI_MANIFEST}"]) == mediatypes.OCI_MANIFEST


def test_unknown_types_are_dropped_but_anything_is_kept() -> None:
    assert accept_class(["text/html, application/json"]) == ""
    assert accept_class(["text/html, */*;q=0.1"]) == "*/*"
    assert accept_class(["application/*"]) == "*/*"
    assert accept_class([]) == ""


@given(st.lists(st.sampled_from([*sorted(mediatypes.MANIFEST_TYPES), "*/*", "text/html", "application/*"])))
def test_the_class_is_an_accept_value_of_that_class(values: list[str]) -> None:
    once = accept_class(values)
    assert accept_class([once]) == once


@given(st.lists(st.text()))
def test_any_header_has_a_class(values: list[str]) -> None:
    assert isinstance(accept_class(values), str)
