"""Which upstreams are down, for `entrepot stats`: the notes that the workers leave each other in the records.

Decides whose an origin is, by the catalogue: a registry's own, its token service, or neither (a CDN).
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from entrepot.config.model import Config
from entrepot.upstream.breaker import State
from entrepot.upstream.outages import PREFIX, Outage, origin_of

__all__ = ["PREFIX", "as_object", "line", "outages", "owners"]


def outages(records: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, Outage]:
    """By origin. What is no note does not count."""
    found = {key.removeprefix(PREFIX): Outage.load(record) for key, record in records}
    return {origin: outage for origin, outage in sorted(found.items()) if outage is not None}


def owners(origins: Iterable[str], config: Config) -> dict[str, list[str]]:
    """The registries whose API or token service is at an origin, by origin. Raises `InvalidRegistry`."""
    origins = list(origins)
    if not origins:
        return {}
    from entrepot.config.overrides import catalogue  # noqa: PLC0415  # takes time, and is seldom needed

    known = catalogue(config)
    found: dict[str, list[str]] = {}
    for origin in origins:
        names = {registry.name for registry in known.registries() if origin_of(registry.upstream) == origin}
        match = known.match(urlsplit(origin).hostname or "")
        if match is not None and (match.role == "token" or origin_of(match.registry.upstream) == origin):
            names.add(match.registry.name)
        found[origin] = sorted(names)
    return found


def as_object(outage: Outage, registries: list[str]) -> dict[str, object]:
    """For programs; `since` is epoch seconds."""
    return {
        "registries": registries,
        "state": str(outage.state),
        "confirmed": outage.confirmed,
        "since": outage.since,
        "why": outage.why,
    }


def line(origin: str, outage: Outage, registries: list[str], since: str) -> str:
    """For people; `since` is an age."""
    what = "down   " if outage.confirmed or outage.state is State.OPEN else "in doubt"
    whose = f" ({', '.join(registries)})" if registries else ""
    return f"{what} {origin}{whose}: for {since}, {outage.why}"
