"""The next request of a redirect, as a function of the last one and its answer. Pure.

Decides where a `Location` leads, whether to go there and with which header fields. Leaves to the client to go,
and to count the addresses that are our own.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from entrepot.headers import Headers
from entrepot.upstream.errors import BadRedirect

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
BOUND_TO_ORIGIN: Final = ("authorization", "cookie")
"""Fields given to one origin, never to another. `Proxy-Authorization` is stripped with the hop-by-hop ones."""

_PORTS: Final = {"http": 80, "https": 443}
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\uffff\U00010000-\U0010ffff\"<>\\^`{|}]")
"""What no URL on the wire may hold; real `Location` values do, so these are escaped rather than refused."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request to send: what, where, with which fields."""

    method: str
    url: str
    headers: Headers


def next_step(last: Step, location: str | None, *, allow_http: bool) -> Step:
    """The request a redirect asks for. Any 3xx of `REDIRECTS` keeps GET and HEAD as they are.

    `allow_http`: the registry itself is configured with `http://`, so no security is lost by staying there.
    Raises BadRedirect for a missing or broken target, another scheme, or a step down from https.
    """
    host = host_of(last.url)
    if location is None or not (reference := location.strip()):
        raise BadRedirect(host, "redirect without a location")
    try:
        target = http_url(urljoin(last.url, _escape(reference)))
    except ValueError:
        raise BadRedirect(host, "redirect to something that is not an http url") from None
    if target.scheme == "http" and not allow_http:
        raise BadRedirect(host, f"redirect from https down to http at {target.hostname}")
    url = urlunsplit((target.scheme, target.netloc.rpartition("@")[2], target.path or "/", target.query, ""))
    same = origin(urlsplit(url)) == origin(urlsplit(last.url))
    return Step(last.method, url, last.headers if same else last.headers.without(*BOUND_TO_ORIGIN))


def http_url(url: str) -> SplitResult:
    """The parts of a URL that can be asked for. Raises ValueError, which quotes nothing, for any other."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _UNSAFE.search(url):
        raise ValueError("not a usable http url")
    return parts


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Scheme, host, port: what a credential is good for."""
    return url.scheme, (url.hostname or "").rstrip("."), url.port or _PORTS[url.scheme]


def host_of(url: str) -> str:
    """The host of a URL with its port when there is one, for messages; never user, path or query."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "?"
    except ValueError:
        return "?"


def printable(url: str) -> str:
    """A URL that may be logged: without user and query, which may be credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _escape(reference: str) -> str:
    """Percent-encodes what may not stand in a URL and leaves existing escapes alone: signatures cover them."""
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode(errors="replace")), reference)
