"""Whether anyone may pull from a repository: an anonymous look of our own (DESIGN rule 3a).

A HEAD of a manifest (a GET where a registry refuses those) without any credential; where the registry wants a token,
with one issued to nobody at that moment, because an older one may outlive what it was issued for. It runs beside the
pulls: until it has an answer each credential is checked on its own. It is waited for only before the box's own account
is used for others.
"""

import logging
from dataclasses import replace
from typing import Final

from entrepot.engine.flights import Flights
from entrepot.engine.messages import PullRequest
from entrepot.engine.upstreams import REFUSES_HEAD, Upstreams
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.errors import UpstreamError

_log = logging.getLogger("entrepot.access")
NOT_FOUND: Final = 404
SAYS_NO: Final = frozenset({401, 403, NOT_FOUND})


class Publicness:
    """Looks, one at a time for each manifest."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._looks: Flights[tuple[str, str], int | None] = Flights("publicness")

    async def look(self, request: PullRequest, repository: str, reference: Digest | str) -> bool | None:
        """True or False as the registry says; None when it says nothing that counts. Raises nothing.

        Not found counts for nothing: who may push to a public repository can take the manifest away meanwhile, and
        make a password look proved that is not.
        """
        status = await self.status(request, repository, reference)
        if status is not None and status < 400:
            return True
        return False if status in SAYS_NO and status != NOT_FOUND else None

    async def status(self, request: PullRequest, repository: str, reference: Digest | str) -> int | None:
        """What the registry answers to nobody, if anything. Raises nothing."""
        route = ManifestRoute(repository, reference)
        return await self._looks.run((request.registry.name, route.path), lambda: self._look(request, route))

    async def _look(self, request: PullRequest, route: ManifestRoute) -> int | None:
        try:
            status = await self._asked("HEAD", request, route)
            if status in REFUSES_HEAD:
                status = await self._asked("GET", request, route)
        except UpstreamError as e:
            _log.debug("registry=%s repository=%s: no anonymous look: %s", request.registry.name, route.repository, e)
            return None
        return status

    async def _asked(self, method: str, request: PullRequest, route: ManifestRoute) -> int:
        status, fields = await self._upstreams.as_nobody(method, request, route)
        asking = replace(request, route=route)
        if status == 401 and (shown := await self._upstreams.passes.of_nobody(asking, fields)) is not None:
            status, _ = await self._upstreams.as_nobody(method, request, route, ("Authorization", shown))
        return status
