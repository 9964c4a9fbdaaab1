"""The catalogue as configured: the built-in registries with the user's entries on top.

Apart from the rest of the room, because reading the catalogue costs time that the start of the supervisor does not
have. Of credentials the catalogue takes where they are; nobody reads them here.
"""

from collections.abc import Iterable

from entrepot.config.model import Config, RegistryEntry
from entrepot.registry.catalogue import Catalogue, RegistryOverride


def overrides(entries: Iterable[RegistryEntry]) -> list[RegistryOverride]:
    """The entries in the catalogue's terms."""
    return [
        RegistryOverride(
            name=entry.name,
            hosts=entry.hosts,
            token_hosts=entry.token_hosts,
            upstream=entry.upstream,
            ca=entry.ca,
            tag_ttl=entry.tag_ttl,
            tag_ttls=entry.tag_ttls,
            stale_while_revalidate=entry.stale_while_revalidate,
            access_ttl=entry.access_ttl,
            public_ttl=entry.public_ttl,
            outage_grace=entry.outage_grace,
            prefetch=entry.prefetch,
            history=entry.history,
            new_tags=entry.new_tags,
            cooldown=entry.cooldown,
            allow=entry.allow,
            deny=entry.deny,
            bandwidth=entry.bandwidth,
            credentials=entry.credentials,
            share=entry.share,
        )
        for entry in entries
    ]


def catalogue(config: Config) -> Catalogue:
    """Every registry there is under `config`. Raises `entrepot.registry.catalogue.InvalidRegistry`."""
    return Catalogue.builtin().with_overrides(overrides(config.registries))


def subtrees(config: Config) -> list[str]:
    """The DNS subtrees a certificate authority must be permitted to sign for under `config`."""
    hosted = [] if config.hosted.name is None else [config.hosted.name]
    return [*catalogue(config).permitted_subtrees(), *hosted]
