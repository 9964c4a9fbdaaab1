"""For how long things are believed and how much is fetched: what of the configuration the engine goes by.

What a registry says otherwise is in the `Registry` of the catalogue.
"""

from dataclasses import dataclass

from entrepot.registry.catalogue import Registry


@dataclass(frozen=True, slots=True)
class Policy:
    """Each value the default for registries that say nothing else."""

    tag: float = 60.0  # seconds
    access: float = 300.0  # seconds
    public: float = 86400.0  # seconds
    grace: float = 7 * 86400.0  # seconds
    prefetch: bool = True  # the other layers of an image are fetched when a client asks for the first one
    attempts: int = 5  # in a row without a byte, before a transfer ends
    bandwidth: int = 0  # bytes of blobs per second from all registries together, for the box; 0 for no cap
    workers: int = 1  # processes that divide `bandwidth` evenly, and what a registry says of its own

    def tag_ttl(self, registry: Registry) -> float:
        """How long a tag is served from its record without asking."""
        return self.tag if registry.tag_ttl is None else registry.tag_ttl

    def access_ttl(self, registry: Registry) -> float:
        """How long a registry's yes to a credential stands."""
        return self.access if registry.access_ttl is None else registry.access_ttl

    def public_ttl(self, registry: Registry) -> float:
        """How long it counts that anyone may pull a repository."""
        return self.public if registry.public_ttl is None else registry.public_ttl

    def outage_grace(self, registry: Registry) -> float:
        """For how long, while a registry cannot be asked, its last yes stands."""
        return self.grace if registry.outage_grace is None else registry.outage_grace
