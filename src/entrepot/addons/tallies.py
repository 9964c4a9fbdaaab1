"""Under which name a request is counted: by registry, verdict and kind.

There must not be many names: registries beyond the catalogue's own (`*.azurecr.io` may be any number) are `other`.
"""

from entrepot.counters import labelled
from entrepot.registry.catalogue import Catalogue
from entrepot.registry.routes import BlobRoute, ManifestRoute, Ping, ReferrersRoute, Route, TagsRoute, TokenRoute

OTHER = "other"
KINDS: dict[type, str] = {
    ManifestRoute: "manifest",
    BlobRoute: "blob",
    TagsRoute: "list",
    ReferrersRoute: "list",
    Ping: "ping",
    TokenRoute: "token",
}


class Tallies:
    """The names of counts of one catalogue, made once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._registries = {registry.name for registry in catalogue.registries()}
        self._made: dict[tuple[str, str, type], str] = {}

    def __call__(self, registry: str, verdict: str, route: Route | None) -> str:
        """The name; `registry` is "" for a host that is no registry's any more."""
        known = registry if registry in self._registries else OTHER
        key = known, verdict, type(route)
        if (name := self._made.get(key)) is None:
            kind = KINDS.get(type(route), OTHER)
            name = self._made[key] = labelled("requests", registry=known, verdict=verdict, kind=kind)
        return name
