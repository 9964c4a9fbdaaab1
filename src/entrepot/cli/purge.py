"""`entrepot purge IMAGE`: forget what is known of an image, or of a whole repository, at once.

For when the registry's word has changed and nobody should be served by the old one: a repository turned private, an
account locked out, a tag that must not be found again. Blobs are shared by repositories and stay until they are the
least used; nobody gets them under a name that was purged without the registry being asked. What was ordered (`entrepot
hold`) is no knowledge of the registry's, and stays.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Final

import click

from entrepot.cli.options import config_option, json_option, loaded
from entrepot.cli.places import place_to_read

# What there is of a repository: the kind of record, and how many parts follow the repository's name. That name may be
# the beginning of another's, so the number of parts decides.
_KINDS: Final = (
    ("public", 0),
    ("grant", 1),
    ("member", 1),
    ("classes/tag", 1),
    ("tag", 2),
    ("history", 2),
    ("tagged", 1),
    ("list", 2),  # tags/PLACE
    ("list", 3),  # referrers/DIGEST/PLACE
)


def is_of(key: str, registry: str, repository: str, tag: str | None, *, whole: bool) -> bool:
    """Whether a record is to go: of the tag and of who may read it, or of the whole repository."""
    for kind, parts in _KINDS:
        rest = key.removeprefix(f"{kind}/{registry}/{repository}")
        if rest == key or rest.count("/") != parts or (rest and rest[0] != "/"):
            continue
        if kind in {"public", "grant"} or whole:
            return True
        if kind in {"tag", "classes/tag", "history"} and tag is not None:
            return rest.split("/")[1] == tag
    return False


async def forget(store: Path, registry: str, repository: str, tag: str | None, *, whole: bool) -> int:
    """How many records are gone."""
    from entrepot.cache.embedded import open_records  # noqa: PLC0415  # not needed for --help

    records = open_records(store)
    try:
        scans = [records.scan(f"{kind}/{registry}/{repository}") for kind in dict(_KINDS)]
        keys = {key for scan in scans for key, _ in scan}
        found = [key for key in keys if is_of(key, registry, repository, tag, whole=whole)]
        for key in found:
            await records.delete(key)
        return len(found)
    finally:
        await records.close()


@click.command()
@click.argument("image")
@click.option("--repository", "whole", is_flag=True, help="All tags of it, and all that is known of the repository.")
@config_option
@json_option
@click.pass_context
def purge(context: click.Context, image: str, config_path: Path | None, *, whole: bool, as_json: bool) -> None:
    """Forget what is known of IMAGE and who may read it; the next pull asks the registry.

    Takes effect with the next request, in every process.
    """
    from entrepot.registry.names import ImageReference  # noqa: PLC0415

    store = place_to_read(loaded(context, config_path), os.environ).store.path
    reference = ImageReference.parse(image)
    if not (store / "records").is_dir():
        raise click.ClickException(f"there is no store in {store} yet; `entrepot up` makes one")
    names = reference.registry, reference.repository, reference.tag
    count = asyncio.run(forget(store, *names, whole=whole))
    if as_json:
        click.echo(json.dumps({"image": str(reference), "repository": whole, "records": count}))
    else:
        click.echo(f"{count} records of {reference} forgotten" if count else f"nothing is known of {reference}")
