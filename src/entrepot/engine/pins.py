"""Tags that are held: which, at what, by whose order (DESIGN rule 7). The records, and what they mean together.

    pins                                     there are orders at all: without it nothing else is looked at
    patterns                                 patterns of tags that are held as they are first seen
    pin/<registry>/<repository>/<tag>        one tag: held at a digest, or exempt from the patterns

A tag that is held without a digest is held at what is in its record, or at what it is when it is first asked for. An
order of an operator's goes before any pattern, and a pattern before `new_tags` of the configuration. How a held tag is
answered is `controlled`'s.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.patterns import first_fit
from entrepot.registry.digests import Digest, InvalidDigest

THERE_ARE: Final = "pins"
PATTERNS: Final = "patterns"
NEW_TAGS: Final = "new_tags"  # the source of what is held because the configuration says so of new tags


@dataclass(frozen=True, slots=True)
class Pin:
    """An order about one tag."""

    digest: str = ""  # "" = as in its record, or as it is first seen
    classes: Mapping[str, str] = field(default_factory=dict)  # class of `Accept` -> digest, where it is another one
    at: float = 0.0  # epoch seconds
    by: str = ""
    why: str = ""
    source: str = ""  # the pattern, or NEW_TAGS, that it follows from; "" = an order about this very tag
    pending: bool = False  # it is to move on to what upstream has, at the next request
    free: bool = False  # it is not held, whatever patterns say

    def digest_for(self, accept_class: str) -> Digest | None:
        """For clients that ask with this class of `Accept`."""
        text = self.classes.get(accept_class, self.digest)
        try:
            return Digest.parse(text) if text else None
        except InvalidDigest:
            return None

    def digests(self) -> set[str]:
        """All that it holds."""
        return {digest for digest in (self.digest, *self.classes.values()) if digest}

    @classmethod
    def load(cls, value: Document | None) -> "Pin | None":
        match value:
            case {
                "digest": str(digest),
                "classes": dict(classes),
                "at": float() | int() as at,
                "by": str(by),
                "why": str(why),
                "source": str(source),
                "pending": bool(pending),
                "free": bool(free),
            }:
                named = {str(name): str(one) for name, one in classes.items()}
                return cls(digest, named, at, by, why, source, pending, free)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Held:
    """A pattern of tags that are held."""

    pattern: str
    at: float  # epoch seconds
    by: str
    why: str

    @classmethod
    def load(cls, value: object) -> "Held | None":
        match value:
            case {"pattern": str(pattern), "at": float() | int() as at, "by": str(by), "why": str(why)}:
                return cls(pattern, at, by, why)
            case _:
                return None


class Pins:
    """Over the records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def of(self, registry: str, repository: str, tag: str) -> Pin | None:
        """What holds the tag, if anything does."""
        if self._records.get(THERE_ARE) is None:
            return None
        if (pin := self.exact(registry, repository, tag)) is not None:
            return None if pin.free else pin
        patterns = self.patterns()
        if not patterns or not (found := first_fit((one.pattern for one in patterns), registry, repository, tag)):
            return None
        held = next(one for one in patterns if one.pattern == found)
        return Pin(at=held.at, by=held.by, why=held.why, source=held.pattern)

    def exact(self, registry: str, repository: str, tag: str) -> Pin | None:
        """The order about this very tag, be it that it is free."""
        return Pin.load(self._records.get(_key(registry, repository, tag)))

    def patterns(self) -> list[Held]:
        """In the order in which they were given."""
        found = (self._records.get(PATTERNS) or {}).get("patterns")
        return [held for one in found if (held := Held.load(one))] if isinstance(found, list) else []

    def all(self) -> Iterator[tuple[str, str, str, Pin]]:
        """Registry, repository, tag and pin. A scan: for commands."""
        for _, value in self._records.scan("pin/"):
            match value, Pin.load(value):
                case {"registry": str(registry), "repository": str(repository), "tag": str(tag)}, Pin() as pin:
                    yield registry, repository, tag, pin
                case _:
                    pass

    async def put(self, registry: str, repository: str, tag: str, pin: Pin) -> None:
        """From the next request on, in every process."""
        name = {"registry": registry, "repository": repository, "tag": tag}
        document = {**asdict(pin), "classes": dict(pin.classes), **name}
        await self._records.put_many({THERE_ARE: {}, _key(registry, repository, tag): document})

    async def remove(self, registry: str, repository: str, tag: str) -> None:
        """No order about this tag any more."""
        await self._records.delete(_key(registry, repository, tag))

    async def put_patterns(self, patterns: list[Held]) -> None:
        """All that there are from now on."""
        await self._records.put_many({THERE_ARE: {}, PATTERNS: {"patterns": [asdict(one) for one in patterns]}})


def _key(registry: str, repository: str, tag: str) -> str:
    return f"pin/{registry}/{repository}/{tag}"
