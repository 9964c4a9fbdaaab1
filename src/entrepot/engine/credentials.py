"""The box's own credentials: read where the configuration says they are, when one is needed.

A secret is in memory for as long as it is fresh (`FRESH`), or until the configuration is read again; it is never logged
and never kept. One that is not to be had is the same as none, and says so in the log, once. One that a registry has
refused is not shown again for a while, unless it has changed: accounts get locked by wrong passwords.

What it is used for is decided by `errands`, how it is shown by `passes`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from entrepot.engine.claims import Claim
from entrepot.engine.flights import Flights
from entrepot.engine.helpers import credential_from, program_of
from entrepot.engine.secretfiles import Ask, Unusable, in_docker_config, password_in
from entrepot.registry.catalogue import Registry
from entrepot.registry.credentials import DockerConfig, Helper, PasswordFile

__all__ = ["Claim", "Credentials", "Unusable", "complaint", "read"]

_log = logging.getLogger("entrepot.credentials")
FRESH: Final = 60.0  # seconds that one is used before its place is looked at again
SHUNNED: Final = 300.0  # seconds that one which has been refused is not shown again
MAX_KNOWN: Final = 1024  # registries; a family has any number
LEGACY: Final = {"docker.io": "https://index.docker.io/v1/"}
"""What docker calls a registry where it keeps credentials, if it is not the name."""


def read(registry: Registry) -> Claim | None:
    """The credential for a registry; None if none is configured. Blocks. Raises `Unusable`."""
    match registry.credentials:
        case None:
            return None
        case PasswordFile(user, path):
            return Claim(user, password_in(path))
        case Helper(helper):
            return credential_from(helper, _servers(registry))
        case DockerConfig(path):
            failure = Unusable(f"{path}: has nothing for {registry.name}")
            for found in in_docker_config(path, _names(registry)):
                if isinstance(found, Claim):
                    return found
                try:
                    return credential_from(found.helper, _servers(registry))
                except Unusable as e:
                    failure = e
            raise failure


def complaint(registry: Registry) -> str | None:
    """What is wrong with the place of its credentials, in one line, as far as can be told without asking a helper."""
    try:
        match registry.credentials:
            case PasswordFile(_, path):
                password_in(path)
            case Helper(helper):
                program_of(helper)
            case DockerConfig(path):
                found = list(in_docker_config(path, _names(registry)))
                for one in found:
                    if isinstance(one, Ask):
                        program_of(one.helper)
                if not found and registry.name:
                    return f"{path}: has nothing for {registry.name}"
    except Unusable as e:
        return str(e)
    return None


def _names(registry: Registry) -> Sequence[str]:
    """What the registry is called where credentials are kept by host."""
    return tuple(dict.fromkeys([registry.name, *registry.hosts, urlsplit(registry.upstream).netloc]))


def _servers(registry: Registry) -> Sequence[str]:
    """The same, as helpers are asked."""
    return tuple(dict.fromkeys([LEGACY.get(registry.name, registry.name), *_names(registry)]))


@dataclass(frozen=True, slots=True)
class _Known:
    claim: Claim | None
    at: float  # epoch seconds


class Credentials:
    """In memory, for one process. `clock` gives epoch seconds."""

    def __init__(self, clock: Callable[[], float], reader: Callable[[Registry], Claim | None] = read) -> None:
        self._clock, self._reader = clock, reader
        self._known: dict[str, _Known] = {}
        self._shunned: dict[str, _Known] = {}
        self._complaints: dict[str, str] = {}
        self._reads: Flights[tuple[str, int], Claim | None] = Flights("credential")
        self._generation = 0  # of the configuration

    async def of(self, registry: Registry) -> Claim | None:
        """The credential for a registry, if there is one that may be of use. Raises nothing."""
        if registry.credentials is None:
            return None
        known = self._known.get(registry.name)
        if known is None or not self._within(known.at, FRESH):
            generation = self._generation
            claim = await self._reads.run((registry.name, generation), lambda: self._read(registry, generation))
        else:
            claim = known.claim
        shunned = self._shunned.get(registry.name)
        if shunned is not None and shunned.claim == claim and self._within(shunned.at, SHUNNED):
            return None
        return claim

    async def _read(self, registry: Registry, generation: int) -> Claim | None:
        try:
            claim = await asyncio.to_thread(self._reader, registry)
            self._complaints.pop(registry.name, None)
        except Unusable as e:
            claim = None
            if self._complaints.get(registry.name) != str(e):
                self._complaints[registry.name] = str(e)
                _log.warning("credentials for %s: %s", registry.name, e)
        if generation == self._generation:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[registry.name] = _Known(claim, self._clock())
        return claim

    def refused(self, registry: Registry, claim: Claim) -> None:
        """The registry, or its token service, says that it is wrong."""
        if (before := self._shunned.get(registry.name)) is None or before.claim != claim:
            _log.warning("credentials for %s: refused as wrong; not shown again for now", registry.name)
        self._shunned[registry.name] = _Known(claim, self._clock())

    def reload(self) -> None:
        """The configuration has been read again, and so is everything it points to."""
        self._generation += 1
        self._known.clear()
        self._shunned.clear()
        self._complaints.clear()

    def _within(self, at: float, seconds: float) -> bool:
        """What is dated in the future was written before the clock was set back."""
        return 0 <= self._clock() - at < seconds
