"""Who may look, under which name, and what every answer says to browsers.

1. Only networks that are allowed; to others the page says nothing but that.
2. The name in `Host` has to be one of this box. Otherwise a web site anywhere could point a name of its own at us and
   have the browser of somebody inside read the page to it (DNS rebinding). An address needs no check: it is no name
   that anybody could point elsewhere.
3. Nothing is loaded from elsewhere, framed, sniffed or kept by caches.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from aiohttp import web

type Networks = Sequence[IPv4Network | IPv6Network] | Literal["any"]
type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "entrepot",
}
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+(%[a-z0-9._-]+)?\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_READING: Final = frozenset(("GET", "HEAD"))


def address_of(peer: str | None) -> IPv4Address | IPv6Address | None:
    """The client, as a plain IPv4 address where it is one in IPv6 clothes; None for what is no address."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def may_look(peer: str | None, allow: Networks) -> bool:
    """Whether this client may see anything."""
    if allow == "any":
        return True
    address = address_of(peer)
    return address is not None and any(address in network for network in allow)


def is_loopback(peer: str | None) -> bool:
    """Whether the client is on this box."""
    address = address_of(peer)
    return address is not None and address.is_loopback


def host_name(host: str) -> str:
    """The name or address in a `Host` field, without port, brackets, or the dot at the end; in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def is_ours(host: str, hosts: frozenset[str]) -> bool:
    """Whether a request under this `Host` can only come from somebody who meant this box."""
    if _HOST.fullmatch(host) is None:
        return False
    name = host_name(host)
    if name in hosts:
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def own_names(hostname: str, resolv_conf: str) -> frozenset[str]:
    """The names this box goes by: its host name, alone and below the search domains of its resolver."""
    domains: list[str] = []
    for line in resolv_conf.splitlines():
        match line.split():
            case ["search" | "domain", *found]:
                domains = found
            case _:
                continue
    name = hostname.lower().removesuffix(".")
    short = name.partition(".")[0]
    below = {f"{short}.{domain.lower().strip('.')}" for domain in domains if domain.strip(".")}
    return frozenset({"localhost", *filter(None, (name, short, f"{short}.local" if short else "")), *below})


def guarded(allow: Callable[[], Networks], hosts: Callable[[], frozenset[str]]) -> Callable[..., object]:
    """The middleware that every request passes first."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not may_look(request.remote, allow()):
            return _refusal(403, "this page is for other networks; see [web] allow in entrepot.toml")
        if not is_ours(request.headers.get("Host", ""), hosts()):
            return _refusal(421, "this box does not go by that name; use its address, or list the name in [web] hosts")
        if request.method not in _READING:
            return _refusal(405, "there is nothing to change here", Allow="GET, HEAD")
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            return _refusal(refusal.status, refusal.reason.lower())

    return guard


async def dress(request: web.Request, response: web.StreamResponse) -> None:
    """Puts the fields on that every answer has; a signal handler of aiohttp."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")


def _refusal(status: int, why: str, **fields: str) -> web.Response:
    return web.Response(status=status, text=f"entrepot: {why}\n", headers=fields)
