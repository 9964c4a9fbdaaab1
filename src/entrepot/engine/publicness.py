"""Whether anyone may pull from a repository: an anonymous look of our own (DESIGN rule 3a).

A HEAD of a manifest without any credential; where the registry wants a token, with one issued to nobody. It runs
beside the pulls, never before one: until it has an answer each credential is checked on its own.
"""

import logging
from typing import Final
from urllib.parse import urlencode, urlsplit

from entrepot.engine.flights import Flights
from entrepot.engine.messages import PullRequest
from entrepot.engine.upstreams import Upstreams
from entrepot.headers import Headers
from entrepot.registry.challenges import InvalidChallenge, parse_challenges
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.errors import UpstreamError

_log = logging.getLogger("entrepot.access")
SAYS_NO: Final = frozenset({401, 403, 404})


class Publicness:
    """Looks, one at a time for each repository."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._looks: Flights[tuple[str, str], bool | None] = Flights("publicness")

    async def look(self, request: PullRequest, repository: str, reference: Digest | str) -> bool | None:
        """True or False as the registry says; None when it says nothing that counts. Raises nothing."""
        route = ManifestRoute(repository, reference)
        return await self._looks.run((request.registry.name, repository), lambda: self._look(request, route))

    async def _look(self, request: PullRequest, route: ManifestRoute) -> bool | None:
        try:
            status, fields = await self._upstreams.nobody_head(request, route)
            if status == 401 and (asked := _token_address(fields, route.repository)) is not None:
                token = await self._upstreams.nobody_token(request, asked)
                status, _ = await self._upstreams.nobody_head(request, route, ("Authorization", f"Bearer {token}"))
        except UpstreamError as e:
            _log.debug("registry=%s repository=%s: no anonymous look: %s", request.registry.name, route.repository, e)
            return None
        if status < 400:
            return True
        return False if status in SAYS_NO else None


def _token_address(fields: Headers, repository: str) -> str | None:
    """Where a token for pulls of the repository is to be had, by the challenge (distribution token specification)."""
    try:
        challenges = parse_challenges(fields.get_all("www-authenticate"))
    except InvalidChallenge:
        return None
    for challenge in challenges:
        realm = challenge.params.get("realm", "")
        if challenge.scheme != "bearer" or urlsplit(realm).scheme not in {"https", "http"}:
            continue
        query = {"scope": challenge.params.get("scope") or f"repository:{repository}:pull"}
        if service := challenge.params.get("service"):
            query["service"] = service
        return f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
    return None
