"""The catalogue: which host names are registries, and how each is treated.

Answers "is this name one of ours?" for DNS, TLS and the engine alike, from dictionaries, in time that grows
with the labels of the name only. Does not resolve, connect or decide on access. A catalogue never changes:
a user's entries make a new one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from entrepot.registry.catalogue_file import read_builtin
from entrepot.registry.entries import (
    Family,
    HostMatch,
    InvalidRegistry,
    Registry,
    RegistryOverride,
    check_host,
    check_name,
    check_upstream,
    family,
)

__all__ = ["Catalogue", "HostMatch", "InvalidRegistry", "Registry", "RegistryOverride"]

# Characters; RFC 1035 2.3.4 as text. What is longer is no name.
_MAX_HOST = 253
# Matches of family hosts remembered. A network uses a handful; the bound is for a client that makes names up.
_REMEMBERED = 1024
_POLICY = (
    "tag_ttl",
    "tag_ttls",
    "stale_while_revalidate",
    "access_ttl",
    "public_ttl",
    "outage_grace",
    "prefetch",
    "history",
    "new_tags",
    "cooldown",
    "allow",
    "deny",
    "bandwidth",
    "credentials",
    "share",
)


class Catalogue:
    """A set of registries and families. Build it with `builtin` and `with_overrides`."""

    __slots__ = ("_by_name", "_exact", "_families", "_made", "_reasons", "_suffixes")

    def __init__(
        self,
        registries: Iterable[Registry],
        families: Iterable[Family] = (),
        token_host_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """Raises `InvalidRegistry` when two entries claim one name."""
        self._by_name: dict[str, Registry] = {}
        self._exact: dict[str, HostMatch] = {}
        self._suffixes: dict[str, dict[int, Family]] = {}
        self._families = tuple(families)
        self._reasons = dict(token_host_reasons or {})
        self._made: dict[str, HostMatch] = {}
        for registry in registries:
            self._add(registry)
        for one in self._families:
            if self._suffixes.setdefault(one.suffix, {}).setdefault(one.stars, one) is not one:
                raise InvalidRegistry(f"two families of hosts are called {one.pattern!r}; keep one of them")

    @classmethod
    def builtin(cls) -> "Catalogue":
        """The registries known to this version."""
        file = read_builtin()
        return cls(file.registries, file.families, file.token_host_reasons)

    def with_overrides(self, overrides: Sequence[RegistryOverride]) -> "Catalogue":
        """A catalogue with a user's entries on top, in whatever order they come; raises `InvalidRegistry`.

        An entry may name a registry, a family by its pattern (for its policy), one host of a family, or
        something new.
        """
        families = {one.pattern: one for one in self._families}
        for entry in overrides:
            if "*" in entry.name:
                families[entry.name.lower()] = _overridden_family(families.get(entry.name.lower()), entry)
        registries = dict(self._by_name)
        base = Catalogue(registries.values(), families.values())
        for entry in overrides:
            if "*" not in entry.name:
                name = check_name(entry.name)
                registries[name] = _overridden(base._known(name) or _new(name, entry), entry)
        return Catalogue(registries.values(), families.values(), self._reasons)

    def _known(self, name: str) -> Registry | None:
        """The registry of this name, from a family if need be; raises `InvalidRegistry` for another name of one."""
        found = self._by_name.get(name)
        if found is None and (matched := self.match(name)) is not None:
            found = matched.registry
            if found.name != name:
                raise InvalidRegistry(f"{name!r} is a host of {found.name!r}; name the entry that")
        return found

    def match(self, host: str) -> HostMatch | None:
        """What `host` (a name without port) is in this catalogue, if anything."""
        found = self._exact.get(host) or self._made.get(host)
        if found is not None:
            return found
        if len(host) > _MAX_HOST + 1 or not host.isascii():
            return None
        name = host.lower().removesuffix(".")
        return self._exact.get(name) or self._made.get(name) or self._in_family(name)

    def registry(self, name: str) -> Registry | None:
        """The registry that images are called by, as in `ImageReference.registry`: may have a port."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        matched = self.match(name)
        return matched.registry if matched is not None and matched.role == "api" else None

    def names(self) -> list[str]:
        """Every exact name that is intercepted, token hosts included."""
        return sorted(self._exact)

    def families(self) -> list[str]:
        """The patterns of names that are intercepted; a star is exactly one label."""
        return sorted(one.pattern for one in self._families)

    def permitted_subtrees(self) -> list[str]:
        """The DNS subtrees a certificate authority must be permitted to sign for, to cover all of this."""
        return sorted({*self._exact, *(name for one in self._families for name in one.subtrees())})

    def registries(self) -> list[Registry]:
        """The registries with names of their own, by name; those of a family appear when they are asked for."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def token_host_reasons(self) -> Mapping[str, str]:
        """Why each built-in token host is intercepted although it is no registry."""
        return {host: self._reasons[host] for host in sorted(self._reasons) if host in self._exact}

    def _add(self, registry: Registry) -> None:
        if self._by_name.setdefault(registry.name, registry) is not registry:
            raise InvalidRegistry(f"two registries are called {registry.name!r}; keep one of them")
        for host in registry.hosts:
            self._claim(HostMatch(registry, host, "api"))
        for host in registry.token_hosts:
            self._claim(HostMatch(registry, host, "token"))

    def _claim(self, match: HostMatch) -> None:
        taken = self._exact.setdefault(match.host, match)
        if taken is not match:
            raise InvalidRegistry(
                f"host {match.host!r} is claimed by {taken.registry.name!r} and by {match.registry.name!r}; "
                "leave it to one of them"
            )

    def _in_family(self, name: str) -> HostMatch | None:
        """Looks each ending of the name up, so that the cost is one look-up a label."""
        first, _, rest = name.partition(".")
        stars, suffix = 1, rest
        while suffix:
            found = self._suffixes.get(suffix)
            if found is not None and (one := found.get(stars)) is not None and one.takes(first):
                return self._make(one, name)
            suffix = suffix.partition(".")[2]
            stars += 1
        return None

    def _make(self, one: Family, name: str) -> HostMatch | None:
        try:
            check_host(name)
        except InvalidRegistry:
            return None
        registry = replace(one.model, name=name, hosts=(name,), upstream=f"https://{name}")
        if len(self._made) >= _REMEMBERED:
            self._made.clear()
        return self._made.setdefault(name, HostMatch(registry, name, "api"))


def _new(name: str, entry: RegistryOverride) -> Registry:
    """A registry that only the user knows: intercepted by its name, reached by name and port."""
    hosts = () if entry.hosts is not None else (check_host(name.partition(":")[0]),)
    return Registry(name, hosts, (), check_upstream(f"https://{name}"))


def _overridden(base: Registry, entry: RegistryOverride) -> Registry:
    registry = _with_policy(base, entry)
    if entry.hosts is not None:
        registry = replace(registry, hosts=tuple(check_host(host) for host in entry.hosts))
    if entry.token_hosts is not None:
        registry = replace(registry, token_hosts=tuple(check_host(host) for host in entry.token_hosts))
    if entry.upstream is not None:
        registry = replace(registry, upstream=check_upstream(entry.upstream))
    return registry


def _overridden_family(known: Family | None, entry: RegistryOverride) -> Family:
    pattern = entry.name.lower()
    if entry.hosts is not None or entry.token_hosts is not None or entry.upstream is not None:
        raise InvalidRegistry(f"{pattern!r} is a family, each host its own upstream; leave hosts and upstream out")
    if known is None:
        return family(pattern, _with_policy(Registry("", (), (), "", family=pattern), entry))
    return replace(known, model=_with_policy(known.model, entry))


def _with_policy(base: Registry, entry: RegistryOverride) -> Registry:
    chosen = {key: value for key in _POLICY if (value := getattr(entry, key)) is not None}
    ca = base.ca if entry.ca is None else entry.ca
    return replace(base, ca=ca, **chosen)
