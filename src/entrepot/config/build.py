"""From a parsed document to a `Config`: unknown keys, values, contradictions. No files, no environment.

A `Draft` holds the raw values by key, each with the place it was written at; the environment overlays it (see
`environment.py`) before `build` reads it. All mistakes are collected, in the order of the file, and raised together.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from entrepot.config.errors import ConfigError
from entrepot.config.kinds import ItemError, Kind, quoted
from entrepot.config.locate import KeyPath
from entrepot.config.model import SECTIONS, Config, RegistryEntry, kinds_of
from entrepot.config.registries import DockerConfig, PasswordFile
from entrepot.config.values import parse_registry

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    text: str
    """"entrepot.toml:12", or the name of a variable."""
    order: float
    """Sorts problems: the line; variables come after the file."""
    base: Path
    """What relative paths are relative to."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as written."""

    value: object
    place: Place


@dataclass(frozen=True, slots=True)
class Problems:
    """What is wrong so far."""

    found: list[tuple[float, str]] = field(default_factory=list)

    def add(self, place: Place, key: str, text: str) -> None:
        """One line: place, key, what is wrong."""
        self.found.append((place.order, f"{place.text}: {key}: {text}"))

    def check(self) -> None:
        """Raises `ConfigError` if anything was added."""
        if self.found:
            raise ConfigError([text for _, text in sorted(self.found, key=lambda problem: problem[0])])


@dataclass(frozen=True, slots=True)
class Draft:
    """The keys as written, none of them understood yet but their names."""

    sections: dict[str, dict[str, Raw]] = field(default_factory=dict)
    registries: dict[str, dict[str, Raw]] = field(default_factory=dict)
    names: dict[str, Place] = field(default_factory=dict)
    """Where each registry's table begins."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from."""

    config: Config
    origin: Mapping[str, str]
    """Dotted key -> "default", "entrepot.toml:12" or "ENTREPOT_DNS_TTL". Of registries only the keys that are set."""
    path: Path | None = None
    """The file that was read, if any."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown name, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def dotted(*parts: str) -> str:
    """A key as TOML would write it."""
    return ".".join(part if part.replace("-", "").replace("_", "").isalnum() else f'"{part}"' for part in parts)


def read_document(document: Mapping[str, object], where: Callable[[KeyPath], Place], problems: Problems) -> Draft:
    """Sorts a parsed TOML document into sections and registries; names nobody knows become problems."""
    draft = Draft()
    for section, table in document.items():
        place = where((section,))
        if section not in SECTIONS and section != "registries":
            what = "section" if isinstance(table, dict | list) else "key outside of any section"
            problems.add(place, dotted(section), f"unknown {what}{nearest(section, [*SECTIONS, 'registries'])}")
        elif not isinstance(table, dict):
            problems.add(place, section, f"must be a section: [{section}]")
        elif section == "registries":
            _read_registries(table, where, problems, draft)
        else:
            draft.sections[section] = _read_table(table, (section,), SECTIONS[section], where, problems)
    return draft


def _read_registries(
    tables: dict[str, object], where: Callable[[KeyPath], Place], problems: Problems, draft: Draft
) -> None:
    for name, table in tables.items():
        path: KeyPath = ("registries", name)
        place = where(path)
        key = dotted("registries", name)
        try:
            canonical = parse_registry(name)
        except ValueError as refusal:
            problems.add(place, key, f"the name of a registry {refusal}")
            continue
        if not isinstance(table, dict):
            problems.add(place, key, f"must be a section: [{key}]")
        elif canonical in draft.registries:
            problems.add(place, key, f"the registry {canonical} has a section already")
        elif (inner := next(iter(table), None)) and isinstance(table[inner], dict) and inner not in _REGISTRY_KEYS:
            # [registries.quay.io] is the key "io" of a registry called "quay".
            problems.add(place, key, f'a name with dots needs quotes: [registries."{name}.{inner}"]')
        else:
            draft.names[canonical] = place
            draft.registries[canonical] = _read_table(table, path, RegistryEntry, where, problems)


_REGISTRY_KEYS: Final = frozenset(kinds_of(RegistryEntry))


def _read_table(
    table: dict[str, object],
    path: KeyPath,
    section: type[Any],
    where: Callable[[KeyPath], Place],
    problems: Problems,
) -> dict[str, Raw]:
    known = kinds_of(section)
    keys: dict[str, Raw] = {}
    for key, value in table.items():
        place = where((*path, key))
        if key in known:
            keys[key] = Raw(value, place)
        else:
            problems.add(place, dotted(*map(str, path), key), f"unknown key{nearest(key, known)}")
    return keys


def build(draft: Draft, problems: Problems) -> Loaded:
    """Understands every value. Raises `ConfigError` with all the problems, those found before included."""
    origin: dict[str, str] = {}
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        raws = draft.sections.get(name, {})
        values = _parsed(raws, section, (name,), problems)
        for key in kinds_of(section):
            origin[f"{name}.{key}"] = raws[key].place.text if key in raws else DEFAULT
        sections[name] = section(**values)
    entries: list[RegistryEntry] = []
    for name, raws in draft.registries.items():
        entries.append(RegistryEntry(name, **_parsed(raws, RegistryEntry, ("registries", name), problems)))
        origin.update({dotted("registries", name, key): raw.place.text for key, raw in raws.items()})
    config = Config(**sections, registries=tuple(entries))
    if not problems.found:
        _contradictions(config, draft, problems)
    problems.check()
    return Loaded(config, origin)


def _parsed(raws: Mapping[str, Raw], section: type[Any], path: tuple[str, ...], problems: Problems) -> dict[str, Any]:
    known = kinds_of(section)
    values: dict[str, Any] = {}
    for key, raw in raws.items():
        kind: Kind[Any] = known[key]
        try:
            values[key] = _anchored(kind.parse(raw.value), raw.place.base)
        except ItemError as refusal:
            problems.add(raw.place, dotted(*path, key), f"{quoted(refusal.item)}: {refusal}")
        except ValueError as refusal:
            shown = "" if key == "credentials" else f"{quoted(raw.value)}: "  # may hold a secret
            problems.add(raw.place, dotted(*path, key), f"{shown}{refusal}")
    return values


def _anchored(value: object, base: Path) -> object:
    """Makes the paths in a value absolute."""
    match value:
        case Path():
            return base / value
        case tuple():
            return tuple(_anchored(item, base) for item in value)
        case PasswordFile(_, path):
            return replace(value, password_file=base / path)
        case DockerConfig(path):
            return DockerConfig(base / path)
        case _:
            return value


def _contradictions(config: Config, draft: Draft, problems: Problems) -> None:
    """Values that are fine one by one but not together."""
    listen = config.listen
    ports = {"https": listen.https, "dns": listen.dns, "proxy": listen.proxy, "web": listen.web}
    places = {key: raw.place for key, raw in draft.sections.get("listen", {}).items()}
    taken: dict[int, str] = {}
    for key, port in ports.items():
        if port and port in taken:
            place = places.get(key) or places[taken[port]]  # two defaults never clash
            problems.add(place, f"listen.{key}", f"{port}: is the port of listen.{taken[port]} too")
        taken.setdefault(port, key)
    if not any(ports.values()):
        problems.add(next(iter(places.values())), "listen", "every port is 0, so nothing would be served")
    owner: dict[str, str] = {}
    for name, host in _claims(config):
        if owner.setdefault(host, name) != name:
            key = dotted("registries", name)
            problems.add(draft.names[name], key, f"{quoted(host)}: is a host of registry {owner[host]} too")
    for entry in config.registries:
        if "*" in entry.name and isinstance(entry.credentials, PasswordFile):
            # Whoever has a registry of that family could have the password sent to it.
            place = draft.registries[entry.name]["credentials"].place
            why = "one password is not for a whole family of registries: must be {docker_config} or {helper}"
            problems.add(place, dotted("registries", entry.name, "credentials"), why)


def _claims(config: Config) -> Iterator[tuple[str, str]]:
    for entry in config.registries:
        for host in (*(entry.hosts or ()), *(entry.token_hosts or ())):
            yield entry.name, host


def from_document(document: Mapping[str, object]) -> Config:
    """A document made by `Config.to_json`, whose paths are absolute. Raises `ConfigError`."""
    problems = Problems()
    place = Place("configuration handed over", 0, Path("/"))
    draft = read_document(document, lambda _: place, problems)
    return build(draft, problems).config
