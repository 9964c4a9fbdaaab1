"""Manifests of every kind, and documents that only claim to be one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import (
    MAX_MANIFEST,
    Descriptor,
    InvalidManifest,
    Platform,
    parse_manifest,
)

A, B, C = (Digest("sha256", letter * 64) for letter in "abc")


def descriptor(media_type: str, digest: Digest = A, size: int = 10, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size, **more}


def image(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": descriptor(mediatypes.OCI_CONFIG, A),
        "layers": [descriptor(mediatypes.OCI_LAYER_GZIP, B, 20), descriptor(mediatypes.OCI_LAYER_ZSTD, C, 30)],
        **more,
    }


def index(**more: Any) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1", "os.features": ["x"]}
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [
            descriptor(mediatypes.OCI_MANIFEST, A, platform=platform),
            descriptor(mediatypes.OCI_MANIFEST, B),
        ],
        **more,
    }


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


SCHEMA1: dict[str, Any] = {
    "schemaVersion": 1,
    "name": "a",
    "tag": "b",
    "fsLayers": [{"blobSum": str(A)}, {"blobSum": str(A)}],
}
ARTIFACT: dict[str, Any] = {
    "mediaType": mediatypes.OCI_ARTIFACT,
    "artifactType": "application/x",
    "blobs": [descriptor("application/x", B)],
    "subject": descriptor(mediatypes.OCI_MANIFEST, C),
}


def test_image() -> None:
    info = parse_manifest(encode(image()), mediatypes.OCI_MANIFEST)
    assert (info.kind, info.media_type) == ("image", mediatypes.OCI_MANIFEST)
    assert info.config == Descriptor(mediatypes.OCI_CONFIG, A, 10)
    assert [layer.digest for layer in info.layers] == [B, C]
    assert [blob.digest for blob in info.blobs] == [A, B, C]
    assert info.manifests == ()
    assert info.subject is None


def test_docker_image_with_foreign_layers() -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.DOCKER_MANIFEST,
        "config": descriptor(mediatypes.DOCKER_CONFIG, A),
        "layers": [
            descriptor(mediatypes.DOCKER_FOREIGN_LAYER_GZIP, B, urls=["https://example/x"]),
            descriptor(mediatypes.DOCKER_LAYER_GZIP, C),
        ],
    }
    info = parse_manifest(encode(document), mediatypes.DOCKER_MANIFEST)
    assert info.kind == "image"
    assert [blob.foreign for blob in info.blobs] == [False, True, False]
    assert info.layers[0].urls == ("https://example/x",)


def test_index() -> None:
    info = parse_manifest(encode(index()), mediatypes.OCI_INDEX)
    assert (info.kind, info.config, info.layers, info.blobs) == ("index", None, (), ())
    assert [child.digest for child in info.manifests] == [A, B]
    assert info.manifests[0].platform == Platform("linux", "arm", "v7", "1", ("x",))
    assert str(info.manifests[0].platform) == "linux/arm/v7"
    assert info.manifests[1].platform is None


@pytest.mark.parametrize("more", [{"artifactType": "application/x"}, {"config": descriptor(mediatypes.HELM_CONFIG)}])
def test_an_image_manifest_of_something_else_is_an_artifact(more: dict[str, Any]) -> None:
    info = parse_manifest(encode(image(**more)), mediatypes.OCI_MANIFEST)
    assert info.kind == "artifact"
    assert info.artifact_type == more.get("artifactType")


def test_the_withdrawn_artifact_manifest() -> None:
    info = parse_manifest(encode(ARTIFACT), None)
    assert (info.kind, info.config, info.artifact_type) == ("artifact", None, "application/x")
    assert [blob.digest for blob in info.blobs] == [B]
    assert info.subject is not None
    assert info.subject.digest == C


@pytest.mark.parametrize("media_type", sorted(mediatypes.SCHEMA1_TYPES))
def test_schema_1_says_no_sizes(media_type: str) -> None:
    info = parse_manifest(encode(SCHEMA1), media_type)
    assert (info.kind, info.media_type) == ("schema1", media_type)
    assert [(layer.digest, layer.size) for layer in info.layers] == [(A, -1), (A, -1)]


def test_subject_and_annotations() -> None:
    document = image(subject=descriptor(mediatypes.OCI_MANIFEST, C), annotations={"a": "b", "bad": 1})
    info = parse_manifest(encode(document), mediatypes.OCI_MANIFEST)
    assert info.subject == Descriptor(mediatypes.OCI_MANIFEST, C, 10)
    assert info.annotations == {"a": "b"}
    assert len({info}) == 1


class TestWhichType:
    """Content-Type, then mediaType, then the shape."""

    def test_content_type_wins(self) -> None:
        info = parse_manifest(encode(image()), f"{mediatypes.DOCKER_MANIFEST}; charset=utf-8")
        assert info.media_type == mediatypes.DOCKER_MANIFEST

    @pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain"])
    def test_media_type_is_next(self, content_type: str | None) -> None:
        document = image(mediaType=mediatypes.DOCKER_MANIFEST)
        assert parse_manifest(encode(document), content_type).media_type == mediatypes.DOCKER_MANIFEST

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            (without(image(), "mediaType"), mediatypes.OCI_MANIFEST),
            (image(mediaType=1), mediatypes.OCI_MANIFEST),
            (image(mediaType="text/plain"), mediatypes.OCI_MANIFEST),
            (image(mediaType="application/vnd.doc\u212aer.distribution.manifest.v2+json"), mediatypes.OCI_MANIFEST),
            (
                without(image(config=descriptor(mediatypes.DOCKER_CONFIG)), "mediaType"),
                mediatypes.DOCKER_MANIFEST,
            ),
            (without(index(), "mediaType"), mediatypes.OCI_INDEX),
            (without(ARTIFACT, "mediaType"), mediatypes.OCI_ARTIFACT),
            (SCHEMA1, mediatypes.DOCKER_SCHEMA1),
            ({**SCHEMA1, "signatures": []}, mediatypes.DOCKER_SCHEMA1_SIGNED),
        ],
    )
    def test_the_shape_is_last(self, document: dict[str, Any], expected: str) -> None:
        assert parse_manifest(encode(document), "application/json").media_type == expected


@pytest.mark.parametrize("empty", [None, []])
def test_empty_lists_as_go_writes_them(empty: object) -> None:
    assert parse_manifest(encode(image(layers=empty, manifests=empty)), None).layers == ()
    assert parse_manifest(encode(index(manifests=empty)), None).manifests == ()


def test_a_missing_size_is_unknown() -> None:
    document = image(config={"mediaType": mediatypes.OCI_CONFIG, "digest": str(A)})
    config = parse_manifest(encode(document), None).config
    assert config is not None
    assert config.size == -1


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (image(manifests=index()["manifests"]), mediatypes.OCI_MANIFEST),
        (index(layers=image()["layers"]), mediatypes.OCI_INDEX),
        (index(config=image()["config"]), mediatypes.OCI_INDEX),
        (image(), mediatypes.OCI_INDEX),
        (index(), mediatypes.OCI_MANIFEST),
        ({**SCHEMA1, "layers": image()["layers"]}, mediatypes.DOCKER_SCHEMA1),
        (image(fsLayers=SCHEMA1["fsLayers"]), None),
        ({**ARTIFACT, "layers": image()["layers"]}, None),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(document: dict[str, Any], content_type: str | None) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(encode(document), content_type)


@pytest.mark.parametrize("content_type", [None, *sorted(mediatypes.MANIFEST_TYPES)])
@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        1,
        "x",
        {"errors": [{"code": "DENIED"}]},
        {"config": 1},
        {"manifests": {}},
        {"layers": [1]},
        image(config=None),
        image(config=[]),
        image(layers={}),
        image(layers=[1]),
        index(manifests=[[]]),
        {**SCHEMA1, "fsLayers": [1]},
        {**SCHEMA1, "fsLayers": [{}]},
        {**SCHEMA1, "fsLayers": 1},
        image(config={"mediaType": ["x"]}, mediaType=None),
    ],
)
def test_no_manifest(document: object, content_type: str | None) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(encode(document), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>429 Too Many Requests</html>",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        '{"schemaVersion": 2}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"config": {"size": ' + b"9" * 5000 + b"}}",
        encode(image()) + b" " * MAX_MANIFEST,
    ],
)
def test_not_even_json(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(body, mediatypes.OCI_MANIFEST)


def test_the_largest_manifest_allowed() -> None:
    body = encode(image())
    assert parse_manifest(body + b" " * (MAX_MANIFEST - len(body)), None).kind == "image"


@pytest.mark.parametrize(
    "bad",
    [
        {"digest": "sha256:12"},
        {"digest": 1},
        {"digest": None},
        {"size": -1},
        {"size": 1.5},
        {"size": True},
        {"size": "10"},
        {"size": None},
        {"mediaType": 1},
        {"mediaType": "x"},
        {"mediaType": "a/b\nc"},
        {"mediaType": "\ud800/x"},
    ],
)
def test_a_bad_descriptor_is_refused_wherever_it_is(bad: dict[str, Any]) -> None:
    wrong = {**descriptor("application/x"), **bad}
    for document in (image(config=wrong), image(layers=[wrong]), index(manifests=[wrong]), image(subject=wrong)):
        with pytest.raises(InvalidManifest):
            parse_manifest(encode(document), None)


@pytest.mark.parametrize("odd", [{"urls": 1}, {"urls": [1, "\ud800"]}, {"platform": []}, {"annotations": ["\ud800"]}])
def test_what_no_one_acts_on_is_dropped(odd: dict[str, Any]) -> None:
    info = parse_manifest(encode(index(manifests=[{**descriptor("application/x"), **odd}])), None)
    assert info.manifests == (Descriptor("application/x", A, 10),)


# The keys the parser looks at, so that random documents get past its first question.
KEYS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "fsLayers", "blobSum", "digest", "size"]
KEYS += ["urls", "platform", "annotations", "subject", "artifactType", "os", "os.features", "signatures"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(str(A)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)


@given(JSON, st.sampled_from([None, "application/json", *sorted(mediatypes.MANIFEST_TYPES)]))
def test_parse_or_invalid_manifest(document: object, content_type: str | None) -> None:
    try:
        info = parse_manifest(json.dumps(document).encode(), content_type)
    except InvalidManifest:
        return
    assert mediatypes.is_manifest(info.media_type)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(body, mediatypes.OCI_INDEX)
