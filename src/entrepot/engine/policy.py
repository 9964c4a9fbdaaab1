"""For how long things are believed and how much is fetched: what of the configuration the engine goes by.

What a registry says otherwise is in the `Registry` of the catalogue.
"""

from dataclasses import dataclass

from entrepot.engine.patterns import matcher
from entrepot.registry.catalogue import Registry


@dataclass(frozen=True, slots=True)
class Policy:
    """Each value the default for registries that say nothing else."""

    tag: float = 60.0  # seconds
    tags: tuple[tuple[str, float], ...] = ()  # the same for REGISTRY/REPOSITORY:TAG by pattern, the first counts
    stale: float = 0.0  # seconds beyond, in which a tag is served at once while it is checked
    access: float = 300.0  # seconds
    public: float = 86400.0  # seconds
    grace: float = 7 * 86400.0  # seconds
    prefetch: bool = True  # the other layers of an image are fetched when a client asks for the first one
    history: int = 100  # moves that are remembered of a tag
    new: str = "track"  # what becomes of a tag that is seen for the first time; "hold": it stays what it is
    cooldown: float = 0.0  # seconds that a tag stays what it was after upstream was first seen to have moved it
    allow: tuple[str, ...] = ()  # patterns of what may be pulled; none: everything
    deny: tuple[str, ...] = ()  # patterns of what may not
    attempts: int = 5  # in a row without a byte, before a transfer ends
    bandwidth: int = 0  # bytes of blobs per second from all registries together, for the box; 0 for no cap
    workers: int = 1  # processes that divide the caps when the one that fetches is away

    def tag_ttl(self, registry: Registry, repository: str, tag: str) -> float:
        """How long a tag is served from its record without asking."""
        if patterns := (self.tags if registry.tag_ttls is None else registry.tag_ttls):
            name = f"{registry.name}/{repository}:{tag}"
            for pattern, ttl in patterns:
                if matcher(pattern).fullmatch(name):
                    return ttl
        return self.tag if registry.tag_ttl is None else registry.tag_ttl

    def stale_while(self, registry: Registry) -> float:
        """For how long beyond that it is served at once while it is checked."""
        return self.stale if registry.stale_while_revalidate is None else registry.stale_while_revalidate

    def prefetches(self, registry: Registry) -> bool:
        """Whether layers of this registry are fetched ahead of need."""
        return self.prefetch if registry.prefetch is None else registry.prefetch != "off"

    def access_ttl(self, registry: Registry) -> float:
        """How long a registry's yes to a credential stands."""
        return self.access if registry.access_ttl is None else registry.access_ttl

    def public_ttl(self, registry: Registry) -> float:
        """How long it counts that anyone may pull a repository."""
        return self.public if registry.public_ttl is None else registry.public_ttl

    def outage_grace(self, registry: Registry) -> float:
        """For how long, while a registry cannot be asked, its last yes stands."""
        return self.grace if registry.outage_grace is None else registry.outage_grace

    def history_of(self, registry: Registry) -> int:
        """How many moves of a tag are remembered."""
        return self.history if registry.history is None else registry.history

    def holds_new(self, registry: Registry) -> bool:
        """Whether a tag is held as it is first seen."""
        return (self.new if registry.new_tags is None else registry.new_tags) == "hold"

    def cooldown_of(self, registry: Registry) -> float:
        """How long a move of a tag waits before clients get it."""
        return self.cooldown if registry.cooldown is None else registry.cooldown

    def allowed(self, registry: Registry) -> tuple[str, ...]:
        """Patterns of what alone may be pulled; none: everything."""
        return self.allow if registry.allow is None else registry.allow

    def denied(self, registry: Registry) -> tuple[str, ...]:
        """Patterns of what may not be pulled."""
        return self.deny if registry.deny is None else registry.deny
