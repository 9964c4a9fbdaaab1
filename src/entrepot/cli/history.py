"""`entrepot history IMAGE`: what a tag has been, what changed from one to the next, and what was ordered about it.

Reads the records and the store beside the running processes, and writes nothing. The moves of all classes of `Accept`
are one list; what differs only in that is one line.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from entrepot.amounts import ago, human
from entrepot.cli.holds import store_of, tag_of
from entrepot.cli.holdviews import short
from entrepot.cli.options import config_option, json_option

if TYPE_CHECKING:
    from entrepot.cache.layout import Layout
    from entrepot.engine.decree import State
    from entrepot.engine.differences import Changes, Image, Manifests
    from entrepot.engine.history import Move
    from entrepot.engine.orders import Acted

MOST_CONFIG: Final = 4 << 20  # bytes of a configuration that is looked into


@dataclass(frozen=True, slots=True)
class Entry:
    """One move, and what it is."""

    move: "Move"
    image: "Image | None"
    changes: "Changes | None"  # since the one before
    current: bool


def merged(histories: Iterable[Iterable["Move"]]) -> list["Move"]:
    """The moves of all classes of `Accept`, the latest first; one digest at one time is one move."""
    found = list["Move"]()
    for moves in histories:
        for move in moves:
            twin = next((one for one in found if one.digest == move.digest and _overlap(one, move)), None)
            if twin is None:
                found.append(move)
                continue
            taken = min((at for at in (twin.taken, move.taken) if at), default=0.0)
            earlier = min(twin, move, key=lambda one: one.seen)
            found[found.index(twin)] = replace(earlier, last=max(twin.last, move.last), taken=taken)
    return sorted(found, key=lambda move: -move.seen)


def _overlap(one: "Move", other: "Move") -> bool:
    return one.seen <= other.last and other.seen <= one.last


def with_checks(state: "State") -> list[tuple["Move", ...]]:
    """The moves of each class, the latest as it was last seen: the record of the tag has that."""
    found = []
    for name, moves in state.moves.items():
        record, latest = state.records.get(name), moves[-1]
        if record is not None and latest.digest in {str(record.digest), record.awaits}:
            latest = replace(latest, last=max(latest.last, record.checked))
        found.append((*moves[:-1], latest))
    return found


def entries(state: "State", layout: "Layout", manifest: "Manifests") -> list[Entry]:
    """The latest first."""
    from entrepot.engine.differences import changes, images, preferred  # noqa: PLC0415
    from entrepot.registry.digests import Digest  # noqa: PLC0415

    def blob(digest: Digest) -> bytes | None:
        path = layout.blob(digest)
        return path.read_bytes() if path.exists() and path.stat().st_size <= MOST_CONFIG else None

    found, seen, current = list[Entry](), dict[str, "dict[str, Image]"](), state.digest
    moves = merged(with_checks(state))
    for move in moves:
        if move.digest not in seen:
            seen[move.digest] = images(Digest.parse(move.digest), manifest, blob)
    for number, move in enumerate(moves):
        mine = seen[move.digest]
        old = seen[moves[number + 1].digest] if number + 1 < len(moves) else {}
        now = move.digest == current
        current = "" if now else current
        found.append(Entry(move, preferred(mine, old or None), changes(old, mine), now))
    return found


def as_object(state: "State", found: Iterable[Entry], acts: Iterable["Acted"]) -> dict[str, object]:
    """For programs."""
    pin = state.pin
    return {
        "image": state.image,
        "digest": state.digest or None,
        "awaits": state.awaits or None,
        "held": None if pin is None else {"at": pin.at, "by": pin.by, "why": pin.why, "source": pin.source or None},
        "moves": [
            {
                **asdict(one.move),
                "current": one.current,
                "image": asdict(one.image) if one.image else None,
                "changes": asdict(one.changes) if one.changes else None,
            }
            for one in found
        ],
        "acts": [asdict(one) for one in acts],
    }


def as_lines(state: "State", found: Iterable[Entry], acts: Iterable["Acted"], now: float) -> Iterator[str]:
    """For people: moves and orders, the latest first."""
    yield f"image  {state.image}"
    if (pin := state.pin) is not None:
        because = f": {pin.why}" if pin.why else ""
        source = f" by the pattern {pin.source}" if pin.source and "*" in pin.source else ""
        yield f"held   since {ago(now - pin.at)}{source}, ordered by {pin.by}{because}"
    if state.awaits:
        yield f"waits  {short(state.awaits)} is what the registry has; `entrepot promote` takes it up now"
    told = [(one.move.seen, list(_of_move(one))) for one in found]
    told += [(one.at, [_of_act(one)]) for one in acts]
    for _, lines in sorted(told, key=lambda pair: -pair[0]):
        yield from lines


def _of_move(one: Entry) -> Iterator[str]:
    move, mark = one.move, "*" if one.current else " "
    by = f" by {move.by}" if move.by else ""
    where = f" from {move.client}" if move.client else ""
    state = "" if move.taken else ", not taken up"
    size = f", {human(one.image.size)}" if one.image else ""
    yield f"{mark} {_when(move.seen)}  {short(move.digest)}{size}  {move.how}{by}{where}{state}"
    if move.last > move.seen:
        yield f"    last seen {_when(move.last)}"
    if one.image and one.image.labels:
        yield "    " + ", ".join(f"{name.rpartition('.')[2]} {text}" for name, text in one.image.labels.items())
    if one.changes and (one.changes.added or one.changes.removed):
        layers = [f"+{short(each)}" for each in one.changes.added] + [f"-{short(each)}" for each in one.changes.removed]
        yield f"    layers {' '.join(layers)}"


def _of_act(one: "Acted") -> str:
    what = f" {short(one.before)} -> {short(one.after)}" if one.before and one.after and one.after != one.before else ""
    pattern = f" with {one.pattern}" if one.pattern else ""
    return f"  {_when(one.at)}  {one.act}{what} by {one.by}{pattern}{f': {one.why}' if one.why else ''}"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@click.command()
@click.argument("image")
@config_option
@json_option
@click.pass_context
def history(context: click.Context, image: str, config_path: Path | None, *, as_json: bool) -> None:
    """Show what IMAGE has been, what changed, and what was ordered about it. The latest first; * is what it is now.

    NAME:TAG.20261124 and NAME:TAG.20261124T1530 pull what it was then (UTC).
    """
    from entrepot.cache.layout import Layout  # noqa: PLC0415
    from entrepot.engine.heldmanifests import held_manifest  # noqa: PLC0415
    from entrepot.engine.orders import Orders  # noqa: PLC0415

    reference = tag_of(image)
    name = reference.registry, reference.repository, reference.tag or ""
    with store_of(context, config_path, writes=False) as (records, config):
        orders = Orders(records, lambda registry: config.policy_for(registry).history)
        state, acts = orders.state(*name), orders.acts(*name)
        found = entries(state, Layout(config.store.path), lambda digest: held_manifest(records, digest))
    if as_json:
        click.echo(json.dumps(as_object(state, found, acts), indent=2))
    elif found or acts:
        click.echo("\n".join(as_lines(state, found, acts, time.time())))
    else:
        click.echo(f"nothing is known of {state.image}")
