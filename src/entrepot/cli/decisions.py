"""What of the configuration decides about pulls, in the terms of the engine: for every process that has one."""

from entrepot.cli.addresses import expanded
from entrepot.cli.capacity import worker_count
from entrepot.config.model import Config
from entrepot.config.overrides import catalogue
from entrepot.engine.policy import Policy
from entrepot.registry.catalogue import Catalogue


def decisions(config: Config) -> tuple[Catalogue, Policy]:
    """What of a configuration may change while a process runs."""
    return catalogue(config), Policy(
        tag=config.policy.tag_ttl,
        tags=config.policy.tag_ttls,
        stale=config.policy.stale_while_revalidate,
        access=config.policy.access_ttl,
        public=config.policy.public_ttl,
        grace=config.policy.outage_grace,
        prefetch=config.policy.prefetch != "off",
        history=config.policy.history,
        new=config.policy.new_tags,
        cooldown=config.policy.cooldown,
        allow=config.policy.allow,
        deny=config.policy.deny,
        attempts=config.upstream.attempts,
        bandwidth=config.upstream.bandwidth,
        workers=worker_count(config.listen.workers),  # as the supervisor counts them, on the same cores
    )


def loop_addresses(config: Config) -> frozenset[str]:
    """Where nothing is upstream: our own addresses, and those of other boxes that run Entrepot."""
    advertised = frozenset(address for address in config.advertise.addresses if address != "auto")
    return frozenset(expanded(config.listen.address)) | advertised
