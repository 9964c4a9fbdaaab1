"""For how long things are believed: the `[policy]` of the configuration, and what a registry says otherwise."""

from dataclasses import dataclass

from entrepot.registry.catalogue import Registry


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, each the default for registries that say nothing else."""

    tag: float = 60.0
    access: float = 300.0
    prefetch: bool = True  # the other layers of an image are fetched when a client asks for the first one

    def tag_ttl(self, registry: Registry) -> float:
        """How long a tag is served from its record without asking."""
        return self.tag if registry.tag_ttl is None else registry.tag_ttl

    def access_ttl(self, registry: Registry) -> float:
        """How long a registry's yes to a credential stands."""
        return self.access if registry.access_ttl is None else registry.access_ttl
