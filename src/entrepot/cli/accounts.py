"""The box's own credentials, as they are configured: what is wrong with their places, for `config check` and at start.

A file or a helper can be fixed while all runs, so nothing of this keeps anything from starting: what is not to be had
is not used.
"""

from collections.abc import Iterator

from entrepot.config.model import Config, RegistryEntry
from entrepot.config.overrides import catalogue
from entrepot.engine.credentials import complaint
from entrepot.registry.catalogue import Catalogue, InvalidRegistry, Registry


def complaints(config: Config) -> Iterator[tuple[RegistryEntry, str]]:
    """One line for each entry whose credentials are of no use; helpers are not asked for any."""
    known = _catalogue(config)
    for entry in config.registries:
        if entry.credentials is None:
            continue
        # Those of a family are for hosts that nobody has named yet: only the place itself can be looked at.
        registry = known.registry(entry.name) if known is not None and "*" not in entry.name else None
        said = complaint(registry or Registry("", (), (), "", credentials=entry.credentials))
        if said is not None:
            yield entry, said


def remarks(config: Config) -> Iterator[tuple[RegistryEntry, str]]:
    """What is no mistake and will surprise."""
    known = _catalogue(config)
    for entry in config.registries:
        registry = known.registry(entry.name) if known is not None and "*" not in entry.name else None
        if registry is None:
            continue
        if registry.share == "public" and registry.credentials is None:
            yield entry, "share has no effect without credentials"
        if registry.credentials is not None and registry.upstream.startswith("http://"):
            yield entry, f"credentials go over the network in clear: {registry.upstream} is not https"


def _catalogue(config: Config) -> Catalogue | None:
    try:
        return catalogue(config)
    except InvalidRegistry:  # which is said elsewhere
        return None
