"""`entrepot images`: the tags that are held, from the records.

A tag has a record for each class of `Accept` it was asked with; what differs only in that is one line here, with the
latest check. Reads the records beside the running processes, and writes nothing.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from entrepot.amounts import ago, human
from entrepot.cli.options import config_option, json_option, loaded
from entrepot.cli.places import place_to_read
from entrepot.cli.records import scanned

# https://github.com/opencontainers/image-spec/blob/main/media-types.md and docker's own.
TYPES: Final = {
    "application/vnd.oci.image.index.v1+json": "oci index",
    "application/vnd.oci.image.manifest.v1+json": "oci image",
    "application/vnd.docker.distribution.manifest.list.v2+json": "docker list",
    "application/vnd.docker.distribution.manifest.v2+json": "docker image",
    "application/vnd.docker.distribution.manifest.v1+json": "docker schema 1",
    "application/vnd.docker.distribution.manifest.v1+prettyjws": "docker schema 1",
}
_DIGITS: Final = 12  # of a digest, as docker shows them


@dataclass(frozen=True, slots=True)
class Held:
    """A tag as it is held."""

    image: str
    digest: str
    media_type: str
    size: int
    """Bytes of the manifest."""
    checked: float
    """Epoch seconds at which the registry last confirmed it."""
    moved: float
    """Epoch seconds at which it was first seen with this digest."""


def held(records: Iterable[tuple[str, Mapping[str, object]]]) -> list[Held]:
    """By name. Records that are not as they should be are left out: they are the engine's concern."""
    found: dict[tuple[str, str, str], Held] = {}
    for _, record in records:
        match record:
            case {
                "registry": str() as registry,
                "repository": str() as repository,
                "tag": str() as tag,
                "digest": str() as digest,
                "media_type": str() as media_type,
                "size": int() as size,
                "checked": int() | float() as checked,
                "moved": int() | float() as moved,
            }:
                one = Held(f"{registry}/{repository}:{tag}", digest, media_type, size, checked, moved)
                known = found.get(key := (one.image, digest, media_type))
                found[key] = one if known is None or known.checked < checked else known
    return sorted(found.values(), key=lambda one: (one.image, -one.checked))


def as_table(images: Iterable[Held], now: float) -> Iterator[str]:
    """For people."""
    rows = [("IMAGE", "DIGEST", "TYPE", "MANIFEST", "CHECKED")]
    for one in images:
        algorithm, _, digits = one.digest.partition(":")
        short = f"{algorithm}:{digits[:_DIGITS]}"
        kind = TYPES.get(one.media_type, one.media_type.rpartition("/")[2])
        rows.append((one.image, short, kind, human(one.size), f"{ago(now - one.checked)} ago"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@click.command()
@config_option
@json_option
@click.pass_context
def images(context: click.Context, config_path: Path | None, *, as_json: bool) -> None:
    """List the images that are held."""
    store = place_to_read(loaded(context, config_path), os.environ).store.path
    found = held(scanned(store, "tag/"))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        click.echo("\n".join(as_table(found, time.time())))
    else:
        click.echo(f"no image is held in {store}")
