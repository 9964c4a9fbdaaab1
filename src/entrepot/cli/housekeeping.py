"""`entrepot scrub` and `entrepot gc`: the store looked over, and made smaller, beside running workers.

What is wrong and what has to go is decided by `entrepot.cache`; this shows it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click

from entrepot.amounts import human
from entrepot.cache.blobs import FileBlobs
from entrepot.cache.embedded import open_blobs, open_records, protected_by
from entrepot.cache.housekeeping import GcPlan, ScrubReport, gc_plan
from entrepot.cache.housekeeping import gc as collect
from entrepot.cache.housekeeping import scrub as look_over
from entrepot.cache.space import Limits
from entrepot.cli.options import config_option, json_option, loaded
from entrepot.cli.places import place_to_read
from entrepot.config.values import parse_rate
from entrepot.errors import EntrepotError

_STEP: Final = 5.0  # seconds between lines of progress where there is no terminal


class NoStore(EntrepotError):
    """There is nothing to look at."""


class InvalidRate(EntrepotError, ValueError):
    """What is given to --rate is no rate."""


@contextmanager
def opened(context: click.Context, path: Path | None) -> Iterator[FileBlobs]:
    """The store, with the limits in force."""
    store = place_to_read(loaded(context, path), os.environ).store
    if not store.path.is_dir():
        raise NoStore(f"{store.path}: no store here; is store.path another?")
    records = open_records(store.path)
    blobs = open_blobs(store.path, Limits(size=store.size, min_free=store.min_free), protected=protected_by(records))
    try:
        yield blobs
    finally:
        blobs.close()
        records.close_now()


def lines_of_progress(clock: Callable[[], float] = time.monotonic) -> Callable[[ScrubReport], None]:
    """Where there is no terminal: a line now and then."""
    said = clock()

    def tell(report: ScrubReport) -> None:
        nonlocal said
        if clock() - said >= _STEP:
            said = clock()
            click.echo(f"{report.blobs} blobs, {human(report.bytes)} of about {human(report.expected)}", err=True)

    return tell


def rate_of(text: str | None) -> float | None:
    """Bytes per second; None = no limit."""
    if text is None:
        return None
    try:
        return parse_rate(text) or None
    except ValueError as refusal:
        raise InvalidRate(f"--rate {text!r}: {refusal}") from refusal


@click.command()
@click.option("--rate", metavar="RATE", help='Read no faster, such as "100MB" (a second) or "500Mbit".')
@config_option
@json_option
@click.pass_context
def scrub(context: click.Context, config_path: Path | None, *, rate: str | None, as_json: bool) -> int:
    """Hash everything that is held again; remove what is wrong, so that it is fetched anew.

    Exit code 1 if something was wrong.
    """
    limit = rate_of(rate)
    with opened(context, config_path) as store, ExitStack() as stack:
        if sys.stderr.isatty():
            total = max(store.space.usage().used, 1)
            bar = stack.enter_context(click.progressbar(length=total, label="scrub", file=sys.stderr))
            report = look_over(store, rate_limit=limit, progress=lambda so_far: bar.update(so_far.bytes - bar.pos))
        else:
            report = look_over(store, rate_limit=limit, progress=lines_of_progress())
    if as_json:
        click.echo(json.dumps(scrub_object(report), indent=2))
    else:
        click.echo("\n".join(scrub_lines(report)))
    return 0 if report.clean else 1


def scrub_lines(report: ScrubReport) -> Iterator[str]:
    """For people."""
    for one in report.wrong:
        yield f"removed {one.digest}, {human(one.size)}: {one.why}"
    for left in report.leftovers:
        yield f"removed leftover {left.path.name}, {human(left.bytes)}"
    if report.ledger:
        yield f"set {report.ledger} entries of the ledger right"
    yield f"looked at {report.blobs} blobs, {human(report.bytes)}: {len(report.wrong)} wrong"


def scrub_object(report: ScrubReport) -> dict[str, object]:
    """For programs."""
    return {
        "blobs": report.blobs,
        "bytes": report.bytes,
        "wrong": [{"digest": str(one.digest), "size": one.size, "why": one.why} for one in report.wrong],
        "leftovers": [{"file": left.path.name, "bytes": left.bytes} for left in report.leftovers],
        "ledger": report.ledger,
    }


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@config_option
@json_option
@click.pass_context
def gc(context: click.Context, config_path: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Remove leftovers, and what is least recently used if the limits ask for it."""
    with opened(context, config_path) as store:
        now = time.time()
        plan = gc_plan(store, now)
        freed = 0 if dry_run else collect(store, now)
    if as_json:
        click.echo(json.dumps(gc_object(plan, freed, dry_run=dry_run), indent=2))
    else:
        click.echo("\n".join(gc_lines(plan, freed, dry_run=dry_run)))


def gc_lines(plan: GcPlan, freed: int, *, dry_run: bool) -> Iterator[str]:
    """For people."""
    usage = plan.usage
    yield f"held    {usage.blobs} blobs, {human(usage.used)} of {human(usage.size)}"
    yield f"free    {human(usage.free)}, {human(usage.min_free)} are to stay free"
    for one in plan.removals:
        yield f"{'would remove' if dry_run else 'remove'} {one.kind} {one.name}, {human(one.bytes)}: {one.why}"
    if not plan.ready:
        yield "the ledger is being made again: what is held is not looked at yet"
    yield f"would free {human(plan.bytes)}" if dry_run else f"freed   {human(freed)}"


def gc_object(plan: GcPlan, freed: int, *, dry_run: bool) -> dict[str, object]:
    """For programs."""
    usage = plan.usage
    return {
        "used": usage.used,
        "size": usage.size,
        "free": usage.free,
        "min_free": usage.min_free,
        "dry_run": dry_run,
        "freed": freed,
        "ready": plan.ready,
        "removals": [{"kind": one.kind, "name": one.name, "bytes": one.bytes, "why": one.why} for one in plan.removals],
    }
