"""The decision: a question in, a reply or "forward it" out. Pure: no socket, no clock.

Decides between our address, what a special name gets, a refusal and forwarding; `Responder` remembers decisions per
question and local address, so nothing here needs to be fast. Rules: see the package's docstring.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from entrepot.dns import codec
from entrepot.dns.wire import (
    CLASS_IN,
    FORMERR,
    REFUSED,
    TYPE_A,
    TYPE_AAAA,
    TYPE_ANY,
    TYPE_OPT,
    Query,
    Reply,
    host_name,
    read_labels,
)
from entrepot.dns.zones import Labels, special

_TRANSFERS: Final = frozenset(range(249, 255))  # TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: not for a forwarder
_ASIDE: Final = 30  # seconds at most that clients keep a real address, so that they come back soon
_LOCALHOST: Final = (b"localhost",)


@dataclass(frozen=True, slots=True)
class Policy:
    """What decisions depend on, besides the question and the local address."""

    intercepts: Callable[[str], bool]
    ttl: int  # seconds
    sick: bool  # fail_open is on and the cache is not healthy
    private_upstream: bool  # is there an upstream inside the site?


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply is known."""

    reply: Reply
    kind: Literal["intercepted", "special", "refused", "malformed"]


@dataclass(frozen=True, slots=True)
class Forward:
    """An upstream knows."""

    cap: int | None = None  # seconds no TTL may exceed: the name is ours while the cache is well
    private_only: bool = False  # the question means nothing outside the site


type Decision = Answered | Forward


def decide(query: Query, v4: tuple[str, ...], v6: tuple[str, ...], policy: Policy) -> Decision:
    """What `query` gets from who would answer with these addresses. Letter case, ID and EDNS do not matter."""
    if query.rtype in (0, TYPE_OPT):
        return Answered(codec.failure(FORMERR), "malformed")
    if query.rclass != CLASS_IN or query.rtype in _TRANSFERS:
        return Answered(codec.failure(REFUSED), "refused")
    labels = read_labels(query.name)
    name = host_name(labels)
    if name is not None and policy.intercepts(name):
        if policy.sick:
            return Forward(cap=min(policy.ttl, _ASIDE))
        return Answered(_ours(query, labels, v4, v6, policy.ttl), "intercepted")
    return _special(query, labels, policy) or Forward()


def _ours(query: Query, labels: Labels, v4: tuple[str, ...], v6: tuple[str, ...], ttl: int) -> Reply:
    if query.rtype == TYPE_ANY:
        return codec.minimal_any(query.name, ttl)
    values = {TYPE_A: v4, TYPE_AAAA: v6}.get(query.rtype, ())
    if values:
        return codec.addresses(query.name, query.rtype, values, ttl)
    return codec.no_data(query.name, labels, ttl)


def _special(query: Query, labels: Labels, policy: Policy) -> Decision | None:
    found = special(labels, query.rtype)
    if found is None:
        return None
    name, ttl = query.name, policy.ttl
    match found.what:
        case "addresses":
            reply = codec.addresses(name, query.rtype, found.values, ttl)
        case "localhost":
            reply = codec.pointer(name, _LOCALHOST, ttl)
        case "no_data":
            reply = codec.no_data(name, found.zone, ttl)
        case "no_name":
            reply = codec.no_name(name, found.zone, ttl)
        case "private":
            if policy.private_upstream:
                return Forward(private_only=True)
            reply = codec.no_name(name, found.zone, ttl)
        case _:
            assert_never(found.what)
    return Answered(reply, "special")
