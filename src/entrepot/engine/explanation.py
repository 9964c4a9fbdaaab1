"""What the box knows of one image, and what a pull of it would get. Asks nobody, changes nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from entrepot.cache.interface import Records
from entrepot.engine.access import Access
from entrepot.engine.dated import Dated, dated
from entrepot.engine.heldmanifests import held_manifest
from entrepot.engine.history import History, at
from entrepot.engine.pins import Pins
from entrepot.engine.policy import Policy
from entrepot.engine.rules import reason
from entrepot.engine.tags import TagRecord
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import InvalidManifest, ManifestInfo, parse_manifest
from entrepot.registry.names import ImageReference

MOST: Final = 64  # manifests of an index that are looked into


@dataclass(frozen=True, slots=True)
class Blob:
    """A config or a layer."""

    digest: str
    size: int  # bytes, as the manifest says; -1 where it does not
    held: bool
    served: bool  # this very repository is known to have it, or it is no secret: see `access`


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest: an index, or an image for a platform."""

    digest: str
    media_type: str
    platform: str  # "linux/amd64", or "" where nobody says
    held: bool
    size: int  # bytes
    blobs: tuple[Blob, ...] = ()

    @property
    def complete(self) -> bool:
        """All of it is here."""
        return self.held and all(blob.held for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Tag:
    """What the tag was when last looked at, by those who asked with one class of `Accept`."""

    digest: str
    media_type: str
    checked: float  # epoch seconds
    moved: float  # epoch seconds
    fresh_until: float  # epoch seconds; until then upstream is not asked
    awaits: str = ""  # the digest that upstream has, and that has to wait (`cooldown`)


@dataclass(frozen=True, slots=True)
class Order:
    """Why the tag does not move."""

    digest: str  # "" = held as it is first seen
    at: float  # epoch seconds
    by: str
    why: str
    source: str  # the pattern it follows from; "" = an order about this very tag
    pending: bool  # it moves on at the next pull


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may have it without upstream being asked."""

    public: bool | None  # None: never looked
    looked: float  # epoch seconds of that look; 0 if there was none
    public_until: float  # epoch seconds
    granted: int  # credentials and accounts that were accepted lately
    kept: int  # those that would count in an outage, the first included
    last: float  # epoch seconds of the latest acceptance; 0 if there is none


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one image."""

    image: str
    registry: str
    repository: str
    tags: tuple[Tag, ...]
    manifests: tuple[Manifest, ...]
    readers: Readers
    down: str  # why upstream counts as down; "" if it does not
    order: Order | None = None
    named: str = ""  # the tag of which this is the name at a time; then `tags` is what that was
    denied: str = ""  # why nobody gets it

    @property
    def held(self) -> bool:
        """A client could have it, for one platform at least, with upstream away."""
        images = [one for one in self.manifests if one.blobs]
        return any(one.complete for one in images)


class Explainer:
    """Over the records; `has_blob` says what is in the store, `down` why an upstream is down ("" if it is not)."""

    def __init__(
        self,
        records: Records,
        policy: Policy,
        *,
        clock: Callable[[], float],
        has_blob: Callable[[Digest], bool],
        down: Callable[[str], str],
    ) -> None:
        self._records, self._policy, self._clock = records, policy, clock
        self._has_blob, self._down = has_blob, down
        self._access, self._pins, self._history = Access(records, clock), Pins(records), History(records)

    def explain(self, registry: Registry, image: ImageReference) -> Explanation:
        """All that is known."""
        name, repository = registry.name, image.repository
        tags = () if image.tag is None else tuple(self._tags(registry, repository, image.tag))
        named = ""
        if not tags and image.tag and (then := dated(image.tag)) and (was := self._then(registry, repository, then)):
            named, tags = then.tag, (was,)
        pin = self._pins.of(name, repository, image.tag) if image.tag and not image.digest else None
        digests = [pin.digest] if pin is not None and pin.digest else [tag.digest for tag in tags]
        wanted = [image.digest] if image.digest else [Digest.parse(one) for one in digests]
        manifests: dict[str, Manifest] = {}
        for digest in dict.fromkeys(wanted):
            for one in self._manifests(name, repository, digest):
                manifests.setdefault(one.digest, one)
        return Explanation(
            str(image),
            name,
            repository,
            tags,
            tuple(manifests.values()),
            self._readers(registry, repository),
            self._down(registry.upstream),
            Order(pin.digest, pin.at, pin.by, pin.why, pin.source, pin.pending) if pin is not None else None,
            named,
            self._denied(registry, image),
        )

    def _denied(self, registry: Registry, image: ImageReference) -> str:
        denied, allowed = self._policy.denied(registry), self._policy.allowed(registry)
        name = registry.name, image.repository, image.reference
        return reason(denied, allowed, *name, self._history.tags_of) if denied or allowed else ""

    def _then(self, registry: Registry, repository: str, then: Dated) -> Tag | None:
        """What the tag was, by the history of any class of `Accept`."""
        base = f"tag/{registry.name}/{repository}/{then.tag}/"
        found = [at(self._history.moves(key), then.until) for key, _ in self._records.scan(base)]
        move = max((one for one in found if one), key=lambda one: one.taken, default=None)
        return None if move is None else Tag(move.digest, move.media_type, move.last, move.taken, inf)

    def _tags(self, registry: Registry, repository: str, tag: str) -> Iterator[Tag]:
        ttl = self._policy.tag_ttl(registry, repository, tag)
        found: dict[str, Tag] = {}
        for _, value in self._records.scan(f"tag/{registry.name}/{repository}/{tag}/"):
            if (record := TagRecord.load(value)) is None:
                continue
            fresh = record.checked + ttl
            one = Tag(str(record.digest), record.media_type, record.checked, record.moved, fresh, record.awaits)
            known = found.get(one.digest)
            if known is None or known.checked < one.checked:
                found[one.digest] = one
        yield from sorted(found.values(), key=lambda one: -one.checked)

    def _manifests(self, registry: str, repository: str, digest: Digest, platform: str = "") -> Iterator[Manifest]:
        held = held_manifest(self._records, digest)
        if held is None:
            yield Manifest(str(digest), "", platform, held=False, size=-1)
            return
        body, media_type = held
        info = _parsed(body, media_type)
        blobs = tuple(
            Blob(
                str(blob.digest),
                blob.size,
                self._has_blob(blob.digest),
                self._access.belongs(registry, repository, blob.digest),
            )
            for blob in (info.blobs if info else ())
            if not blob.foreign
        )
        yield Manifest(str(digest), media_type, platform, held=True, size=len(body), blobs=blobs)
        for child in (info.manifests if info else ())[:MOST]:
            name = str(child.platform) if child.platform else ""
            yield from self._manifests(registry, repository, child.digest, name)

    def _readers(self, registry: Registry, repository: str) -> Readers:
        known = self._access.publicness(registry.name, repository)
        lately, grace = self._policy.access_ttl(registry), self._policy.outage_grace(registry)
        times = [
            float(at)
            for _, value in self._records.scan(f"grant/{registry.name}/{repository}/")
            if isinstance(at := value.get("at"), int | float)
        ]
        return Readers(
            known.public if known else None,
            known.at if known else 0.0,
            known.at + self._policy.public_ttl(registry) if known else 0.0,
            sum(self._access.within(at, lately) for at in times),
            sum(self._access.within(at, grace) for at in times),
            max(times, default=0.0),
        )


def _parsed(body: bytes, media_type: str) -> ManifestInfo | None:
    try:
        return parse_manifest(body, media_type)
    except InvalidManifest:
        return None
