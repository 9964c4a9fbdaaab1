"""Orders about tags, carried out beside the running processes (DESIGN rule 7): they are in force at the next request.

Reads what the records know of a tag, and writes what a `decree` makes of it: the pin, what clients get, the history,
what is kept from eviction, and who has ordered it, when and why. Decides which tags an order is about.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from entrepot.cache.interface import Records
from entrepot.engine import decree
from entrepot.engine.decree import NotPossible, Order, State, Step
from entrepot.engine.heldmanifests import held_manifest
from entrepot.engine.history import History, Move
from entrepot.engine.keeping import Keeping
from entrepot.engine.patterns import first_fit, fits, tag_part
from entrepot.engine.pins import Held, Pins
from entrepot.engine.tags import NO_SIZE, TagRecord
from entrepot.registry.digests import Digest

MOST_ACTS: Final = 1000  # that are remembered of a tag, or a pattern


@dataclass(frozen=True, slots=True)
class Acted:
    """An order that was carried out."""

    act: str
    at: float  # epoch seconds
    by: str
    why: str
    before: str  # the digest that clients got
    after: str  # the digest that they got from then on; "" = what upstream had at the next request
    pattern: str  # the pattern it was given with; "" = the tag itself

    @classmethod
    def load(cls, value: object) -> "Acted | None":
        match value:
            case {
                "act": str(act),
                "at": float() | int() as at,
                "by": str(by),
                "why": str(why),
                "before": str(before),
                "after": str(after),
                "pattern": str(pattern),
            }:
                return cls(act, at, by, why, before, after, pattern)
            case _:
                return None


def tags_pattern(text: str) -> str:
    """A pattern of tags: without a tag in it, of all tags."""
    return text if tag_part(text) else f"{text}:*"


class Orders:
    """Over the records; `limit`: moves that are remembered of a tag, by registry."""

    def __init__(self, records: Records, limit: Callable[[str], int]) -> None:
        self._records, self._limit = records, limit
        self._pins, self._history, self._keeping = Pins(records), History(records), Keeping(records)

    # what there is

    def state(self, registry: str, repository: str, tag: str) -> State:
        """All that is known of a tag."""
        base = f"tag/{registry}/{repository}/{tag}"
        found = (self._records.get(f"classes/{base}") or {}).get("of")
        classes = [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
        loaded = {one: TagRecord.load(self._records.get(f"{base}/{one}")) for one in classes}
        moves = {one: self._history.moves(f"{base}/{one}") for one in classes}
        return State(
            registry,
            repository,
            tag,
            self._pins.exact(registry, repository, tag),
            self._pins.of(registry, repository, tag),
            {one: record for one, record in loaded.items() if record is not None},
            {one: past for one, past in moves.items() if past},
        )

    def seen(self, pattern: str) -> Iterator[State]:
        """Every tag that was ever asked for and fits. A scan."""
        names: set[tuple[str, str, str]] = set()
        for _, value in self._records.scan("tag/"):
            match value:
                case {"registry": str(registry), "repository": str(repository), "tag": str(tag)}:
                    names.add((registry, repository, tag))
                case _:
                    pass
        yield from (self.state(*name) for name in sorted(names) if fits(pattern, *name))

    def held(self, pattern: str = "*") -> Iterator[State]:
        """Every tag about which there is an order that holds it, and that fits. A scan."""
        names = sorted(name for *name, pin in self._pins.all() if not pin.free)
        for registry, repository, tag in names:
            if pattern == "*" or fits(pattern, registry, repository, tag):
                yield self.state(registry, repository, tag)

    def patterns(self) -> list[Held]:
        """The patterns of tags that are held."""
        return self._pins.patterns()

    def acts(self, registry: str, repository: str, tag: str) -> list[Acted]:
        """What was ordered of a tag, the latest last."""
        return self._acts(f"acts/{registry}/{repository}/{tag}")

    def _acts(self, key: str) -> list[Acted]:
        found = (self._records.get(key) or {}).get("acts")
        return [acted for one in found if (acted := Acted.load(one))] if isinstance(found, list) else []

    # what an order comes to

    def to_hold(self, pattern: str, order: Order) -> list[Step]:
        """Of every tag that fits and is not held by another order already."""
        return [decree.hold(state, "", order, pattern) for state in self.seen(pattern) if state.pin is None]

    def to_release(self, pattern: str, order: Order) -> list[Step]:
        """Of a pattern that was given: what is held because of it; of any other: all that is held and fits."""
        given = any(one.pattern == pattern for one in self.patterns())
        others = [one.pattern for one in self.patterns() if one.pattern != pattern]
        found = list[Step]()
        for state in self.held(pattern):
            if not given or (state.exact is not None and state.exact.source == pattern):
                name = state.registry, state.repository, state.tag
                found.append(decree.release(state, order, covered=bool(first_fit(others, *name))))
        if not found and not given:
            raise NotPossible(f"nothing that fits {pattern} is held")
        return found

    def is_covered(self, state: State) -> bool:
        """Whether a pattern holds the tag, were there no order about it."""
        name = state.registry, state.repository, state.tag
        return bool(first_fit((one.pattern for one in self.patterns()), *name))

    def missing(self, state: State, digest: str) -> bool:
        """Whether the manifest has to come from upstream first."""
        return not digest or held_manifest(self._records, Digest.parse(digest)) is None

    # carried out

    async def carry_out(self, steps: Sequence[Step], order: Order, pattern: str = "") -> None:
        """Raises `StoreError`. What a tag is to be is written before the pin that says so."""
        for step in steps:
            state = step.state
            await self._set_records(step, order)
            if step.pin is None:
                await self._pins.remove(state.registry, state.repository, state.tag)
            else:
                await self._pins.put(state.registry, state.repository, state.tag, step.pin)
            acted = Acted(step.act, order.at, order.by, order.why, state.digest, step.after, pattern)
            await self._note(f"acts/{state.registry}/{state.repository}/{state.tag}", acted)
        held = [(*name, digest) for *name, pin in self._pins.all() for digest in pin.digests()]
        await self._keeping.settle([(str(one), str(two), digest) for one, two, _, digest in held])

    async def add_pattern(self, pattern: str, order: Order) -> None:
        """Tags that fit are held as they are first seen."""
        others = [one for one in self.patterns() if one.pattern != pattern]
        await self._pins.put_patterns([*others, Held(pattern, order.at, order.by, order.why)])
        await self._note(f"acts-of/{pattern}", Acted("hold", order.at, order.by, order.why, "", "", pattern))

    async def remove_pattern(self, pattern: str, order: Order) -> None:
        """It holds nothing any more."""
        await self._pins.put_patterns([one for one in self.patterns() if one.pattern != pattern])
        await self._note(f"acts-of/{pattern}", Acted("release", order.at, order.by, order.why, "", "", pattern))

    async def _note(self, key: str, acted: Acted) -> None:
        acts = [*self._acts(key), acted][-MOST_ACTS:]
        await self._records.put(key, {"acts": [asdict(one) for one in acts]})

    async def _set_records(self, step: Step, order: Order) -> None:
        """What clients get, for every class of `Accept` that has asked."""
        state = step.state
        name = state.registry, state.repository, state.tag
        for one, record in state.records.items():
            key = f"tag/{'/'.join(name)}/{one}"
            digest = step.classes.get(one, step.after) if step.act != "release" else ""
            new = record if step.checked is None else replace(record, checked=step.checked)
            if digest and digest != str(record.digest):
                new = replace(self._as(digest, record), checked=new.checked, moved=order.at)
                move = Move(digest, new.media_type, new.size, order.at, order.at, order.at, step.act, order.by, "")
                await self._history.ordered(*name, key, move, self._limit(state.registry))
            if new != record:
                document = {**(self._records.get(key) or {}), **_document(new)}
                await self._records.put(key, document)

    def _as(self, digest: str, record: TagRecord) -> TagRecord:
        """The record of another manifest."""
        parsed = Digest.parse(digest)
        if (held := held_manifest(self._records, parsed)) is None:
            return replace(record, digest=parsed, size=NO_SIZE, awaits="")
        body, media_type = held
        return replace(record, digest=parsed, media_type=media_type, size=len(body), awaits="")


def _document(record: TagRecord) -> dict[str, object]:
    return {
        "digest": str(record.digest),
        "media_type": record.media_type,
        "size": record.size,
        "checked": record.checked,
        "moved": record.moved,
        "awaits": record.awaits,
    }
