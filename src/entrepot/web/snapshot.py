"""How the box stands, gathered from what its processes leave on disk. Blocking; for one thread.

Whatever cannot be read is left out and named: a page with a gap is better than no page, at night above all.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.embedded import open_blobs
from entrepot.cache.interface import StoreError
from entrepot.cache.onlooker import Onlooker
from entrepot.cache.space import Usage
from entrepot.certs.errors import CertsError
from entrepot.upstream.outages import PREFIX, Outage
from entrepot.web import readings
from entrepot.web.authority import Trusted, trusted
from entrepot.web.readings import Run
from entrepot.web.settings import WebSettings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """At one moment."""

    now: float  # epoch seconds
    run: Run = field(default_factory=Run)
    outages: Mapping[str, Outage] = field(default_factory=dict)
    """By origin."""
    owners: Mapping[str, list[str]] = field(default_factory=dict)
    """The registries of each of these origins."""
    usage: Usage | None = None
    evicted: tuple[int, int] | None = None
    """Blobs and bytes, since the ledger was made."""
    authority: Trusted | None = None
    leaf: float | None = None
    """Epoch seconds until which the certificate counts that clients are shown."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, and why."""

    def outage_of(self, registry: str) -> Outage | None:
        """What keeps a registry from being asked: the worst of what is known of its origins."""
        found = [outage for origin, outage in self.outages.items() if registry in self.owners.get(origin, ())]
        return max(found, key=lambda one: (one.confirmed, one.state == "open", -one.since), default=None)


class Gatherer:
    """Keeps open what is read again and again."""

    def __init__(self, settings: WebSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings, self._clock = settings, clock
        self.records = Onlooker(settings.store, clock)
        self._blobs: FileBlobs | None = None

    def blobs(self) -> FileBlobs:
        """Raises `StoreError`."""
        if self._blobs is None:
            self._blobs = open_blobs(self.settings.store, self.settings.limits)
        return self._blobs

    def gather(self, leaf: float | None = None) -> Snapshot:
        """Everything."""
        gaps: dict[str, str] = {}
        outages = self._outages(gaps)
        usage, evicted = self._disk(gaps)
        authority: Trusted | None = None
        try:
            authority = trusted(self.settings.certs)
        except CertsError as failure:
            gaps["certificates"] = str(failure)
        return Snapshot(
            self._clock(),
            readings.read(self.settings.store / "run"),
            outages,
            self.settings.owners(outages) if outages else {},
            usage,
            evicted,
            authority,
            leaf,
            gaps,
        )

    def close(self) -> None:
        self.records.close()
        if self._blobs is not None:
            self._blobs.close()
            self._blobs = None

    def _outages(self, gaps: dict[str, str]) -> dict[str, Outage]:
        try:
            found = {key.removeprefix(PREFIX): Outage.load(record) for key, record in self.records.scan(PREFIX)}
        except StoreError as failure:
            gaps["records"] = str(failure)
            return {}
        return {origin: outage for origin, outage in found.items() if outage is not None}

    def _disk(self, gaps: dict[str, str]) -> tuple[Usage | None, tuple[int, int] | None]:
        try:
            blobs = self.blobs()
            return blobs.space.usage(), blobs.ledger.evicted()
        except StoreError as failure:
            gaps["disk"] = str(failure)
            with suppress(StoreError):
                self.close()
            return None, None
