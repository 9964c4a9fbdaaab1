"""What belongs to a held tag, and is never evicted: all that its manifest leads to (DESIGN rules 7 and 10).

A digest is kept by a record `protected/<digest>`. What a kept manifest refers to is kept too, as soon as that manifest
is here (`follow`), so that platforms and layers which come later are kept as they come. Referrers (signatures, SBOMs)
are kept as far as a list of them is remembered. Decides nothing about what is held by an operator's will: that is
`pins`'.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.heldmanifests import held_manifest
from entrepot.engine.lists import FILTERS
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.manifests import Descriptor, InvalidManifest, parse_manifest

PREFIX: Final = "protected/"
BY_HOLD: Final = "hold"  # who protects: the field of the record
MOST: Final = 4096  # digests of one tree


class Keeping:
    """Over the records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def is_kept(self, digest: Digest) -> bool:
        """Whether it is never evicted."""
        return self._records.get(f"{PREFIX}{digest}") is not None

    def tree(self, registry: str, repository: str, digest: Digest) -> dict[Digest, Descriptor | None]:
        """All that is known to belong to a manifest, itself first; itself and referrers without a descriptor."""
        found: dict[Digest, Descriptor | None] = {digest: None}
        todo = [digest, *self.referrers(registry, repository, digest)]
        found.update(dict.fromkeys(todo))
        while todo and len(found) < MOST:
            for child in self._children(todo.pop()):
                if child.digest not in found:
                    found[child.digest] = child
                    todo.append(child.digest)
        return found

    def _children(self, digest: Digest) -> tuple[Descriptor, ...]:
        held = held_manifest(self._records, digest)
        return () if held is None else children(*held)

    def referrers(self, registry: str, repository: str, digest: Digest) -> list[Digest]:
        """Manifests that refer to it: as the registry listed them last, and as cosign names a signature."""
        return list(self._referrers(registry, repository, digest))

    def _referrers(self, registry: str, repository: str, digest: Digest) -> Iterator[Digest]:
        for place in range(FILTERS):
            value = self._records.get(f"list/{registry}/{repository}/referrers/{digest}/{place}")
            if value is not None:
                yield from _listed(value.get("body"))
        for kind in ("sig", "att", "sbom"):
            base = f"{registry}/{repository}/{digest.algorithm}-{digest.hex}.{kind}"
            classes = (self._records.get(f"classes/tag/{base}") or {}).get("of")
            for one in classes if isinstance(classes, list) else ():
                known = (self._records.get(f"tag/{base}/{one}") or {}).get("digest")
                yield from _digests([known])

    async def keep(self, registry: str, repository: str, digests: Iterable[str]) -> int:
        """From now on, with all that belongs to them. How many digests that is."""
        wanted = {one for text in digests for one in self.tree(registry, repository, Digest.parse(text))}
        await self._note(wanted)
        return len(wanted)

    async def follow(self, digest: Digest, body: bytes, media_type: str) -> None:
        """A manifest is here now: what it refers to is kept if it is."""
        if self.is_kept(digest):
            await self._note(child.digest for child in children(body, media_type))

    async def _note(self, digests: Iterable[Digest]) -> None:
        new: dict[str, Document] = {}
        for digest in digests:
            key = f"{PREFIX}{digest}"
            known = self._records.get(key)
            if known is None or BY_HOLD not in known:
                new[key] = {**(known or {}), BY_HOLD: True}
        if new:
            await self._records.put_many(new)

    async def settle(self, held: Iterable[tuple[str, str, str]]) -> int:
        """Keeps what these (registry, repository, digest) lead to, and by holds nothing else: a scan, for commands.

        How many digests are let go.
        """
        wanted = {one for registry, repo, text in held for one in self.tree(registry, repo, Digest.parse(text))}
        await self._note(wanted)
        names, gone = {str(one) for one in wanted}, 0
        for key, value in list(self._records.scan(PREFIX)):
            if key.removeprefix(PREFIX) in names or BY_HOLD not in value:
                continue
            rest = {name: one for name, one in value.items() if name != BY_HOLD}
            if rest:
                await self._records.put(key, rest)
            else:
                await self._records.delete(key)
            gone += 1
        return gone


def children(body: bytes, media_type: str) -> tuple[Descriptor, ...]:
    """All that a manifest refers to here: what is elsewhere (`urls`) is not ours to keep."""
    try:
        info = parse_manifest(body, media_type)
    except InvalidManifest:
        return ()
    return tuple(one for one in (*info.blobs, *info.manifests) if not one.foreign)


def _listed(body: object) -> Iterator[Digest]:
    """The manifests of an index, as text."""
    try:
        listed = json.loads(body) if isinstance(body, str) else None
    except ValueError:
        return
    manifests = listed.get("manifests") if isinstance(listed, dict) else None
    if isinstance(manifests, list):
        yield from _digests(one.get("digest") for one in manifests if isinstance(one, dict))


def _digests(texts: Iterable[object]) -> Iterator[Digest]:
    for text in texts:
        try:
            if isinstance(text, str):
                yield Digest.parse(text)
        except InvalidDigest:
            pass
