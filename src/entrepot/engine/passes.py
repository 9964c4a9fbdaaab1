"""What the box shows a registry when it asks in its own name, or in nobody's: the tokens and passwords of its errands.

1. What a registry challenges with decides: a token from the service it names, or the password itself (Basic).
2. A realm is the registry's word. It must be https or the registry's own place, and must not lead inward.
3. A token is for one repository, and is used until shortly before it ends. What has been refused is not asked for
   again for `SHUT` seconds, so that a registry is not asked over and over for what it does not give.

Where credentials come from is `credentials`'; what is asked with a pass, and who may have the result, is not decided
here.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit

from entrepot.engine.credentials import Claim, Credentials
from entrepot.engine.fields import to_upstream
from entrepot.engine.flights import Flights
from entrepot.engine.granted import granted
from entrepot.engine.messages import PullRequest
from entrepot.headers import CODEC, Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.challenges import Challenge, InvalidChallenge, parse_challenges
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import InvalidResponse, UpstreamError
from entrepot.upstream.redirects import host_of, origin
from entrepot.upstream.response import Response

type Who = Literal["nobody", "box"]
type _Key = tuple[str, Who, str]
"""Registry, in whose name, repository."""

MAX_ANSWER: Final = 1 << 20  # bytes of a token service's
MARGIN: Final = 0.1  # of its life, before the end of a token, in which it is not used any more
SHUT: Final = 60.0  # seconds
TOKEN_SECONDS: Final = 5.0  # for a token of an errand's: a client waits, and has a way of its own
MAX_KNOWN: Final = 4096
CLIENT_ID: Final = "entrepot"


class NoPass(UpstreamError):
    """The token service is in trouble; the registry itself may be well."""


@dataclass(frozen=True, slots=True)
class _Pass:
    authorization: str = field(repr=False)
    until: float  # epoch seconds


class Passes:
    """Of one process, in memory. `clock` gives epoch seconds."""

    def __init__(
        self, client: UpstreamClient, clock: Callable[[], float], credentials: Credentials | None = None
    ) -> None:
        self._client, self._clock = client, clock
        self._credentials = credentials or Credentials(clock)
        self._tokens: dict[_Key, _Pass] = {}
        self._shut: dict[_Key, float] = {}
        self._basic: set[str] = set()  # registries that have asked for the password itself
        self._asking: Flights[_Key, str | None] = Flights("pass")

    def reload(self) -> None:
        """The configuration has been read again, and the credentials will be."""
        self._credentials.reload()
        self._tokens.clear()
        self._shut.clear()
        self._basic.clear()

    async def usable(self, request: PullRequest, who: Who) -> bool:
        """Whether an errand like this one may come to anything."""
        if self._clock() < self._shut.get(_key(request, who), 0.0):
            return False
        return who == "nobody" or await self._credentials.of(request.registry) is not None

    async def known(self, request: PullRequest, who: Who) -> str | None:
        """The value of `Authorization` to begin with; None: to be challenged."""
        registry = request.registry
        if (held := self._tokens.get(_key(request, who))) is not None and self._clock() < held.until:
            return held.authorization
        if who == "box" and registry.name in self._basic:
            claim = await self._credentials.of(registry)
            return _basic(claim) if claim is not None and claim.user else None
        return None

    async def issue(self, request: PullRequest, who: Who, challenged: Headers, *, instead_of: str | None) -> str | None:
        """What answers a challenge; None if there is nothing but what has been shown. Raises `NoPass`."""
        key = _key(request, who)
        held = self._tokens.get(key)
        if held is not None and held.authorization != instead_of and self._clock() < held.until:
            return held.authorization  # another request has been here meanwhile
        if not await self.usable(request, who):
            return None
        issued = await self._asking.run(key, lambda: self._issued(request, who, challenged))
        if issued is None or issued == instead_of:
            await self.refused(request, who)
            return None
        return issued

    async def refused(self, request: PullRequest, who: Who) -> None:
        """The registry does not take the best that there is to show."""
        registry, key = request.registry, _key(request, who)
        self._tokens.pop(key, None)
        if len(self._shut) >= MAX_KNOWN:
            self._shut.clear()
        self._shut[key] = self._clock() + SHUT
        if who == "box" and registry.name in self._basic and (claim := await self._credentials.of(registry)):
            self._credentials.refused(registry, claim)

    async def of_nobody(self, request: PullRequest, challenged: Headers) -> str | None:
        """A token that is given to nobody now, for a proof; None if nobody gets one. Raises `NoPass`."""
        return await self._issued(request, "nobody", challenged, keep=False)

    async def _issued(self, request: PullRequest, who: Who, challenged: Headers, *, keep: bool = True) -> str | None:
        registry, repository = request.registry, _key(request, who)[2]
        claim = await self._credentials.of(registry) if who == "box" else None
        challenges = _parsed(challenged)
        for challenge in challenges:
            if (url := token_address(challenge, repository)) is None:
                continue
            token = await self._token(request, url, claim)
            if token is not None and keep:
                if len(self._tokens) >= MAX_KNOWN:
                    self._tokens.clear()
                self._tokens[_key(request, who)] = token
            return token.authorization if token is not None else None
        if claim is not None and claim.user and any(challenge.scheme == "basic" for challenge in challenges):
            self._basic.add(registry.name)
            return _basic(claim)
        return None

    async def _token(self, request: PullRequest, url: str, claim: Claim | None) -> _Pass | None:
        """From a service; None if it refuses. Raises `NoPass`."""
        registry = request.registry
        try:
            self._check(registry, url)
            method, url, headers, body = _asked(request, url, claim)
            async with (
                asyncio.timeout(TOKEN_SECONDS),
                self._client.open(method, url, headers, ca=registry.ca, body=body) as response,
            ):
                return await self._read(registry, claim, response)
        except TimeoutError:
            raise NoPass(host_of(url), f"no token within {TOKEN_SECONDS:g} s") from None
        except UpstreamError as e:
            raise NoPass(e.host, e.cause) from e

    def _check(self, registry: Registry, url: str) -> None:
        """Raises `UpstreamError` for what must not be asked."""
        if not url.startswith("https://") and origin(urlsplit(url)) != origin(urlsplit(registry.upstream)):
            raise InvalidResponse(registry.name, "names a token service without https")
        self._client.refuse_inward(url, first=registry.upstream)

    async def _read(self, registry: Registry, claim: Claim | None, response: Response) -> _Pass | None:
        if response.status in {401, 403}:
            if response.status == 401 and claim is not None:
                self._credentials.refused(registry, claim)
            return None
        if response.status != 200:
            raise InvalidResponse(registry.name, f"gives no token ({response.status})")
        tokens, life = granted(await response.read(MAX_ANSWER))
        good = sorted(token for token in tokens if token.isascii() and token.isprintable())
        if not good:
            raise InvalidResponse(registry.name, "gives no token that can be used")
        return _Pass(f"Bearer {good[0]}", self._clock() + life * (1 - MARGIN))


def token_address(challenge: Challenge, repository: str) -> str | None:
    """Where a token for pulls of the repository is to be had, by a challenge; None if it is not about tokens."""
    realm = challenge.params.get("realm", "")
    try:
        parts = urlsplit(realm)
    except ValueError:
        return None
    if challenge.scheme != "bearer" or parts.scheme not in {"https", "http"} or parts.fragment:
        return None
    query = {"scope": challenge.params.get("scope") or f"repository:{repository}:pull"}
    if service := challenge.params.get("service"):
        query["service"] = service
    return f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"


def _asked(request: PullRequest, url: str, claim: Claim | None) -> tuple[str, str, Headers, bytes | None]:
    """Method, address, fields and body: a GET with the password, or the form that identity tokens want (OAuth 2)."""
    fields = to_upstream(request.headers.without("authorization", "accept"), ("Accept", "application/json"))
    if claim is None:
        return "GET", url, fields, None
    if claim.user:
        return "GET", url, fields.with_("Authorization", _basic(claim)), None
    address, _, query = url.partition("?")
    form = urlencode({"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": claim.secret})
    fields = fields.with_("Content-Type", "application/x-www-form-urlencoded")
    return "POST", address, fields, f"{form}&{query}".encode()


def _parsed(fields: Headers) -> list[Challenge]:
    try:
        return parse_challenges(fields.get_all("www-authenticate"))
    except InvalidChallenge:
        return []


def _basic(claim: Claim) -> str:
    return f"Basic {b64encode(f'{claim.user}:{claim.secret}'.encode(*CODEC)).decode()}"


def _key(request: PullRequest, who: Who) -> _Key:
    repository = getattr(request.route, "repository", None)
    return request.registry.name, who, repository if isinstance(repository, str) else ""
