"""The registry API's paths, and those of token services: a request target in, a route out.

Knows the grammar of the paths, not the methods: whether a route is a pull, a push or a delete is the
caller's to see. What is not well formed is not the registry API (None) and so goes to upstream untouched,
which refuses it in its own words; in particular a name never has an encoded slash, `..` or `//` in it.
"""

import re
from dataclasses import dataclass, field

from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.names import is_repository, is_tag

# Opaque to us, but it goes into a path: visible ASCII without "/", "?", "#" and "%".
_SESSION = re.compile(r"[!-\"$&-.0->@-~]+", re.ASCII)
# As realms in the field end: /token, /v2/auth, /jwt/auth, /oauth2/token, /proxy_auth, /service/token and so on.
_TOKENS = re.compile(r"(?:/[a-z0-9_-][a-z0-9._~-]*)*/(?:token|auth|proxy_auth)/?|/oauth2/exchange", re.ASCII | re.I)
_ASKS = re.compile(r"(?:^|&)(?:service|scope)=")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Target:
    """What routes share."""

    query: str = field(default="", kw_only=True, repr=False)  # what came after the question mark, as it came

    @property
    def path(self) -> str:
        """The canonical path, without the query."""
        raise NotImplementedError

    @property
    def target(self) -> str:
        """Path and query: the target for upstream."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class Ping(_Target):
    """`/v2/`: does it speak the API, and what does it challenge with."""

    @property
    def path(self) -> str:
        return "/v2/"


@dataclass(frozen=True, slots=True)
class ManifestRoute(_Target):
    """A manifest, by tag or by digest."""

    repository: str
    reference: Digest | str

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.reference}"


@dataclass(frozen=True, slots=True)
class BlobRoute(_Target):
    """A blob."""

    repository: str
    digest: Digest

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class UploadRoute(_Target):
    """A blob on its way in; `session` is empty where an upload begins."""

    repository: str
    session: str = ""

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/{self.session}"


@dataclass(frozen=True, slots=True)
class TagsRoute(_Target):
    """The tags of a repository."""

    repository: str

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/tags/list"


@dataclass(frozen=True, slots=True)
class ReferrersRoute(_Target):
    """The manifests that name this one as their subject: signatures, SBOMs."""

    repository: str
    digest: Digest

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/referrers/{self.digest}"


@dataclass(frozen=True, slots=True)
class CatalogRoute(_Target):
    """The repositories of a registry."""

    @property
    def path(self) -> str:
        return "/v2/_catalog"


@dataclass(frozen=True, slots=True)
class TokenRoute(_Target):
    """What may be a token service. Told by the shape of the path alone: whoever is not one answers for itself."""

    place: str

    @property
    def path(self) -> str:
        return self.place

    @property
    def asks(self) -> bool:
        """Whether the query is one for a token, which a GET must have (distribution token specification)."""
        return _ASKS.search(self.query) is not None


Route = Ping | ManifestRoute | BlobRoute | UploadRoute | TagsRoute | ReferrersRoute | CatalogRoute | TokenRoute


def parse_target(target: str) -> Route | None:
    """The route that an origin-form request target (RFC 9112 3.2.1) names, or None.

    A name may itself have a component "manifests" or "blobs"; references have no slash, so the path is read
    from its end and there is one reading.
    """
    path, _, query = target.partition("?")
    if (route := _api(path, query)) is None and _TOKENS.fullmatch(path):
        return TokenRoute(path, query=query)
    return route


def _api(path: str, query: str) -> Route | None:
    """A route of the registry API."""
    if not path.startswith("/v2"):
        return None
    if "%" in path:
        decoded = _decode(path)
        if decoded is None:
            return None
        path = decoded
    head, _, last = path.rpartition("/")
    front, _, kind = head.rpartition("/")
    if not front:
        return _top(path, query)
    if not front.startswith("/v2/"):
        return None
    name = front[4:]
    try:
        return _in_repository(name, kind, last, query)
    except InvalidDigest:
        return None


def _top(path: str, query: str) -> Route | None:
    match path:
        case "/v2/" | "/v2":
            return Ping(query=query)
        case "/v2/_catalog":
            return CatalogRoute(query=query)
        case _:
            return None


def _in_repository(name: str, kind: str, last: str, query: str) -> Route | None:
    """Raises `InvalidDigest`."""
    if kind == "uploads":
        return _upload(name, last, query)
    if not is_repository(name):
        return None
    match kind:
        case "blobs":
            return (
                UploadRoute(name, query=query)
                if last == "uploads"
                else BlobRoute(name, Digest.parse(last), query=query)
            )
        case "manifests":
            if ":" in last:
                return ManifestRoute(name, Digest.parse(last), query=query)
            return ManifestRoute(name, last, query=query) if is_tag(last) else None
        case "referrers":
            return ReferrersRoute(name, Digest.parse(last), query=query)
        case "tags":
            return TagsRoute(name, query=query) if last == "list" else None
        case _:
            return None


def _upload(name_and_blobs: str, session: str, query: str) -> Route | None:
    name, slash, blobs = name_and_blobs.rpartition("/")
    if not slash or blobs != "blobs" or not is_repository(name):
        return None
    if session and (session in {".", ".."} or _SESSION.fullmatch(session) is None):
        return None
    return UploadRoute(name, session, query=query)


def _decode(path: str) -> str | None:
    """Percent-decoding for the one escape that clients use without need, of characters that mean themselves.

    None if an escape is broken or hides anything else: `%2F` is no slash to some servers and one to others,
    and `%2e%2e` is a trap.
    """
    pieces = _ENCODED.split(path)
    for index in range(1, len(pieces), 2):
        character = chr(int(pieces[index], 16))
        if not (character.isascii() and (character.isalnum() or character in "-_~:")):
            return None
        pieces[index] = character
    # What the pattern left behind is a "%" that begins no escape; no part of a route may have one.
    decoded = "".join(pieces)
    return None if "%" in decoded else decoded
