"""The configuration as values: one frozen dataclass per section, one field per key.

A key is declared once, here, with its default and its kind; the parser, the environment overrides, the rendering and
the test of the documented example all go by these declarations. Adding a key: a field here, its lines in the example
`entrepot.toml`, its use. Units: sizes are bytes or a `Share`, durations seconds, `None` means not set.
"""
# ruff: noqa: RUF009  # `setting` is a field() in all but name: the default it holds is never shared

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from entrepot.config import kinds
from entrepot.config.kinds import Kind, kind_of, list_kind, nonempty, optional, or_empty, or_word, setting
from entrepot.config.registries import CREDENTIALS, Credentials
from entrepot.config.values import Endpoint, Network, Share, Size

STATE: Final = Path("/var/lib/entrepot")
_AUTO_ENDPOINTS: Final = nonempty(list_kind(or_word("auto", kinds.ENDPOINT)))
_PREFETCH: Final = kinds.enum_kind("off", "layers", "tags")
_HISTORY: Final = kinds.int_kind(1, 10_000, "a whole number from 1 to 10000")
_NEW_TAGS: Final = kinds.enum_kind("track", "hold")
_IMAGES: Final = list_kind(kinds.IMAGES)
_AUDIENCE: Final = kinds.enum_kind("loopback", "allowed", "nobody")
_SHARE: Final = kinds.enum_kind("off", "public")


@dataclass(frozen=True, slots=True)
class Listen:
    """What the box listens on. A port of 0 is off."""

    address: tuple[str, ...] = setting(("0.0.0.0", "::"), nonempty(list_kind(kinds.ADDRESS)))  # noqa: S104
    https: int = setting(443, kinds.PORT)
    dns: int = setting(53, kinds.PORT)
    proxy: int = setting(3128, kinds.PORT)
    web: int = setting(8080, kinds.PORT)
    workers: int = setting(0, kinds.int_kind(0, 256, "a whole number from 1 to 256, or 0 for one per core"))
    drain: float = setting(30.0, kinds.duration_kind(high=3600.0))


@dataclass(frozen=True, slots=True)
class Advertise:
    """What DNS answers with: addresses, or "auto", the local address the query came in on."""

    addresses: tuple[str, ...] = setting(("auto",), nonempty(list_kind(or_word("auto", kinds.ADDRESS))))


@dataclass(frozen=True, slots=True)
class Dns:
    """The responder."""

    upstream: tuple[Endpoint | str, ...] = setting(("auto",), _AUTO_ENDPOINTS)
    allow: tuple[Network | str, ...] = setting(("private",), nonempty(list_kind(kinds.NETWORK)))
    ttl: float = setting(30.0, kinds.duration_kind(high=86400.0))
    fail_open: bool = setting(True, kinds.BOOL)
    drain: float = setting(1.0, kinds.duration_kind(high=3600.0))
    """How long DNS steps aside before the box stops."""


@dataclass(frozen=True, slots=True)
class Certs:
    """The authority and its leaves."""

    path: Path = setting(STATE / "ca", kinds.PATH)
    leaf_days: int = setting(7, kinds.int_kind(1, 365, "a whole number of days from 1 to 365"))


@dataclass(frozen=True, slots=True)
class Store:
    """What is held, and how much of it."""

    path: Path = setting(STATE, kinds.PATH)
    size: Size = setting(100 * 1024**3, kinds.SOME_SIZE)
    min_free: Size = setting(Share(5.0), kinds.SIZE)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long answers count. Also what a registry's own table may override."""

    tag_ttl: float = setting(60.0, kinds.LIFETIME)
    tag_ttls: tuple[tuple[str, float], ...] = setting((), kinds.TAG_TTLS)
    """By pattern of REGISTRY/REPOSITORY:TAG; the first that fits counts, whatever `tag_ttl` is."""
    stale_while_revalidate: float = setting(0.0, kinds.DURATION)
    access_ttl: float = setting(300.0, kinds.DURATION)
    public_ttl: float = setting(86400.0, kinds.DURATION)
    outage_grace: float = setting(7 * 86400.0, kinds.DURATION)
    prefetch: str = setting("layers", _PREFETCH)
    history: int = setting(100, _HISTORY)
    """Moves that are remembered of a tag."""
    new_tags: str = setting("track", _NEW_TAGS)
    cooldown: float = setting(0.0, kinds.DURATION)
    """How long a move of a tag waits before clients get it."""
    allow: tuple[str, ...] = setting((), _IMAGES)
    """Patterns of what alone may be pulled; none = everything."""
    deny: tuple[str, ...] = setting((), _IMAGES)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The way to the registries."""

    resolvers: tuple[Endpoint | str, ...] = setting(("auto",), _AUTO_ENDPOINTS)
    connect_timeout: float = setting(5.0, kinds.duration_kind(low=0.1, high=600.0))
    read_timeout: float = setting(30.0, kinds.duration_kind(low=0.1, high=3600.0))
    attempts: int = setting(5, kinds.int_kind(1, 100, "a whole number from 1 to 100"))
    connections: int = setting(8, kinds.int_kind(1, 256, "a whole number from 1 to 256"))
    bandwidth: int = setting(0, kinds.RATE)
    """Bytes per second over all transfers; 0 = no limit."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """The registry of our own."""

    name: str | None = setting(None, or_empty(kinds.HOST))
    """None = off."""


@dataclass(frozen=True, slots=True)
class Web:
    """The status page and the admin API."""

    admin_token_file: Path | None = setting(None, or_empty(kinds.PATH))
    allow: tuple[Network | str, ...] = setting(("private",), nonempty(list_kind(kinds.NETWORK)))
    hosts: tuple[str, ...] = setting((), list_kind(kinds.HOST))
    """Names this box goes by, besides its addresses and its own host name."""
    private_images: str = setting("loopback", _AUDIENCE)
    """Who is shown the names of images that are not known to be public."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is written to stderr, and how."""

    level: str = setting("info", kinds.enum_kind("debug", "info", "warning", "error"))
    format: str = setting("console", kinds.enum_kind("console", "json"))


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """`[registries."name"]`: None where the built-in catalogue, or [policy], has the say."""

    name: str
    """As in image names: quay.io, registry.example:5000; or a family, *.azurecr.io."""
    hosts: tuple[str, ...] | None = optional(nonempty(list_kind(kinds.HOST)))
    token_hosts: tuple[str, ...] | None = optional(list_kind(kinds.HOST))
    upstream: str | None = optional(kinds.URL)
    ca: tuple[Path, ...] | None = optional(list_kind(kinds.PATH))
    credentials: Credentials | None = optional(CREDENTIALS)
    """Where the box's own are."""
    share: str | None = optional(_SHARE)
    """Whom they serve besides: "public" = anonymous clients, of what is known to be public."""
    tag_ttl: float | None = optional(kinds.LIFETIME)
    tag_ttls: tuple[tuple[str, float], ...] | None = optional(kinds.TAG_TTLS)
    stale_while_revalidate: float | None = optional(kinds.DURATION)
    access_ttl: float | None = optional(kinds.DURATION)
    public_ttl: float | None = optional(kinds.DURATION)
    outage_grace: float | None = optional(kinds.DURATION)
    prefetch: str | None = optional(_PREFETCH)
    history: int | None = optional(_HISTORY)
    new_tags: str | None = optional(_NEW_TAGS)
    cooldown: float | None = optional(kinds.DURATION)
    allow: tuple[str, ...] | None = optional(_IMAGES)
    deny: tuple[str, ...] | None = optional(_IMAGES)
    bandwidth: int | None = optional(kinds.RATE)
    """Bytes per second over all transfers from it, within [upstream] bandwidth; 0 = no limit of its own."""

    def policy(self, base: Policy) -> Policy:
        """`base` with what this registry overrides."""
        own = {key: getattr(self, key) for key in kinds_of(Policy)}
        return replace(base, **{key: value for key, value in own.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `Config()` is what runs without any file."""

    listen: Listen = field(default_factory=Listen)
    advertise: Advertise = field(default_factory=Advertise)
    dns: Dns = field(default_factory=Dns)
    certs: Certs = field(default_factory=Certs)
    store: Store = field(default_factory=Store)
    policy: Policy = field(default_factory=Policy)
    upstream: Upstream = field(default_factory=Upstream)
    hosted: Hosted = field(default_factory=Hosted)
    web: Web = field(default_factory=Web)
    log: Log = field(default_factory=Log)
    registries: tuple[RegistryEntry, ...] = ()

    def policy_for(self, registry: str) -> Policy:
        """[policy] with the overrides of the registry of that name, if it has an entry."""
        entry = next((entry for entry in self.registries if entry.name == registry), None)
        return self.policy if entry is None else entry.policy(self.policy)

    def to_json(self) -> dict[str, object]:
        """The configuration as the TOML document that says all of it; of JSON types only, for another process."""
        document: dict[str, object] = {name: dict(rendered(getattr(self, name))) for name in SECTIONS}
        document["registries"] = {entry.name: dict(rendered(entry)) for entry in self.registries}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Config":
        """The inverse of `to_json`. Raises `ConfigError`."""
        from entrepot.config.build import from_document  # noqa: PLC0415  # it builds on this module

        return from_document(document)


SECTIONS: Final[Mapping[str, type[Any]]] = {
    "listen": Listen,
    "advertise": Advertise,
    "dns": Dns,
    "certs": Certs,
    "store": Store,
    "policy": Policy,
    "upstream": Upstream,
    "hosted": Hosted,
    "web": Web,
    "log": Log,
}
"""The plain sections, in the order they are shown."""


def kinds_of(section: type[Any]) -> dict[str, Kind[Any]]:
    """The keys of a section and the kind of each."""
    return {item.name: kind_of(item.metadata) for item in fields(section) if "kind" in item.metadata}


def rendered(section: object) -> Iterator[tuple[str, object]]:
    """The keys of a section with their values as TOML has them; keys that are not set are left out."""
    for key, kind in kinds_of(type(section)).items():
        # A default of None is "absent" for a registry's key; for a plain key None has a text of its own ("").
        if (value := getattr(section, key)) is not None or not isinstance(section, RegistryEntry):
            yield key, kind.render(value)
