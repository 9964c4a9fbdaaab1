"""Manifests: what kind one is, and what it refers to.

Reads the parts a cache acts on (types, digests, sizes, platforms, the subject) and is lenient with the rest:
annotations and the like are carried along where they are well formed and dropped where not. Whether the
bytes have the digest they were asked for by is checked before, by the caller.

A document must be one thing. If it can be read both as an image and as an index, two clients would pull
different things under one digest (CVE-2021-41190), so it is refused here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from entrepot.errors import EntrepotError
from entrepot.registry import mediatypes
from entrepot.registry.digests import Digest, InvalidDigest

# Bytes. distribution, Docker Hub and containerd take no manifest above 4 MiB.
MAX_MANIFEST: Final = 4 * 1024 * 1024

type Kind = Literal["image", "index", "artifact", "schema1"]
type _Object = Mapping[str, object]

# A tuple: what it is asked for may be a list or an object, which no set takes.
_DOCKER_CONFIGS = (mediatypes.DOCKER_CONFIG, mediatypes.DOCKER_PLUGIN_CONFIG)
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\t -~]*)?", re.ASCII)


class InvalidManifest(EntrepotError, ValueError):
    """The body is no manifest we can follow."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image of an index runs on; empty strings where the index does not say."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference from one piece of content to another."""

    media_type: str
    digest: Digest
    size: int  # bytes; -1 where the manifest does not say (schema 1)
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def foreign(self) -> bool:
        """Whether the registry may lack it; clients then look for it at `urls`."""
        return bool(self.urls) or self.media_type in mediatypes.FOREIGN_LAYER_TYPES


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What a manifest says."""

    media_type: str
    kind: Kind
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config, then layers in order; look at `foreign` before missing one."""
        return self.layers if self.config is None else (self.config, *self.layers)


def parse_manifest(body: bytes, content_type: str | None) -> ManifestInfo:
    """Reads a manifest; raises `InvalidManifest`.

    A `content_type` that is a type of manifest wins, as it does with clients; next the document's own
    `mediaType`; if neither is one, the shape decides.
    """
    document = _load(body)
    media_type = _media_type(document, content_type)
    if media_type in mediatypes.SCHEMA1_TYPES:
        return _schema1(document, media_type)
    if media_type in mediatypes.INDEX_TYPES:
        return _index(document, media_type)
    return _image(document, media_type)


def _load(body: bytes) -> _Object:
    if len(body) > MAX_MANIFEST:
        raise InvalidManifest(f"manifest too large: {len(body)} bytes, {MAX_MANIFEST} are allowed")
    try:
        # Decoded first: json would take UTF-16 and UTF-32 too, which no client does.
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise InvalidManifest(f"manifest is not json: begins {body[:60]!r}") from problem
    if not isinstance(document, dict):
        raise InvalidManifest(f"manifest is not a json object: begins {body[:60]!r}")
    return document


def _media_type(document: _Object, content_type: str | None) -> str:
    for candidate in (content_type, document.get("mediaType")):
        # Lower-casing can turn other alphabets into ASCII, so that is asked first.
        if isinstance(candidate, str) and candidate.isascii() and mediatypes.is_manifest(candidate):
            return mediatypes.essence(candidate)
    return _sniff(document)


def _sniff(document: _Object) -> str:
    """The type by shape. Old OCI manifests say no type, and a few registries answer `application/json`."""
    if document.get("schemaVersion") == 1:
        return mediatypes.DOCKER_SCHEMA1_SIGNED if "signatures" in document else mediatypes.DOCKER_SCHEMA1
    if "manifests" in document:
        return mediatypes.OCI_INDEX
    config = document.get("config")
    if isinstance(config, dict):
        docker = config.get("mediaType") in _DOCKER_CONFIGS
        return mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST
    if "blobs" in document:
        return mediatypes.OCI_ARTIFACT
    raise InvalidManifest(f"not a manifest: it has none of manifests, config and blobs, but {sorted(document)[:8]!r}")


def _schema1(document: _Object, media_type: str) -> ManifestInfo:
    _require(document, media_type, "fsLayers")
    _refuse_other_shapes(document, media_type, "manifests", "layers", "config")
    layers = [
        Descriptor(mediatypes.DOCKER_LAYER_GZIP, _digest(_object(item, "fsLayers").get("blobSum"), "fsLayers"), -1)
        for item in _list(document, "fsLayers")
    ]
    return ManifestInfo(media_type, "schema1", layers=tuple(layers))


def _index(document: _Object, media_type: str) -> ManifestInfo:
    _require(document, media_type, "manifests")
    _refuse_other_shapes(document, media_type, "config", "layers", "fsLayers", "blobs")
    return ManifestInfo(
        media_type,
        "index",
        manifests=_descriptors(document, "manifests"),
        subject=_optional(document, "subject"),
        artifact_type=_text(document.get("artifactType")),
        annotations=_annotations(document),
    )


def _image(document: _Object, media_type: str) -> ManifestInfo:
    if media_type == mediatypes.OCI_ARTIFACT:
        _require(document, media_type, "artifactType")
        _refuse_other_shapes(document, media_type, "manifests", "layers", "config", "fsLayers")
        config, layers = None, _descriptors(document, "blobs")
    else:
        _require(document, media_type, "config")
        _refuse_other_shapes(document, media_type, "manifests", "fsLayers")
        config, layers = _descriptor(document.get("config"), "config"), _descriptors(document, "layers")
    artifact_type = _text(document.get("artifactType"))
    plain = config is not None and config.media_type in mediatypes.IMAGE_CONFIG_TYPES and artifact_type is None
    return ManifestInfo(
        media_type,
        "image" if plain else "artifact",
        config,
        layers,
        subject=_optional(document, "subject"),
        artifact_type=artifact_type,
        annotations=_annotations(document),
    )


def _require(document: _Object, media_type: str, name: str) -> None:
    """An error as JSON, sent as a manifest, would else pass for an empty one."""
    if name not in document:
        raise InvalidManifest(f"not a manifest: {media_type!r} without {name!r}, but {sorted(document)[:8]!r}")


def _refuse_other_shapes(document: _Object, media_type: str, *names: str) -> None:
    for name in names:
        # "manifests": null and [] are written by some tools' serializers and lead no client astray.
        if document.get(name):
            raise InvalidManifest(f"ambiguous manifest: {media_type!r} with {name!r} in it")


def _list(document: _Object, where: str) -> list[object]:
    items = document.get(where)
    if items is None:  # a Go nil slice
        return []
    if not isinstance(items, list):
        raise InvalidManifest(f"not a manifest: {where!r} is no list")
    return items


def _descriptors(document: _Object, where: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(item, where) for item in _list(document, where))


def _optional(document: _Object, where: str) -> Descriptor | None:
    item = document.get(where)
    return None if item is None else _descriptor(item, where)


def _descriptor(item: object, where: str) -> Descriptor:
    fields = _object(item, where)
    media_type = fields.get("mediaType", "")
    if not isinstance(media_type, str) or (media_type and _MEDIA_TYPE.fullmatch(media_type) is None):
        raise InvalidManifest(f"not a manifest: {where!r} has the media type {media_type!r:.80}")
    size = fields.get("size", -1)
    # bool is an int to Python; -1 may not be written out.
    if type(size) is not int or (size < 0 and "size" in fields):
        raise InvalidManifest(f"not a manifest: {where!r} has the size {size!r:.80}")
    return Descriptor(
        media_type,
        _digest(fields.get("digest"), where),
        size,
        _texts(fields.get("urls")),
        _platform(fields.get("platform")),
        _text(fields.get("artifactType")),
        _annotations(fields),
    )


def _object(item: object, where: str) -> _Object:
    if not isinstance(item, dict):
        raise InvalidManifest(f"not a manifest: {where!r} is or holds no json object")
    return item


def _digest(value: object, where: str) -> Digest:
    if not isinstance(value, str):
        raise InvalidManifest(f"not a manifest: a digest is missing in {where!r}")
    try:
        return Digest.parse(value)
    except InvalidDigest as problem:
        raise InvalidManifest(f"not a manifest: {where!r}: {problem}") from None


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(
        _text(value.get("os")) or "",
        _text(value.get("architecture")) or "",
        _text(value.get("variant")) or "",
        _text(value.get("os.version")) or "",
        _texts(value.get("os.features")),
    )


def _annotations(fields: _Object) -> Mapping[str, str]:
    found = fields.get("annotations")
    if not isinstance(found, dict):
        return {}
    return {key: text for key, value in found.items() if _text(key) and (text := _text(value)) is not None}


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    return tuple(text for item in items if (text := _text(item)))


def _text(value: object) -> str | None:
    r"""The value if it is text that can be stored: JSON can write half a surrogate pair (\ud800), UTF-8 cannot."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value
