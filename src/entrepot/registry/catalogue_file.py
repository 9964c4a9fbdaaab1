"""Reads the catalogue that comes with the package, `catalogue.toml`.

The file says what its keys mean; here they are turned into entries, and a slip in it fails every test.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from entrepot.registry.entries import (
    QUIRKS,
    Family,
    InvalidRegistry,
    Registry,
    check_host,
    check_upstream,
    family,
)


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """The entries of a catalogue file."""

    registries: tuple[Registry, ...]
    families: tuple[Family, ...]
    token_host_reasons: Mapping[str, str]  # why each token host must be intercepted


def read_builtin() -> CatalogueFile:
    """The catalogue in the package."""
    return read(resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8"))


def read(text: str) -> CatalogueFile:
    """The entries of a catalogue; raises `InvalidRegistry`."""
    try:
        document = tomllib.loads(text)
        lists = document.get("lists", {})
        registries: list[Registry] = []
        reasons: dict[str, str] = {}
        for entry in document.get("registry", []):
            registries.extend(_registries(entry, lists))
            reasons |= {check_host(token["host"]): token["why"] for token in entry.get("token_hosts", [])}
        families = [made for entry in document.get("family", []) for made in _families(entry, lists)]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, re.error) as problem:
        raise InvalidRegistry(f"the catalogue does not read: {problem}") from problem
    return CatalogueFile(tuple(registries), tuple(families), reasons)


def _registries(entry: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> Iterator[Registry]:
    """One registry, or one for each region where the name has `{region}` in it."""
    for region in _regions(entry, lists, entry["name"]):
        name = entry["name"].replace("{region}", region)
        hosts = [host.replace("{region}", region) for host in entry.get("hosts", [name])]
        yield Registry(
            check_host(name),
            tuple(check_host(host) for host in hosts),
            tuple(check_host(token["host"]) for token in entry.get("token_hosts", [])),
            check_upstream(entry.get("upstream", f"https://{name}")),
            quirks=_quirks(entry),
        )


def _families(entry: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> Iterator[Family]:
    """One family, or one for each region where the pattern has `{region}` in it."""
    label = re.compile(entry["label"], re.ASCII) if "label" in entry else None
    first: Sequence[str] = entry.get("first", ())
    for pattern in entry["patterns"]:
        for region in _regions(entry, lists, pattern):
            made = pattern.replace("{region}", region)
            model = Registry("", (), (), "", family=made, quirks=_quirks(entry))
            yield family(made, model, first=first, label=label)


def _regions(entry: Mapping[str, Any], lists: Mapping[str, Sequence[str]], text: str) -> Sequence[str]:
    """What to put for `{region}` in `text`, one after the other; once nothing if it is not in there."""
    return lists[entry["regions"]] if "{region}" in text else [""]


def _quirks(entry: Mapping[str, Any]) -> frozenset[str]:
    quirks = frozenset(entry.get("quirks", []))
    if unknown := quirks - QUIRKS:
        raise InvalidRegistry(f"unknown quirk: {sorted(unknown)!r}; known are {sorted(QUIRKS)!r}")
    return quirks
