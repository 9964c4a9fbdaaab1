"""How a registry challenges: remembered, so that it can be said while the registry is away (DESIGN rule 5).

A client begins with the challenge: the ping's, or that of its first request. What comes after is its own doing, so in
an outage it must be sent on the way it knows, to the token service it knows, where `tokens` stands in. What is kept is
the registry's; what names another repository, or another client's mistake, is left out.

1. The ping is relayed while the registry answers. While it does not, the last answer to a client without a credential
   is given: to whom shows a good one, that it is good.
2. `challenge_for` is for who may not have what is held, or asks for what is not.
3. A token service that we do not stand in for is of no use then: the client is sent to one at the registry itself.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from entrepot.cache.interface import Document, Records
from entrepot.engine.fields import API_VERSION, STALE
from entrepot.engine.messages import Answer, PullRequest, Refused
from entrepot.engine.upstreams import trouble
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Registry
from entrepot.registry.challenges import Challenge, InvalidChallenge, parse_challenges
from entrepot.registry.routes import TokenRoute, parse_target
from entrepot.upstream.errors import LoopDetected, UpstreamError

MAX_BODY: Final = 4 << 10  # bytes of a ping's answer
ASIDE: Final = ("error", "error_description", "error_uri", "scope")
KEPT_FIELDS: Final = frozenset({"content-type", "www-authenticate", "docker-distribution-api-version"})


class Realms:
    """In the records."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._known: dict[str, Document] = {}
        self.intercepts: Callable[[str], bool] = lambda host: True
        """Whether clients reach us by this name."""

    # learning

    async def observe(self, request: PullRequest, status: int, answered: Headers) -> None:
        """The registry's answer to a request for something of a repository. Writes only what is new."""
        key = f"challenge/{request.registry.name}/repository"
        if status == 401:
            kept = [str(_general(challenge)) for challenge in _parsed(answered)]
            if kept:
                await self._note(key, {"challenges": kept})
        elif status < 400 and "authorization" not in request.headers and self._get(key) is None:
            await self._note(key, {"challenges": []})

    async def _note(self, key: str, value: Document) -> None:
        if self._get(key) != value:
            await self._records.put(key, value)
            self._known[key] = value

    def _get(self, key: str) -> Document | None:
        if (known := self._known.get(key)) is None and (known := self._records.get(key)) is not None:
            self._known[key] = known
        return known

    async def _note_ping(self, request: PullRequest, answer: Answer) -> None:
        """Of a client without a credential."""
        if request.method != "GET" or not isinstance(answer.body, bytes) or len(answer.body) > MAX_BODY:
            return
        if not (answer.status == 401 and _parsed(answer.headers)) and answer.status != 200:
            return
        text = answer.body.decode("utf-8", "replace")
        fields = [[name, value] for name, value in answer.headers if name.lower() in KEPT_FIELDS]
        await self._note(
            f"challenge/{request.registry.name}/ping", {"status": answer.status, "fields": fields, "body": text}
        )

    # answering

    async def ping(
        self,
        request: PullRequest,
        relay: Callable[[PullRequest], Awaitable[Answer]],
        *,
        down: bool,
        shown: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """Upstream's answer to the ping, or what it would be. `shown`: the request has a good credential.

        Raises `UpstreamError` when nothing is known.
        """
        if down and (kept := await self._kept_ping(request, shown)) is not None:
            return kept
        try:
            answer = await relay(request)
        except LoopDetected:
            raise
        except UpstreamError:
            if (kept := await self._kept_ping(request, shown)) is None:
                raise
            return kept
        if trouble(Refused(answer)) is not None:
            return await self._kept_ping(request, shown) or answer
        if "authorization" not in request.headers:
            await self._note_ping(request, answer)
        return answer

    def knows_ping(self, request: PullRequest) -> bool:
        """Whether the ping could be answered without the registry."""
        return self._said(request) is not None

    async def _kept_ping(self, request: PullRequest, shown: Callable[[], Awaitable[bool]]) -> Answer | None:
        said = self._said(request)
        if said is None:
            return None
        status, fields, body = said
        if status != 200 and await shown():
            status, fields, body = 200, [API_VERSION, ("Content-Type", oci_errors.CONTENT_TYPE)], b"{}"
        headers = Headers([*fields, *STALE])
        return Answer(status, headers, body, "stale", "upstream is away", length=len(body))

    def _said(self, request: PullRequest) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """What is known of the ping: its own answer, or what repositories are protected with."""
        registry = request.registry
        match self._get(f"challenge/{registry.name}/ping"):
            case {"status": int(status), "fields": list(kept), "body": str(body)}:
                fields = [(str(name), str(value)) for name, value in kept if name.lower() != "www-authenticate"]
                said = Headers((str(name), str(value)) for name, value in kept)
                fields += [("WWW-Authenticate", str(one)) for one in self._here(registry, _parsed(said))]
                return status, fields, body.encode()
        challenges = self._challenges(registry)
        if challenges is None:
            return None
        fields = [API_VERSION, ("Content-Type", oci_errors.CONTENT_TYPE)]
        if not challenges:
            return 200, fields, b"{}"
        fields += [("WWW-Authenticate", str(challenge)) for challenge in challenges]
        return 401, fields, oci_errors.error_body(oci_errors.UNAUTHORIZED, "authentication required")

    def challenge_for(self, registry: Registry, repository: str, *, insufficient: bool = False) -> Answer | None:
        """The refusal of a request for something of the repository; None when the registry never challenged.

        `insufficient`: the request has a credential, and it is not enough.
        """
        if not (challenges := self._challenges(registry)):
            return None
        more = {"scope": f"repository:{repository}:pull"} | ({"error": "insufficient_scope"} if insufficient else {})
        fields = [API_VERSION, ("Content-Type", oci_errors.CONTENT_TYPE), *STALE]
        for one in challenges:
            asked = Challenge("bearer", {**one.params, **more}) if one.scheme == "bearer" else one
            fields.append(("WWW-Authenticate", str(asked)))
        detail = [{"Type": "repository", "Class": "", "Name": repository, "Action": "pull"}]
        body = oci_errors.error_body(oci_errors.UNAUTHORIZED, "authentication required", detail)
        return Answer(401, Headers(fields), body, "refused", "not admitted, and upstream is away", length=len(body))

    def service_of(self, registry: Registry) -> str | None:
        """The token service that the registry has named, with its name in the query; None for none."""
        for challenge in self._challenges(registry) or ():
            realm, service = challenge.params.get("realm", ""), challenge.params.get("service", "")
            if challenge.scheme == "bearer" and realm and not urlsplit(realm).query:
                return f"{realm}?{urlencode({'service': service})}"
        return None

    def _challenges(self, registry: Registry) -> list[Challenge] | None:
        """Those of repositories, as they are good now; empty when it needs none."""
        match self._get(f"challenge/{registry.name}/repository"):
            case {"challenges": list(kept)}:
                return list(self._here(registry, _parsed(Headers(("WWW-Authenticate", str(one)) for one in kept))))
            case _:
                return None

    def _here(self, registry: Registry, challenges: list[Challenge]) -> Iterator[Challenge]:
        """The same, with realms where we are asked."""
        for challenge in challenges:
            realm = urlsplit(challenge.params.get("realm", ""))
            ours = self.intercepts(realm.hostname or "") and isinstance(parse_target(realm.path), TokenRoute)
            if challenge.scheme != "bearer" or ours or not registry.hosts:
                yield challenge
            else:
                yield Challenge("bearer", {**challenge.params, "realm": f"https://{registry.hosts[0]}/token"})


def _parsed(headers: Headers) -> list[Challenge]:
    """None at all if one of them is no challenge."""
    try:
        return parse_challenges(headers.get_all("www-authenticate"))
    except InvalidChallenge:
        return []


def _general(challenge: Challenge) -> Challenge:
    """Less what was about one request: its scope, which some have in the query of the realm, and what was wrong."""
    if challenge.scheme != "bearer":
        return challenge
    params = {name: value for name, value in challenge.params.items() if name not in ASIDE}
    realm = urlsplit(params.get("realm", ""))
    if realm.query:
        query = [(name, value) for name, value in parse_qsl(realm.query, keep_blank_values=True) if name != "scope"]
        params["realm"] = urlunsplit(realm._replace(query=urlencode(query)))
    return Challenge(challenge.scheme, params)
