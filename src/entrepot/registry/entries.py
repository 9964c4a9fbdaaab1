"""The entries of the catalogue: one registry, one family of registries, one user's entry.

Checks that host names and upstream addresses are such; how they are found is in `catalogue`, where the
built-in ones come from is in `catalogue_file`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from entrepot.errors import EntrepotError
from entrepot.registry.credentials import Credentials

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NETLOC = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?")

# What is special about a registry, for those who act on it. A quirk says what is so, not what to do.
HEAD_IS_FREE: Final = "head-is-free"  # HEAD of a manifest does not count against the pull quota
NO_CHALLENGE: Final = "no-challenge"  # pulls need no token, and none is offered
REDIRECTS_MANIFESTS: Final = "redirects-manifests"  # a manifest may be answered with a redirect too
RELATIVE_REDIRECTS: Final = "relative-redirects"  # Location has no host
BASIC_AUTH: Final = "basic-auth"  # challenges with Basic
FOREIGN_LAYERS: Final = "foreign-layers"  # some layers are elsewhere, by `urls`
FRONT: Final = "front"  # answers for, and sends on to, other registries
QUIRKS: Final = frozenset(
    {HEAD_IS_FREE, NO_CHALLENGE, REDIRECTS_MANIFESTS, RELATIVE_REDIRECTS, BASIC_AUTH, FOREIGN_LAYERS, FRONT}
)

type Role = Literal["api", "token"]


class InvalidRegistry(EntrepotError, ValueError):
    """An entry of the catalogue, ours or the user's, does not hold together."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as we treat it. Policy values are None where the general policy holds."""

    name: str  # what its images are called by: the host, with a port if it has one; "docker.io" for Docker Hub
    hosts: tuple[str, ...]  # names under which clients reach its API
    token_hosts: tuple[str, ...]  # further names, of token endpoints
    upstream: str  # where API requests go, whichever of `hosts` was asked: scheme and host
    ca: tuple[Path, ...] = ()  # files with further certificate authorities to trust for it
    tag_ttl: float | None = None  # seconds
    tag_ttls: tuple[tuple[str, float], ...] | None = None  # seconds, by pattern of REGISTRY/REPOSITORY:TAG
    stale_while_revalidate: float | None = None  # seconds
    access_ttl: float | None = None  # seconds
    public_ttl: float | None = None  # seconds
    outage_grace: float | None = None  # seconds
    prefetch: str | None = None  # "off", "layers" or "tags"
    history: int | None = None  # moves that are remembered of a tag
    new_tags: str | None = None  # "track" or "hold"
    cooldown: float | None = None  # seconds that a move of a tag waits
    allow: tuple[str, ...] | None = None  # patterns of REGISTRY/REPOSITORY[:TAG] that alone may be pulled
    deny: tuple[str, ...] | None = None  # patterns of what may not
    bandwidth: int | None = None  # bytes per second taken from it; None or 0 for no cap of its own
    credentials: Credentials | None = None  # where the box's own are; None: it has none
    share: str | None = None  # "public": anonymous clients get public content on the box's account; else "off"
    family: str | None = None  # pattern of the family it was made from, as in "*.azurecr.io"
    quirks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class HostMatch:
    """A host of the catalogue: whose it is, and what for."""

    registry: Registry
    host: str  # lower case, no trailing dot
    role: Role

    @property
    def origin(self) -> str:
        """Scheme and host of the real place behind the name, for what is not the registry's API.

        A registry known by several names (index.docker.io) has pages of its own behind each of them.
        """
        if self.role == "api":
            hosts = self.registry.hosts
            if self.host == hosts[0] or urlsplit(self.registry.upstream).hostname not in hosts:
                return self.registry.upstream
        return f"https://{self.host}"


@dataclass(frozen=True, slots=True)
class RegistryOverride:
    """A user's entry. None leaves what the catalogue has; a name it lacks makes a new registry."""

    name: str
    hosts: tuple[str, ...] | None = None
    token_hosts: tuple[str, ...] | None = None
    upstream: str | None = None
    ca: tuple[Path, ...] | None = None
    tag_ttl: float | None = None
    tag_ttls: tuple[tuple[str, float], ...] | None = None
    stale_while_revalidate: float | None = None
    access_ttl: float | None = None
    public_ttl: float | None = None
    outage_grace: float | None = None
    prefetch: str | None = None
    history: int | None = None
    new_tags: str | None = None
    cooldown: float | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    bandwidth: int | None = None
    credentials: Credentials | None = None
    share: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Registries that share a domain, one for each customer or region; each host is a registry of its own.

    A star stands for exactly one label, and stars come first: `*.azurecr.io` is `acme.azurecr.io` and not
    `a.b.azurecr.io`. `first` narrows the first label to a list, `label` to an expression.
    """

    pattern: str
    model: Registry  # what its registries have in common; name, hosts and upstream are set for each
    first: frozenset[str] | None = None
    label: re.Pattern[str] | None = None
    stars: int = 0
    suffix: str = ""

    def takes(self, first: str) -> bool:
        """Whether a host with this first label is a registry."""
        if self.first is not None:
            return first in self.first
        return self.label is None or self.label.fullmatch(first) is not None

    def subtrees(self) -> Sequence[str]:
        """The smallest set of DNS subtrees that holds all its hosts."""
        return [self.suffix] if self.first is None else [f"{first}.{self.suffix}" for first in sorted(self.first)]


def family(pattern: str, model: Registry, *, first: Sequence[str] = (), label: re.Pattern[str] | None = None) -> Family:
    """A family by its pattern; raises `InvalidRegistry`."""
    labels = pattern.split(".")
    stars = next((at for at, text in enumerate(labels) if text != "*"), len(labels))
    suffix = ".".join(labels[stars:])
    # A star over a top-level domain would have us stand in for everyone.
    if not stars or len(labels) - stars < 2 or "*" in suffix:
        raise InvalidRegistry(
            f"not a family of hosts: {pattern!r}; write leading stars and a domain, as in *.azurecr.io"
        )
    if first and stars > 1:
        raise InvalidRegistry(f"not a family of hosts: {pattern!r}; a list of first labels goes with one star")
    check_host(suffix)
    return Family(pattern, model, frozenset(first) or None, label, stars, suffix)


def check_host(text: str) -> str:
    """Gives a DNS name back in lower case, without trailing dot; raises `InvalidRegistry`."""
    host = text.lower().removesuffix(".")
    # Lower-casing can turn other alphabets into ASCII (the Kelvin sign becomes k), so it is not asked alone.
    if not text.isascii() or _HOST.fullmatch(host) is None or host.rpartition(".")[2].isdigit():
        raise InvalidRegistry(
            f"not a host name: {text[:260]!r}; write it as in registry.example, without scheme, port or path"
        )
    return host


def check_name(text: str) -> str:
    """Gives the name of a registry back in lower case: a host, with a port if need be; raises `InvalidRegistry`."""
    name = text.lower().removesuffix(".")
    if not text.isascii() or _NETLOC.fullmatch(name) is None:
        raise InvalidRegistry(
            f"not a registry: {text[:260]!r}; name it by its host, as in registry.example or registry.example:5000"
        )
    return name


def check_upstream(text: str) -> str:
    """Gives scheme and host of an upstream back; raises `InvalidRegistry`."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.lower()
        sound = text.isascii() and parts.scheme in {"http", "https"} and _NETLOC.fullmatch(host) is not None
        sound = sound and parts.path in {"", "/"} and not (parts.query or parts.fragment) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise InvalidRegistry(
            f"not an upstream: {text[:260]!r}; write scheme and host only, as in https://registry.example:5000"
        )
    return f"{parts.scheme}://{host}"
