"""What two manifests differ in: layers, sizes, and what the labels of an image say of its version. Pure.

Of an index, the image of one platform is compared, the same on both sides: one whose configuration is here, if any.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from entrepot.registry.digests import Digest
from entrepot.registry.manifests import InvalidManifest, ManifestInfo, parse_manifest

LABELS: Final = tuple(f"org.opencontainers.image.{name}" for name in ("version", "revision", "created"))

type Manifests = Callable[[Digest], tuple[bytes, str] | None]
"""Bytes and media type of a manifest that is held."""
type Blobs = Callable[[Digest], bytes | None]
"""A configuration that is held."""


@dataclass(frozen=True, slots=True)
class Image:
    """The image of one platform."""

    platform: str  # "" where nobody says
    layers: tuple[str, ...]  # digests, in order
    size: int  # bytes of the layers and the configuration
    labels: Mapping[str, str] = field(default_factory=dict)  # those of `LABELS`; "created" of the configuration itself


@dataclass(frozen=True, slots=True)
class Changes:
    """From one image to the next."""

    platform: str
    added: tuple[str, ...]  # layers
    removed: tuple[str, ...]


def images(digest: Digest, manifests: Manifests, blobs: Blobs) -> dict[str, Image]:
    """By platform: of an index all whose manifests are held."""
    if (info := _info(digest, manifests)) is None:
        return {}
    if info.kind != "index":
        return {"": image} if (image := _image("", info, blobs)) else {}
    found: dict[str, Image] = {}
    for child in info.manifests:
        name = str(child.platform) if child.platform else ""
        if (one := _info(child.digest, manifests)) is not None and (image := _image(name, one, blobs)):
            found.setdefault(name, image)
    return found


def preferred(found: Mapping[str, Image], among: Mapping[str, Image] | None = None) -> Image | None:
    """The one to show: of a platform that `among` has too, and with labels if there is one."""
    usable = [one for name, one in found.items() if among is None or name in among] or list(found.values())
    return next((one for one in usable if one.labels), usable[0] if usable else None)


def changes(old: Mapping[str, Image], new: Mapping[str, Image]) -> Changes | None:
    """None where no platform is known of both."""
    common = {name: one for name, one in new.items() if name in old}
    if (shown := preferred(common)) is None:
        return None
    had = old[shown.platform].layers
    return Changes(
        shown.platform,
        tuple(one for one in shown.layers if one not in had),
        tuple(one for one in had if one not in shown.layers),
    )


def _info(digest: Digest, manifests: Manifests) -> ManifestInfo | None:
    held = manifests(digest)
    try:
        return parse_manifest(*held) if held else None
    except InvalidManifest:
        return None


def _image(platform: str, info: ManifestInfo, blobs: Blobs) -> Image | None:
    if info.kind not in {"image", "schema1", "artifact"}:
        return None
    size = sum(max(0, blob.size) for blob in info.blobs)
    body = blobs(info.config.digest) if info.config is not None else None
    labels = _labels(body) if body is not None else {}
    return Image(platform, tuple(str(one.digest) for one in info.layers), size, labels)


def _labels(body: bytes) -> dict[str, str]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    config = document.get("config")
    said = config.get("Labels") if isinstance(config, dict) else None
    labels = said if isinstance(said, dict) else {}
    found = {name: text for name in LABELS if isinstance(text := labels.get(name), str) and text.isprintable()}
    created = document.get("created")
    if isinstance(created, str) and created.isprintable():
        found.setdefault("created", created)
    return found
