"""The images that are held, as the page lists them. Blocking; for one thread.

A tag has a record for each class of `Accept` it was asked with; what differs only in that is one row. What costs a look
at manifests and files is found out for the rows of one page only. Whether a repository is shown to somebody is decided
by whoever asks for the list: here it is only said which are known to be public.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.cache.layout import Layout
from entrepot.cache.onlooker import Onlooker
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.manifests import Descriptor, InvalidManifest, ManifestInfo, parse_manifest

PAGE: Final = 50  # rows
MOST: Final = 64  # images of an index that are looked at


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag with one digest."""

    registry: str
    repository: str
    tag: str
    digest: str
    media_type: str
    checked: float  # epoch seconds at which the registry last confirmed it
    public: bool

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Row:
    """A tag, and what is found out for a page."""

    tag: Tag
    platforms: tuple[str, ...]
    """Those whose manifest is held, for an index; else nothing."""
    offered: int
    """How many platforms the index has."""
    held: int
    """Bytes of its blobs that are held."""
    size: int
    """Bytes of all its blobs, as far as their manifests are held."""
    used: float | None
    """Epoch seconds of the last use of any of them."""


def tags(records: Onlooker) -> list[Tag]:
    """By name. Raises `StoreError`."""
    found: dict[tuple[str, str], Tag] = {}
    public: dict[str, bool] = {}
    for _, record in records.scan("tag/"):
        match record:
            case {
                "registry": str() as registry,
                "repository": str() as repository,
                "tag": str() as tag,
                "digest": str() as digest,
                "media_type": str() as media_type,
                "checked": int() | float() as checked,
            }:
                where = f"{registry}/{repository}"
                if where not in public:
                    public[where] = (records.get(f"public/{where}") or {}).get("public") is True
                one = Tag(registry, repository, tag, digest, media_type, checked, public[where])
                known = found.get(key := (one.name, digest))
                found[key] = one if known is None or known.checked < checked else known
            case _:
                continue
    return sorted(found.values(), key=lambda one: (one.name, -one.checked))


def matching(found: Iterable[Tag], words: str) -> list[Tag]:
    """Those that have every word in their name or digest."""
    wanted = words.lower().split()
    return [one for one in found if all(word in one.name.lower() or word in one.digest for word in wanted)]


def rows(found: Sequence[Tag], records: Onlooker, store: Path) -> list[Row]:
    """For one page. Raises `StoreError`."""
    layout = Layout(store)
    return [_row(one, records, layout) for one in found]


def _row(tag: Tag, records: Onlooker, layout: Layout) -> Row:
    info = _manifest(records, tag.digest)
    platforms, images = list[str](), [info] if info else []
    for child in (info.manifests if info else ())[:MOST]:
        if (image := _manifest(records, str(child.digest))) is not None:
            images.append(image)
            if child.platform is not None and (name := str(child.platform)) != "unknown/unknown":
                platforms.append(name)
    blobs: dict[Digest, Descriptor] = {
        blob.digest: blob for image in images for blob in image.blobs if not blob.foreign
    }
    held, used = 0, None
    for digest in blobs:
        with suppress(OSError):
            stat = layout.blob(digest).stat()
            held += stat.st_size
            used = max(used or 0.0, stat.st_mtime)
    offered = sum(str(one.platform) != "unknown/unknown" for one in info.manifests if one.platform) if info else 0
    return Row(
        tag, tuple(dict.fromkeys(platforms)), offered, held, sum(max(0, one.size) for one in blobs.values()), used
    )


def _manifest(records: Onlooker, digest: str) -> ManifestInfo | None:
    if (value := records.get_bytes(f"manifest/{digest}")) is None:
        return None
    media_type, _, body = value.partition(b"\n")
    try:
        return parse_manifest(body, media_type.decode())
    except (InvalidManifest, InvalidDigest, UnicodeDecodeError):
        return None
