"""`entrepot stats`: what is held, from the folders; what was served, from the files the processes write.

Every process writes `<store>/run/<role>-<index>.json`, a flat object of counters since its start, beside "started"
(epoch seconds) and "pid". This adds them up by role. What registries say of our quotas (`quota_<registry>_<what>`) is
not added up: the process that has heard last knows best. What is held against registries, and which of them are down,
comes from the records.
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from entrepot.amounts import ago, human
from entrepot.cli import outages
from entrepot.cli.options import config_option, json_option, loaded
from entrepot.cli.places import place_to_read
from entrepot.cli.records import scanned
from entrepot.errors import EntrepotError

_NOT_COUNTERS: Final = frozenset(("started", "pid"))
_NAME: Final = re.compile(r"([a-z]+)-(\d+)\.json")
_QUOTA: Final = re.compile(r"quota_(.+)_(limit|remaining|reset|paused|seen)")


class NoStore(EntrepotError):
    """There is nothing to look at."""


@dataclass(frozen=True, slots=True)
class Served:
    """The processes of a role, added up."""

    processes: int
    started: float
    """Epoch seconds, of the one that has run longest."""
    counters: dict[str, int]


def blobs(store: Path) -> tuple[int, int]:
    """(number, bytes) of what is committed."""
    number = size = 0
    for algorithm in _entries(store / "blobs"):
        for prefix in _entries(Path(algorithm.path)):
            for blob in _entries(Path(prefix.path)):
                try:
                    size += blob.stat(follow_symlinks=False).st_size
                except FileNotFoundError:  # evicted meanwhile
                    continue
                number += 1
    return number, size


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def served(run: Path) -> dict[str, Served]:
    """By role. Files that are not ours, or torn, do not count."""
    found: dict[str, Served] = {}
    for entry in sorted(_entries(run), key=lambda entry: entry.name):
        if (name := _NAME.fullmatch(entry.name)) is None or (numbers := _read(Path(entry.path))) is None:
            continue
        before = found.get(name[1], Served(0, float("inf"), {}))
        counters = Counter(before.counters)
        counters.update({key: value for key, value in numbers.items() if _is_counter(key) and _counts(value)})
        started = numbers.get("started")
        first = float(started) if isinstance(started, int | float) else float("inf")
        found[name[1]] = Served(before.processes + 1, min(before.started, first), dict(counters))
    return found


def quotas(run: Path) -> dict[str, dict[str, int]]:
    """By registry: `limit`, `remaining`, `reset`, `paused` and `seen` as far as known; dates are epoch seconds."""
    found: dict[str, dict[str, int]] = {}
    for entry in _entries(run):
        heard: dict[str, dict[str, int]] = {}
        for key, value in (_read(Path(entry.path)) or {}).items() if _NAME.fullmatch(entry.name) else ():
            if (name := _QUOTA.fullmatch(key)) is not None and _counts(value):
                heard.setdefault(name[1], {})[name[2]] = value
        for registry, numbers in heard.items():
            before = found.get(registry, {})
            latest = max(numbers, before, key=lambda one: one.get("seen", 0))
            paused = max(before.get("paused", 0), numbers.get("paused", 0))
            found[registry] = {**latest, **({"paused": paused} if paused else {})}
    return dict(sorted(found.items()))


def _is_counter(key: str) -> bool:
    return key not in _NOT_COUNTERS and not key.startswith("quota_")


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read(file: Path) -> dict[str, int] | None:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def quota_line(registry: str, numbers: dict[str, int], now: float) -> str:
    """What is left of one registry's quota, for people."""
    known = [f"{numbers['remaining']} left"] if "remaining" in numbers else []
    known += [f"of {numbers['limit']}"] if "limit" in numbers else []
    parts = [" ".join(known)] if known else []
    if (reset := numbers.get("reset", 0)) > now:
        parts.append(f"more in {ago(reset - now)}")
    if (paused := numbers.get("paused", 0)) > now:
        parts.append(f"throttled for {ago(paused - now)}")
    if "seen" in numbers:
        parts.append(f"heard {ago(now - numbers['seen'])} ago")
    return f"quota   {registry}: {', '.join(parts)}"


def wrong_bytes(records: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, dict[str, object]]:
    """By registry: the digest of the last blob whose bytes were wrong, and when (epoch seconds)."""
    found: dict[str, dict[str, object]] = {}
    for key, record in records:
        match record:
            case {"digest": str() as digest, "at": int() | float() as at}:
                found[key.partition("/")[2]] = {"digest": digest, "at": at}
            case _:
                continue
    return found


def wrong_line(registry: str, last: Mapping[str, object], now: float) -> str:
    """For people."""
    at = last["at"]
    when = ago(now - at) if isinstance(at, int | float) else "?"
    return f"suspect {registry}: sent wrong bytes for {last['digest']} {when} ago; nothing of it is kept"


def as_lines(store: Path, held: tuple[int, int], by_role: dict[str, Served], now: float) -> Iterator[str]:
    """For people."""
    yield f"store   {store}"
    yield f"held    {held[0]} blobs, {human(held[1])}"
    if not by_role:
        yield "no process has run with this store yet"
    for role, one in by_role.items():
        since = f", for {ago(now - one.started)}" if one.started != float("inf") else ""
        yield f"{role:<7} {one.processes} {'process' if one.processes == 1 else 'processes'}{since}"
        for key, value in sorted(one.counters.items()):
            if not value or "{" in key:
                continue  # what never happened is no news, and what is counted by labels is for the metrics
            shown = human(value) if key.startswith("bytes") else str(value)
            yield f"  {key:<24} {shown:>12}"


def as_object(store: Path, held: tuple[int, int], by_role: dict[str, Served]) -> dict[str, object]:
    """For programs."""
    return {
        "store": str(store),
        "blobs": {"count": held[0], "bytes": held[1]},
        "processes": {
            role: {
                "count": one.processes,
                "started": None if one.started == float("inf") else one.started,
                "counters": one.counters,
            }
            for role, one in by_role.items()
        },
    }


@click.command()
@config_option
@json_option
@click.pass_context
def stats(context: click.Context, config_path: Path | None, *, as_json: bool) -> None:
    """Show what is held and what was served."""
    config = place_to_read(loaded(context, config_path), os.environ)
    store = config.store.path
    if not store.is_dir():
        raise NoStore(f"there is no store in {store} yet; `entrepot up` makes one")
    held, by_role, quota = blobs(store), served(store / "run"), quotas(store / "run")
    wrong = wrong_bytes(scanned(store, "suspicious/"))
    down = outages.outages(scanned(store, outages.PREFIX))
    whose = outages.owners(down, config)
    if as_json:
        shown = as_object(store, held, by_role)
        away = {origin: outages.as_object(outage, whose[origin]) for origin, outage in down.items()}
        click.echo(json.dumps({**shown, "quota": quota, "wrong_bytes": wrong, "down": away}, indent=2))
    else:
        now = time.time()
        lines = [quota_line(registry, numbers, now) for registry, numbers in quota.items()]
        lines += [wrong_line(registry, last, now) for registry, last in wrong.items()]
        lines += [outages.line(origin, one, whose[origin], ago(now - one.since)) for origin, one in down.items()]
        click.echo("\n".join([*as_lines(store, held, by_role, now), *lines]))
