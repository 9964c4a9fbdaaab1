"""What orders about tags have come to, and what is held, for people and for programs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from entrepot.amounts import ago, human

if TYPE_CHECKING:
    from entrepot.engine.decree import State, Step
    from entrepot.engine.pins import Held

_DIGITS: Final = 12  # of a digest, as docker shows them
_VERBS: Final = {"hold": "hold", "release": "release", "promote": "promote", "rollback": "roll back"}


@dataclass(frozen=True, slots=True)
class Content:
    """How much of an image is here."""

    blobs: int
    held: int
    bytes: int  # of those that are held

    def __str__(self) -> str:
        if not self.blobs:
            return "its manifest is not held: it comes with the next pull"
        rest = "" if self.held == self.blobs else "; the rest comes as it is pulled"
        return f"{self.held} of {self.blobs} blobs held, {human(self.bytes)}{rest}"


def short(digest: str) -> str:
    """As docker shows it."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:_DIGITS]}" if digits else "?"


def line_of(step: "Step", held: Content | None, *, dry: bool) -> Iterator[str]:
    """One step, for people."""
    word = "would " if dry else ""
    yield f"{word}{_VERBS[step.act]} {step.state.image}"
    now = short(step.state.digest) if step.state.digest else "never seen here"
    match step.act:
        case "release":
            yield f"  {now}; it follows the registry from the next pull on"
        case "promote" if not step.after:
            yield f"  {now} now; what the registry has at the next pull, from then on"
        case _ if not step.after:
            yield "  as it is first seen"
        case _ if step.changes:
            yield f"  {now} -> {short(step.after)}"
        case _:
            yield f"  {short(step.after)}"
    if held is not None:
        yield f"  {held}"


def object_of(step: "Step", held: Content | None) -> dict[str, object]:
    """One step, for programs."""
    found: dict[str, object] = {"image": step.state.image, "before": step.state.digest, "after": step.after}
    if held is not None:
        found |= {"blobs": held.blobs, "blobs_held": held.held, "bytes_held": held.bytes}
    return found


def held_object(patterns: Iterable["Held"], states: Iterable["State"]) -> dict[str, object]:
    """For programs."""
    return {
        "patterns": [{"pattern": one.pattern, "at": one.at, "by": one.by, "why": one.why} for one in patterns],
        "tags": [
            {
                "image": state.image,
                "digest": pin.digest,
                "at": pin.at,
                "by": pin.by,
                "why": pin.why,
                "source": pin.source or None,
                "promoted": pin.pending,
            }
            for state in states
            if (pin := state.exact) is not None
        ],
    }


def held_lines(patterns: Iterable["Held"], states: Iterable["State"], now: float) -> Iterator[str]:
    """For people."""
    for one in patterns:
        yield f"{one.pattern}  as first seen, {ago(now - one.at)} ago by {one.by}{_because(one.why)}"
    for state in states:
        if (pin := state.exact) is not None:
            what = short(pin.digest) if pin.digest else "as first seen"
            moving = ", moves on at the next pull" if pin.pending else ""
            yield f"{state.image}  {what}, {ago(now - pin.at)} ago by {pin.by}{_because(pin.why)}{moving}"


def _because(why: str) -> str:
    return f": {why}" if why else ""
