"""What tags were when they were last looked at: the records, nothing decided.

A record is kept for each class of `Accept` that a tag was asked with (DESIGN rule 4), because a registry may answer
each with another manifest. Which classes there are is kept beside, so that in an outage a client with an `Accept` of
its own can have what others were given, if it takes that type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.messages import PullRequest
from entrepot.registry.digests import Digest
from entrepot.registry.mediatypes import accept_class, accepts
from entrepot.registry.routes import ManifestRoute

NO_SIZE: Final = -1
MOST_CLASSES: Final = 16  # of `Accept` that are remembered for one tag


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag was when it was last looked at, for one class of `Accept`."""

    digest: Digest
    media_type: str
    size: int  # bytes of the manifest, -1 when upstream did not say
    checked: float  # epoch seconds
    moved: float  # epoch seconds at which it was first seen with this digest
    awaits: str = ""  # the digest that upstream has now, while that has to wait (`cooldown`)

    @classmethod
    def load(cls, value: Document | None) -> "TagRecord | None":
        match value:
            case {
                "digest": str(digest),
                "media_type": str(media_type),
                "size": int(size),
                "checked": float() | int() as checked,
                "moved": float() | int() as moved,
                **rest,
            }:
                awaits = rest.get("awaits")
                waiting = awaits if isinstance(awaits, str) else ""
                return cls(Digest.parse(digest), media_type, size, checked, moved, waiting)
            case _:
                return None


class Tags:
    """The records of tags."""

    def __init__(self, records: Records) -> None:
        self._records = records

    @staticmethod
    def key(request: PullRequest, route: ManifestRoute) -> str:
        """Where the record for this question is."""
        return f"{_of(request, route)}/{_class(request.headers.get_all('accept'))}"

    def get(self, key: str) -> TagRecord | None:
        return TagRecord.load(self._records.get(key))

    async def put(self, key: str, request: PullRequest, route: ManifestRoute, record: TagRecord) -> TagRecord:
        """Keeps it; a digest that is not new keeps the date of its move. What is kept is returned."""
        before = self.get(key)
        if before and before.digest == record.digest:
            record = replace(record, moved=before.moved)
        value: dict[str, object] = {
            "digest": str(record.digest),
            "media_type": record.media_type,
            "size": record.size,
            "checked": record.checked,
            "moved": record.moved,
            "registry": request.registry.name,
            "repository": route.repository,
            "tag": str(route.reference),
        }
        if record.awaits:
            value["awaits"] = record.awaits
        await self._records.put(key, value)
        if before is None:
            await self._note_class(key)
        return record

    async def _note_class(self, key: str) -> None:
        base, _, one = key.rpartition("/")
        known = self._classes(base)
        if one not in known:
            await self._records.put(f"classes/{base}", {"of": [*known, one][-MOST_CLASSES:]})

    def _classes(self, base: str) -> list[str]:
        found = (self._records.get(f"classes/{base}") or {}).get("of")
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    def keys(self, request: PullRequest, route: ManifestRoute) -> list[str]:
        """Where the records of the tag are, for every class of `Accept`."""
        base = _of(request, route)
        return [f"{base}/{one}" for one in self._classes(base)]

    def is_known(self, request: PullRequest, route: ManifestRoute) -> bool:
        """Whether anybody has asked for it, with whatever `Accept`."""
        return bool(self._classes(_of(request, route)))

    async def forget(self, registry: str, repository: str, tag: str) -> None:
        """The tag is about to be something else, for every class: the next one who asks has it checked."""
        base = f"tag/{registry}/{repository}/{tag}"
        for one in self._classes(base):
            key = f"{base}/{one}"
            if (known := self._records.get(key)) is not None:
                await self._records.put(key, {**known, "checked": 0.0})

    def others(self, request: PullRequest, route: ManifestRoute) -> list[TagRecord]:
        """What askers with another `Accept` were given and this one takes, the latest look first."""
        wanted, base = request.headers.get_all("accept"), _of(request, route)
        records = [record for one in self._classes(base) if (record := self.get(f"{base}/{one}")) is not None]
        usable = [record for record in records if accepts(wanted, record.media_type)]
        return sorted(usable, key=lambda record: -record.checked)


def _of(request: PullRequest, route: ManifestRoute) -> str:
    return f"tag/{request.registry.name}/{route.repository}/{route.reference}"


def _class(accept: Sequence[str]) -> str:
    return _name_of(accept_class(accept))


@lru_cache(maxsize=512)
def _name_of(accepted: str) -> str:
    return Digest.of(accepted.encode()).hex[:16]
