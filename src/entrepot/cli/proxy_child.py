"""A proxy worker: the configuration, in the terms of `entrepot.addons.worker`.

Imported by a child before it is told anything: everything heavy is imported here, at the top.
"""

import logging
from collections.abc import Mapping
from typing import Final

from entrepot import __version__
from entrepot.addons.worker import WorkerSettings
from entrepot.addons.worker import run as work
from entrepot.cache.space import Limits
from entrepot.certs.authority import Authority
from entrepot.cli.accounts import complaints
from entrepot.cli.brief import Brief
from entrepot.cli.capacity import worker_count
from entrepot.cli.decisions import decisions, loop_addresses
from entrepot.cli.places import fetch_socket
from entrepot.cli.resolving import own_resolver_addresses, resolvers
from entrepot.config.model import Config
from entrepot.config.overrides import subtrees
from entrepot.engine.policy import Policy
from entrepot.errors import EntrepotError
from entrepot.registry.catalogue import Catalogue

_log: Final = logging.getLogger("entrepot.worker")


def settings(brief: Brief) -> WorkerSettings:
    """What the worker is told at its start."""
    config = brief.config
    return WorkerSettings(
        index=brief.index,
        sockets=brief.sockets,
        store=config.store.path,
        limits=Limits(size=config.store.size, min_free=config.store.min_free),
        certs=config.certs.path,
        leaf_days=config.certs.leaf_days,
        drain=config.listen.drain,
        nameservers=resolvers(config.upstream.resolvers, own_resolver_addresses(config)),
        own_addresses=loop_addresses(config),
        own_ports=frozenset({config.listen.https}),
        connect_timeout=config.upstream.connect_timeout,
        read_timeout=config.upstream.read_timeout,
        connections=max(1, config.upstream.connections // worker_count(config.listen.workers)),
        pseudonym=brief.marker,
        version=__version__,
        fetcher=fetch_socket(config.store.path),
    )


def warn_of_missing(config: Config) -> None:
    """Names the CA cannot sign for are not intercepted: say so, and what would change it."""
    try:
        missing = Authority.load(config.certs.path).missing(subtrees(config))
    except EntrepotError as refusal:
        _log.error("%s", refusal)
        return
    if missing:
        _log.warning(
            "the CA cannot sign for %s: not intercepted; `entrepot ca rotate` makes one that can", ", ".join(missing)
        )


def warn_of_credentials(config: Config) -> None:
    """What of the box's own is not to be had, and so is not used: say so, and what to do."""
    for entry, text in complaints(config):
        _log.warning("credentials for %s: %s", entry.name, text)


def run(brief: Brief) -> None:
    """Works until told to stop."""

    def build(document: Mapping[str, object]) -> tuple[Catalogue, Policy]:
        config = Config.from_json(document)
        if brief.index == 0:  # once is enough
            warn_of_missing(config)
            warn_of_credentials(config)
        return decisions(config)

    work(settings(brief), brief.config.to_json(), build)
