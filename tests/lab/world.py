"""The lab's Internet as data: who has which address, which registries there are and how each of them behaves.

Nothing here acts. `net` makes the machines, `upstream` starts the servers, `front` plays them.

    clients 10.91.1.0/24 -- [cache 10.91.1.1 | 10.91.2.1] -- 10.91.2.0/24 upstream

The cache's machine is the only way from the clients to the upstream, and it does not route for them (see `net`), so
whatever reaches a client came out of the cache. Real names are used throughout; none of them leaves the machines.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

CACHE = "10.91.1.1"
CACHE_SECOND = "10.91.1.2"
"""A second address of the cache's machine, for tests that start and stop an Entrepot of their own."""
CACHE_UPSTREAM_SIDE = "10.91.2.1"
UPSTREAM_DNS = "10.91.2.2"
BUILDER = "10.91.1.11"
LAPTOP = "10.91.1.12"
DIRECT = "10.91.1.21"
"""The one client the cache's machine does route for: it shows that the lab works without Entrepot."""

OUTSIDE = "www.example.net"
"""A name that is in no catalogue. Clients are routed to it, and to no other upstream address."""
TAG = "1"
FRONT_PORT = 8000
USER, PASSWORD = "user", "secret"
ALICE, BOB = "alice", "bob"
ALICE_FIRST, ALICE_LATER = "alice-Nx7 pw/1+first", "alice-Qz4 pw/2+later"
BOBS = "bob-Vt9%pw&3=only"
PASSWORDS: Mapping[str, str] = {USER: PASSWORD, ALICE: ALICE_FIRST, BOB: BOBS}
"""Whom all registries know at first, see `Upstream.password`."""
# bcrypt at the lowest cost, so that neither Apache's tools nor a bcrypt library is needed here.
BCRYPT: Mapping[str, str] = {
    PASSWORD: "$2b$04$epLjFOWDhoUXBmCJw1zT/eNKl5ySmLqHi68wYfd.J2s3VNtrbmXJG",
    ALICE_FIRST: "$2b$04$nxsd/wmGjF9cgsFCOy8OAON2JczMMpSIyOjajxW/ryYQWUyEGG2dC",
    ALICE_LATER: "$2b$04$IJTp3Drb3Ukn9bJnG/M3hO3/OTWxnzzx1YE6JzGguSuQLKYq9v8m.",
    BOBS: "$2b$04$vOhmr5XSBYxpM47UHZ2xOOCl5HBZK1bOTQMKljSkImgsBI6trP.Ua",
}


@dataclass(frozen=True, slots=True)
class TokenService:
    """Where a registry sends its clients for a token, and what it wants to read in it."""

    host: str
    path: str
    service: str


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry: a real docker-registry behind `hosts`, dressed up by `front` to behave like the real one."""

    name: str  # as image references say it
    host: str  # where its API answers
    port: int  # of its docker-registry, on loopback
    prefix: str  # first component of its repositories
    auth: TokenService | Literal["basic"] | None
    aliases: tuple[str, ...] = ()
    cdn: str | None = None  # blobs are redirected there
    redirect: int = 307
    cdn_refuses_authorization: bool = False  # as S3 and Azure do next to a signed query


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of one registry."""

    registry: Registry
    path: str  # with the prefix, as in API paths

    @property
    def image(self) -> str:
        """What a user types to pull from it."""
        return f"{self.registry.name}/{self.path}:{TAG}"

    @property
    def host(self) -> str:
        return self.registry.host

    def target(self, rest: str) -> str:
        """The API's path for a part of it: `manifests/1`, `blobs/sha256:...`."""
        return f"/v2/{self.path}/{rest}"


def new_repository(registry: Registry, *, private: bool = False, owner: str = USER) -> Repository:
    """One that was never used: tests do not meet, in whatever order and however often they run."""
    kind = f"private-{owner}" if private else "app"
    return Repository(registry, f"{registry.prefix}/{kind}-{os.urandom(6).hex()}")


def owner(path: str) -> str | None:
    """Who alone may read it; None: everybody whom its registry lets in."""
    named = re.fullmatch(r"(?:.*/)?private-([a-z]+)-[0-9a-f]+", path)
    return named[1] if named else None


DOCKER_HUB = Registry(
    "docker.io",
    "registry-1.docker.io",
    5101,
    "library",
    TokenService("auth.docker.io", "/token", "registry.docker.io"),
    aliases=("index.docker.io", "docker.io"),
    cdn="production.cloudflare.docker.com",
)
QUAY = Registry(
    "quay.io",
    "quay.io",
    5102,
    "org",
    TokenService("quay.io", "/v2/auth", "quay.io"),
    # A name below quay.io: most clients written in Go send it the token meant for quay.io, so it must not mind one.
    cdn="cdn01.quay.io",
    redirect=302,
)
GHCR = Registry(
    "ghcr.io",
    "ghcr.io",
    5103,
    "org",
    TokenService("ghcr.io", "/token", "ghcr.io"),
    cdn="pkg-containers.githubusercontent.com",
    cdn_refuses_authorization=True,
)
GITLAB = Registry(
    "registry.gitlab.com",
    "registry.gitlab.com",
    5104,
    "group",
    TokenService("gitlab.com", "/jwt/auth", "container_registry"),
    cdn="cdn.registry.gitlab-static.net",
    cdn_refuses_authorization=True,
)
MICROSOFT = Registry("mcr.microsoft.com", "mcr.microsoft.com", 5105, "org", None)
BASIC = Registry("registry.example.com", "registry.example.com", 5106, "team", "basic")

REGISTRIES = (DOCKER_HUB, QUAY, GHCR, GITLAB, MICROSOFT, BASIC)


def hosts() -> Iterator[tuple[str, Registry | None]]:
    """Every name of the upstream once, with the registry whose API answers there, if one does."""
    seen = set()
    for registry in REGISTRIES:
        for name in (registry.host, *registry.aliases):
            seen.add(name)
            yield name, registry
    for registry in REGISTRIES:
        token = registry.auth.host if isinstance(registry.auth, TokenService) else None
        for other in (token, registry.cdn):
            if other is not None and other not in seen:
                seen.add(other)
                yield other, None
    yield OUTSIDE, None


def addresses() -> dict[str, str]:
    """Name to address; every name has one of its own, as if they were different companies."""
    return {name: f"10.91.2.{number}" for number, (name, _) in enumerate(hosts(), start=10)}
