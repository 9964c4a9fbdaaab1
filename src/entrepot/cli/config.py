"""`entrepot config check` and `config show`.

`check` also looks at what the configuration points to, which the loader does not: files, helpers, the catalogue, the
CA's constraints. `show` prints the configuration in force as TOML that can be read again, each value with its origin.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from entrepot.certs.files import ROOT
from entrepot.cli.options import config_option, json_option, loaded
from entrepot.config.build import Loaded, dotted
from entrepot.config.errors import ConfigError
from entrepot.config.model import SECTIONS, Config, rendered
from entrepot.errors import EntrepotError


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@config_option
@click.pass_context
def check(context: click.Context, config_path: Path | None) -> int:
    """Check the configuration and what it points to; say every mistake, a line each."""
    try:
        found = loaded(context, config_path)
    except ConfigError as refusal:
        problems = list(refusal.problems)
    else:
        problems = list(mistakes(found))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        return 2
    for note in notes(found.config):
        click.echo(note)
    click.echo(f"{found.path}: no mistakes" if found.path else "no configuration file; the defaults are in force")
    return 0


@config.command()
@config_option
@json_option
@click.pass_context
def show(context: click.Context, config_path: Path | None, *, as_json: bool) -> None:
    """Show the configuration in force, and where each value comes from."""
    found = loaded(context, config_path)
    click.echo(json.dumps(as_object(found), indent=2, ensure_ascii=False) if as_json else "\n".join(as_toml(found)))


def mistakes(found: Loaded) -> Iterator[str]:
    """What the configuration points to and is not there."""
    token = found.config.web.admin_token_file
    if token is not None:
        yield from _unreadable(found, "web.admin_token_file", token)
    from entrepot.cli.accounts import complaints  # noqa: PLC0415  # `config show` does without
    from entrepot.config.overrides import catalogue  # noqa: PLC0415

    said = {entry.name: text for entry, text in complaints(found.config)}
    for entry in found.config.registries:
        for file in entry.ca or ():
            yield from _unreadable(found, dotted("registries", entry.name, "ca"), file)
        if entry.name in said:
            key = dotted("registries", entry.name, "credentials")
            yield f"{found.origin[key]}: {key}: {said[entry.name]}"
    try:
        catalogue(found.config)
    except EntrepotError as refusal:
        yield f"{found.path or 'configuration'}: registries: {refusal}"


def _unreadable(found: Loaded, key: str, file: Path) -> Iterator[str]:
    try:
        with file.open("rb"):
            return
    except OSError as failure:
        yield f"{found.origin[key]}: {key}: {file}: {(failure.strerror or str(failure)).lower()}"


def notes(config: Config) -> Iterator[str]:
    """What is no mistake and will surprise."""
    from entrepot.cli.accounts import remarks  # noqa: PLC0415  # `config show` does without

    for entry, text in remarks(config):
        yield f"note: {dotted('registries', entry.name)}: {text}"
    if not (config.certs.path / "current" / ROOT).exists():
        return
    from entrepot.certs.authority import Authority  # noqa: PLC0415  # it takes longer than all the rest
    from entrepot.config.overrides import subtrees  # noqa: PLC0415

    try:
        missing = Authority.load(config.certs.path).missing(subtrees(config))
    except EntrepotError as refusal:
        yield f"note: {refusal}"
        return
    if missing:
        yield f"note: the CA cannot sign for {', '.join(missing)}; `entrepot ca rotate` makes one that can"


def _values(found: Loaded) -> Iterator[tuple[tuple[str, ...], str, object, str]]:
    """(table, key, value, origin) of everything that is set."""
    for name in SECTIONS:
        for key, value in rendered(getattr(found.config, name)):
            yield (name,), key, value, found.origin[f"{name}.{key}"]
    for entry in found.config.registries:
        for key, value in rendered(entry):
            table = ("registries", entry.name)
            yield table, key, value, found.origin[dotted(*table, key)]


def as_object(found: Loaded) -> dict[str, Any]:
    """For programs."""
    values = {dotted(*table, key): {"value": value, "origin": origin} for table, key, value, origin in _values(found)}
    return {"file": None if found.path is None else os.fspath(found.path), "values": values}


def as_toml(found: Loaded) -> Iterator[str]:
    """For people, and for the loader."""
    before: tuple[str, ...] = ()
    for table, key, value, origin in _values(found):
        if table != before:
            if before:
                yield ""
            yield f"[{dotted(*table)}]"
            before = table
        yield f"{f'{key} = {toml(value)}':<44}  # {origin}"
    # A table without keys says something too: there is such a registry.
    for entry in found.config.registries:
        if not dict(rendered(entry)):
            yield ""
            yield f"[{dotted('registries', entry.name)}]"


def toml(value: object) -> str:
    """A value of ours as TOML writes it; strings as JSON has them are TOML's too, but for DEL."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
