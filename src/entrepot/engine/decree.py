"""What an order of an operator's means for one tag: hold, release, promote, rollback (DESIGN rule 7). Pure.

A `State` is what the records know of the tag; a `Step` is what they are to say from now on. Reading the one and
carrying the other out is `orders`'.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from entrepot.engine.dated import moment
from entrepot.engine.history import Move, at, before
from entrepot.engine.pins import Pin
from entrepot.engine.tags import TagRecord
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.mediatypes import is_index

type Act = Literal["hold", "release", "promote", "rollback"]

LATEST: Final = "latest"
AT_ONCE: Final = 0.0  # `checked` of a tag that is checked at the next request, and taken up without waiting
DUE: Final = 1.0  # of one that is checked at the next request, by the usual rules
_BACK: Final = re.compile(r"-(\d{1,4})", re.ASCII)
_DATE: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:T(\d{2}):?(\d{2}))?", re.ASCII)
_PREFIX: Final = re.compile(r"(?:sha(?:256|512):)?([0-9a-f]{6,128})", re.ASCII)


class NotPossible(EntrepotError):
    """The order cannot be carried out; says what could."""


class NotUnderstood(EntrepotError, ValueError):
    """What is given to --to is none of what it may be."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants it, when and why."""

    at: float  # epoch seconds
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A tag as the records have it; by class of `Accept`."""

    registry: str
    repository: str
    tag: str
    exact: Pin | None = None  # the order about this very tag
    pin: Pin | None = None  # what holds it, be it a pattern
    records: Mapping[str, TagRecord] = field(default_factory=dict)
    moves: Mapping[str, tuple[Move, ...]] = field(default_factory=dict)

    @property
    def image(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"

    @property
    def main(self) -> str:
        """The class whose answer most clients get: an index if there is one, else what was looked at last."""
        return max(
            self.records,
            key=lambda one: (is_index(self.records[one].media_type), self.records[one].checked),
            default="",
        )

    @property
    def digest(self) -> str:
        """What clients get now; "" if nobody has asked yet."""
        if self.pin is not None and self.pin.digest:
            return self.pin.digest
        record = self.records.get(self.main)
        return str(record.digest) if record else ""

    @property
    def awaits(self) -> str:
        """What upstream has, and has to wait."""
        return next((record.awaits for record in self.records.values() if record.awaits), "")


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one tag."""

    act: Act
    state: State
    pin: Pin | None  # None: no order about it any more
    after: str  # the digest clients get; "" = what upstream has at the next request
    classes: Mapping[str, str] = field(default_factory=dict)  # the same by class of `Accept`, where it is another one
    checked: float | None = None  # the records of the tag are set to that

    @property
    def changes(self) -> bool:
        """Whether clients get something else than now."""
        return bool(self.after) and self.after != self.state.digest


def hold(state: State, digest: str, order: Order, source: str = "") -> Step:
    """At this digest, or as it is now, or (both unknown) as it is first seen."""
    classes: dict[str, str] = {}
    if not digest:
        digest = state.digest
        own = state.pin.classes if state.pin and state.pin.digest else _digests(state.records)
        classes = {name: one for name, one in own.items() if one != digest}
    pin = Pin(digest, classes, order.at, order.by, order.why, source)
    return Step("hold", state, pin, digest, classes)


def release(state: State, order: Order, *, covered: bool) -> Step:
    """It follows upstream again. `covered`: by a pattern that stays, from which it is exempt from now on."""
    if state.pin is None:
        raise NotPossible(f"{state.image} is not held")
    pin = Pin(at=order.at, by=order.by, why=order.why, free=True) if covered or state.exact is None else None
    return Step("release", state, pin, "", checked=DUE)


def promote(state: State, to: str, order: Order) -> Step:
    """It moves on, and is held there; a tag that waits (`cooldown`) waits no longer."""
    if state.pin is None:
        if not state.awaits:
            raise NotPossible(f"{state.image} is not held: it follows the registry")
        if to not in {LATEST, state.awaits}:
            raise NotPossible(f"{state.image} is not held: `entrepot hold {state.image}@{to}` does that")
        return Step("promote", state, state.exact, "", checked=AT_ONCE)
    if to == LATEST:
        pin = replace(state.pin, at=order.at, by=order.by, why=order.why, pending=True)
        return Step("promote", state, replace(pin, digest=state.digest), "", checked=AT_ONCE)
    digest = _named(to, state)
    return Step("promote", state, Pin(digest, {}, order.at, order.by, order.why), digest)


def rollback(state: State, to: str, order: Order) -> Step:
    """It is what it was, and is held there: it would move on at the next check else."""
    if not state.records and not state.digest:
        raise NotPossible(f"{state.image} has never been seen here")
    own = {name: _back(state, name, to) for name in state.moves}
    digest = own.get(state.main) or next((one for one in own.values() if one), "")
    if not digest:
        digest = _named(to, state) if _is_digest(to) else ""
    if not digest:
        raise NotPossible(f"nothing is known of {state.image} that {to} could mean: see `entrepot history`")
    classes = {name: one for name, one in own.items() if one and one != digest}
    return Step("rollback", state, Pin(digest, classes, order.at, order.by, order.why), digest, classes)


def _digests(records: Mapping[str, TagRecord]) -> dict[str, str]:
    return {name: str(record.digest) for name, record in records.items()}


def _back(state: State, name: str, to: str) -> str:
    """The digest that one class of clients had; "" if that is not known. Raises `NotUnderstood`."""
    moves = state.moves[name]
    if found := _BACK.fullmatch(to):
        record = state.records.get(name)
        current = state.pin.classes.get(name, state.pin.digest) if state.pin and state.pin.digest else ""
        earlier = list(before(moves, current or (str(record.digest) if record else state.digest)))
        number = int(found[1])
        return earlier[number - 1].digest if 1 <= number <= len(earlier) else ""
    if found := _DATE.fullmatch(to):
        year, month, day, hour, minute = found.groups()
        span = moment(year + month + day, f"{hour}{minute}" if hour else "")
        if span is None:
            raise NotUnderstood(f"--to {to}: there is no such day or time")
        then = at(moves, span[1])
        return then.digest if then else ""
    if not _is_digest(to):
        raise NotUnderstood(f"--to {to}: must be a digest, a day such as 2026-11-24, or a number of moves such as -1")
    return _one_of(to, (move.digest for move in moves))


def _is_digest(text: str) -> bool:
    return _PREFIX.fullmatch(text) is not None


def _one_of(text: str, digests: Iterable[str]) -> str:
    """The only digest that begins like this. Raises `NotUnderstood` where there are several."""
    found = {one for one in digests if one.startswith(text) or one.partition(":")[2].startswith(text)}
    if len(found) > 1:
        raise NotUnderstood(f"--to {text}: could be {' or '.join(sorted(found))}")
    return next(iter(found), "")


def _named(text: str, state: State) -> str:
    """A digest that is written out, or the beginning of one that the tag was. Raises `NotUnderstood`."""
    try:
        return str(Digest.parse(text))
    except InvalidDigest:
        pass
    known = {move.digest for moves in state.moves.values() for move in moves} | {state.awaits}
    if _is_digest(text) and (found := _one_of(text, known - {""})):
        return found
    raise NotUnderstood(f'--to {text}: must be "latest", a digest, or the beginning of one in `entrepot history`')
