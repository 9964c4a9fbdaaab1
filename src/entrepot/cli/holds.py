"""`entrepot hold`, `release`, `promote`, `rollback`: tags under control, beside running processes (DESIGN rule 7).

What an order comes to is decided by `engine.decree`, and carried out by `engine.orders`; here it is read off the
command line, shown, and signed with the name of the user who gives it.
"""

import asyncio
import json
import os
import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrepot.cli.holdviews import Content, held_lines, held_object, line_of, object_of
from entrepot.cli.options import config_option, json_option, loaded, order_options
from entrepot.cli.places import place_to_read
from entrepot.config.model import Config
from entrepot.errors import EntrepotError

if TYPE_CHECKING:
    from entrepot.cache.records import DiskRecords
    from entrepot.engine.decree import State, Step
    from entrepot.engine.orders import Orders
    from entrepot.registry.names import ImageReference


class NotAnOrder(EntrepotError, ValueError):
    """The command line asks for what cannot be."""


def user(uid: int, environ: Mapping[str, str]) -> str:
    """Who gives the order, as the operating system knows him."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    other = environ.get("SUDO_USER", "") if uid == 0 else ""
    return f"{other} (as {name})" if other and other != name else name


@contextmanager
def store_of(
    context: click.Context, path: Path | None, *, writes: bool = True
) -> Iterator[tuple["DiskRecords", Config]]:
    """The records of the running box. Raises `StoreError`; there must be a store."""
    from entrepot.cache.embedded import open_records  # noqa: PLC0415  # not needed for --help

    config = place_to_read(loaded(context, path), os.environ)
    if not (config.store.path / "records").is_dir():
        raise click.ClickException(f"there is no store in {config.store.path} yet; `entrepot up` makes one")
    records = open_records(config.store.path)
    try:
        yield records, config
    finally:
        if writes:
            asyncio.run(records.close())
        else:
            records.close_now()


def is_pattern(text: str) -> bool:
    """Whether it may mean more than one tag."""
    return "*" in text


def tag_of(image: str) -> "ImageReference":
    """A tag, perhaps with a digest. Raises `InvalidName`, `NotAnOrder`."""
    from entrepot.registry.names import ImageReference  # noqa: PLC0415

    reference = ImageReference.parse(image)
    if reference.tag is None:
        raise NotAnOrder(f"{image}: a digest never moves; name the tag too, as in NAME:TAG@DIGEST")
    return reference


@dataclass(frozen=True, slots=True)
class Said:
    """What the options of an order say."""

    config_path: Path | None
    why: str
    dry_run: bool
    as_json: bool


class Session:
    """One order, from reading to showing."""

    def __init__(self, records: "DiskRecords", config: Config, said: Said, act: str) -> None:
        from entrepot.cache.layout import Layout  # noqa: PLC0415
        from entrepot.engine.decree import Order  # noqa: PLC0415
        from entrepot.engine.keeping import Keeping  # noqa: PLC0415
        from entrepot.engine.orders import Orders  # noqa: PLC0415

        self._said, self._act = said, act
        self.orders: Orders = Orders(records, lambda registry: config.policy_for(registry).history)
        self.order: Order = Order(time.time(), user(os.getuid(), os.environ), said.why)
        self._layout, self._keeping = Layout(config.store.path), Keeping(records)

    def state(self, image: str) -> "State":
        """Of one tag."""
        reference = tag_of(image)
        return self.orders.state(reference.registry, reference.repository, reference.tag or "")

    def finish(self, steps: list["Step"], pattern: str = "", *, add: bool = False, remove: bool = False) -> None:
        """Carries out, unless it is only to be shown, and shows."""
        if not self._said.dry_run:
            asyncio.run(self._carry_out(steps, pattern, add=add, remove=remove))
        shown = [(step, self._held(step)) for step in steps]
        if self._said.as_json:
            tags = [object_of(step, held) for step, held in shown]
            found = {"act": self._act, "dry_run": self._said.dry_run, "by": self.order.by, "why": self.order.why}
            click.echo(json.dumps({**found, "pattern": pattern or None, "tags": tags}, indent=2))
            return
        if pattern:
            click.echo(self._of_pattern(pattern, len(steps), add=add, remove=remove))
        for step, held in shown:
            click.echo("\n".join(line_of(step, held, dry=self._said.dry_run)))

    def _of_pattern(self, pattern: str, count: int, *, add: bool, remove: bool) -> str:
        rest = "; others as they are first seen" if add else "; the pattern holds nothing any more" if remove else ""
        return f"{pattern}: {count} tags{rest}"

    async def _carry_out(self, steps: list["Step"], pattern: str, *, add: bool, remove: bool) -> None:
        # The pattern before its tags: it would hold anew what is let go, and miss what is first seen in between.
        if add:
            await self.orders.add_pattern(pattern, self.order)
        if remove:
            await self.orders.remove_pattern(pattern, self.order)
        await self.orders.carry_out(steps, self.order, pattern)

    def _held(self, step: "Step") -> Content | None:
        from entrepot.registry.digests import Digest  # noqa: PLC0415
        from entrepot.registry.mediatypes import is_manifest  # noqa: PLC0415

        if not step.after:
            return None
        tree = self._keeping.tree(step.state.registry, step.state.repository, Digest.parse(step.after))
        blobs = {one for one, found in tree.items() if found is not None and not is_manifest(found.media_type)}
        sizes = [path.stat().st_size for one in blobs if (path := self._layout.blob(one)).exists()]
        return Content(len(blobs), len(sizes), sum(sizes))


@click.command()
@click.argument("image", required=False)
@order_options
@config_option
@json_option
@click.pass_context
def hold(
    context: click.Context, image: str | None, config_path: Path | None, why: str, *, dry_run: bool, as_json: bool
) -> None:
    """Freeze IMAGE: clients get what it is now, or the digest named, until it is promoted or released.

    IMAGE is NAME:TAG, NAME:TAG@DIGEST, or a pattern such as 'docker.io/library/*:*-slim', which holds each tag as it is
    first seen. Without IMAGE: what is held.
    """
    from entrepot.engine import decree  # noqa: PLC0415
    from entrepot.engine.orders import tags_pattern  # noqa: PLC0415

    said = Said(config_path, why, dry_run, as_json)
    with store_of(context, config_path) as (records, config):
        session = Session(records, config, said, "hold")
        if image is None:
            show_held(session.orders, as_json=as_json)
        elif is_pattern(image):
            pattern = tags_pattern(image)
            session.finish(session.orders.to_hold(pattern, session.order), pattern, add=True)
        else:
            digest = tag_of(image).digest
            session.finish([decree.hold(session.state(image), str(digest or ""), session.order)])


@click.command()
@click.argument("image")
@order_options
@config_option
@json_option
@click.pass_context
def release(
    context: click.Context, image: str, config_path: Path | None, why: str, *, dry_run: bool, as_json: bool
) -> None:
    """Let IMAGE, or all that a pattern holds, follow its registry again, from the next pull on."""
    from entrepot.engine import decree  # noqa: PLC0415
    from entrepot.engine.orders import tags_pattern  # noqa: PLC0415

    with store_of(context, config_path) as (records, config):
        session = Session(records, config, Said(config_path, why, dry_run, as_json), "release")
        orders = session.orders
        if is_pattern(image):
            pattern = tags_pattern(image)
            given = any(one.pattern == pattern for one in orders.patterns())
            session.finish(orders.to_release(pattern, session.order), pattern, remove=given)
        else:
            state = session.state(image)
            session.finish([decree.release(state, session.order, covered=orders.is_covered(state))])


@click.command()
@click.argument("image")
@click.option("--to", default="latest", metavar="DIGEST|latest", help="Where to; by default what the registry has.")
@order_options
@config_option
@json_option
@click.pass_context
def promote(
    context: click.Context, image: str, config_path: Path | None, to: str, why: str, *, dry_run: bool, as_json: bool
) -> None:
    """Let IMAGE, which is held, move on, and hold it there.

    "latest" is what the registry has at the next pull, which asks it. A pattern promotes all that is held and fits.
    A tag that waits for `cooldown` to end waits no longer.
    """
    from entrepot.engine import decree  # noqa: PLC0415
    from entrepot.engine.orders import tags_pattern  # noqa: PLC0415

    with store_of(context, config_path) as (records, config):
        session = Session(records, config, Said(config_path, why, dry_run, as_json), "promote")
        if is_pattern(image):
            pattern = tags_pattern(image)
            found = [decree.promote(state, to, session.order) for state in session.orders.held(pattern)]
            session.finish(found, pattern)
        else:
            session.finish([decree.promote(session.state(image), to, session.order)])


@click.command()
@click.argument("image")
@click.option("--to", default="-1", metavar="DIGEST|DATE|-N", help="Where to; by default what it was before, -1.")
@order_options
@config_option
@json_option
@click.pass_context
def rollback(
    context: click.Context, image: str, config_path: Path | None, to: str, why: str, *, dry_run: bool, as_json: bool
) -> None:
    """Put IMAGE back to what it was, and hold it there.

    DIGEST may be cut short; DATE is a day or minute in UTC, 2026-11-24 or 2026-11-24T15:30; -2 is what it was before
    the one before. `entrepot history IMAGE` lists what there is.
    """
    from entrepot.engine import decree  # noqa: PLC0415

    with store_of(context, config_path) as (records, config):
        session = Session(records, config, Said(config_path, why, dry_run, as_json), "rollback")
        session.finish([decree.rollback(session.state(image), to, session.order)])


def show_held(orders: "Orders", *, as_json: bool) -> None:
    """What is held now."""
    patterns, states = orders.patterns(), list(orders.held())
    if as_json:
        click.echo(json.dumps(held_object(patterns, states), indent=2))
    elif not patterns and not states:
        click.echo("nothing is held")
    else:
        click.echo("\n".join(held_lines(patterns, states, time.time())))
