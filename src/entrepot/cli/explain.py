"""`entrepot explain IMAGE`: what is held of an image, who may have it, and what the next pull would get.

Reads the records and the store beside the running processes; asks no registry and changes nothing.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from entrepot.amounts import ago, human
from entrepot.cli.images import TYPES
from entrepot.cli.options import config_option, json_option, loaded
from entrepot.cli.places import place_to_read
from entrepot.engine.explanation import Explainer, Explanation, Manifest, Tag
from entrepot.errors import EntrepotError
from entrepot.upstream.outages import PREFIX, Outage, origin_of

_DIGITS: Final = 12  # of a digest, as docker shows them


class NotKnown(EntrepotError, ValueError):
    """The image is not of a registry that we intercept."""


def as_lines(found: Explanation, now: float) -> Iterator[str]:
    """For people: facts first, then what follows from them."""
    yield f"image      {found.image}"
    if found.denied:
        yield f"denied     {found.denied}"
    if (order := found.order) is not None:
        because = f": {order.why}" if order.why else ""
        what = f"at {_short(order.digest)}" if order.digest else "as it is first seen"
        yield f"held       {what}, since {ago(now - order.at)}, ordered by {order.by}{because}"
    if found.named:
        yield f"named      what {found.named} was; if upstream has a tag of this name, that is what clients get"
    for tag in found.tags:
        kind = TYPES.get(tag.media_type, tag.media_type)
        yield f"tag        {_short(tag.digest)} ({kind}), {_freshness(found, tag, now)}"
        yield f"           is that since {ago(now - tag.moved)}"
        if tag.awaits:
            yield f"           upstream has {_short(tag.awaits)}, which waits for the cooldown to end"
    if not found.tags and not any(one.held for one in found.manifests):
        yield "tag        never seen here" if "@" not in found.image else "digest     never seen here"
    for manifest in found.manifests:
        yield f"manifest   {_manifest(manifest)}"
    yield f"access     {_access(found, now)}"
    yield f"upstream   {f'down: {found.down}' if found.down else 'not known to be in trouble'}"
    yield f"next pull  {verdict(found, now)}"


def _freshness(found: Explanation, tag: Tag, now: float) -> str:
    checked = f"checked {ago(now - tag.checked)} ago"
    if found.order is not None or found.named:
        return checked
    fresh = f"fresh for {ago(tag.fresh_until - now)}" if tag.fresh_until > now else "due to be checked"
    return f"{checked}, {fresh}"


def _short(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:_DIGITS]}"


def _manifest(one: Manifest) -> str:
    name = f"{_short(one.digest)} {one.platform}".rstrip()
    if not one.held:
        return f"{name}: not held"
    kind = TYPES.get(one.media_type, one.media_type.rpartition("/")[2])
    if not one.blobs:
        return f"{name}: {kind}, held"
    held = [blob for blob in one.blobs if blob.held]
    size = sum(max(blob.size, 0) for blob in held)
    return f"{name}: {kind}, {len(held)} of {len(one.blobs)} blobs held, {human(size)}"


def _access(found: Explanation, now: float) -> str:
    readers = found.readers
    if readers.public is None:
        who = "not known to be public"
    elif not readers.public:
        who = f"private, as of {ago(now - readers.looked)} ago"
    elif readers.public_until > now:
        who = f"public, for anyone, as of {ago(now - readers.looked)} ago"
    else:
        who = f"was public {ago(now - readers.looked)} ago, to be looked at again"
    if not readers.kept:
        return who
    last = f"; the registry accepted somebody {ago(now - readers.last)} ago" if readers.last else ""
    return f"{who}; {readers.granted} credentials or accounts count now, {readers.kept} in an outage{last}"


def verdict(found: Explanation, now: float) -> str:
    """What a client gets that asks now, for the platform that is held."""
    if found.denied:
        return f"denied: {found.denied}"
    readers = found.readers
    public = bool(readers.public) and (readers.public_until > now or bool(found.down))
    if public:
        whom = "anyone"
    else:
        kept = readers.kept if found.down else readers.granted
        whom = "those whom the registry has admitted" if kept else ""
    if not any(one.held for one in found.manifests):
        return "fails: upstream is down" if found.down else "a miss: fetched from upstream, and kept"
    rest = "" if found.held else "; layers that are not held come from upstream"
    if not whom:
        if found.down:
            return "refused: nobody is known to be admitted, and upstream cannot be asked"
        return f"whoever asks is checked with upstream first, then served from here{rest}"
    if found.order is not None and not found.order.pending:
        return f"held, from here without asking what the tag is, for {whom}{rest}"
    if found.named:
        return f"what {found.named} was, from here, for {whom}{rest}"
    if found.down:
        return f"stale, from here, for {whom}{rest}"
    fresh = not found.tags or found.tags[0].fresh_until > now
    how = "a hit, from here without asking" if fresh else "the tag is checked with upstream, then served from here"
    return f"{how}, for {whom}{rest}"


@click.command()
@click.argument("image")
@config_option
@json_option
@click.pass_context
def explain(context: click.Context, image: str, config_path: Path | None, *, as_json: bool) -> None:
    """Say what is held of IMAGE, who may have it, and what its next pull would get."""
    from entrepot.cache.embedded import open_records  # noqa: PLC0415  # not needed for --help
    from entrepot.cache.layout import Layout  # noqa: PLC0415
    from entrepot.cli.decisions import decisions  # noqa: PLC0415
    from entrepot.registry.names import ImageReference  # noqa: PLC0415

    config = place_to_read(loaded(context, config_path), os.environ)
    reference = ImageReference.parse(image)
    catalogue, policy = decisions(config)
    registry = catalogue.registry(reference.registry)
    if registry is None:
        raise NotKnown(f"{reference.registry} is not intercepted: add [registries.{json.dumps(reference.registry)}]")
    store = config.store.path
    if not (store / "records").is_dir():
        raise click.ClickException(f"there is no store in {store} yet; `entrepot up` makes one")
    records, layout = open_records(store), Layout(store)
    try:

        def down(url: str) -> str:
            outage = Outage.load(records.get(f"{PREFIX}{origin_of(url)}"))
            return outage.why if outage is not None and outage.confirmed else ""

        explainer = Explainer(
            records, policy, clock=time.time, has_blob=lambda digest: layout.blob(digest).exists(), down=down
        )
        found = explainer.explain(registry, reference)
    finally:
        records.close_now()
    if as_json:
        click.echo(json.dumps({**asdict(found), "held": found.held, "next": verdict(found, time.time())}, indent=2))
    else:
        click.echo("\n".join(as_lines(found, time.time())))
