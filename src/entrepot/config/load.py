"""Reads the configuration: which file, its text, the variables on top.

Without `--config` the file is /etc/entrepot/entrepot.toml if there is one, else there is none: everything has a
default. An `entrepot.toml` in the current folder is never read by itself: what a daemon does must not depend on the
folder somebody started it from.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from entrepot.config.build import Draft, Loaded, Place, Problems, build, read_document
from entrepot.config.environment import overlay
from entrepot.config.errors import ConfigError
from entrepot.config.locate import KeyPath, line_of, locate

SYSTEM_FILE: Final = Path("/etc/entrepot/entrepot.toml")
# tomllib ends its messages with one of these.
_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(path: Path | None, environ: Mapping[str, str], *, system_file: Path = SYSTEM_FILE) -> Loaded:
    """The configuration in force. Raises `ConfigError`."""
    if path is None and system_file.is_file():
        path = system_file
    problems = Problems()
    draft = Draft() if path is None else _read_file(path, problems)
    overlay(draft, environ, Path.cwd(), problems)
    loaded = build(draft, problems)
    return Loaded(loaded.config, loaded.origin, path)


def _read_file(path: Path, problems: Problems) -> Draft:
    try:
        text = path.read_bytes().decode()
    except OSError as failure:
        raise ConfigError([f"{path}: {(failure.strerror or str(failure)).lower()}"]) from None
    except UnicodeDecodeError as failure:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {failure.start})"]) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise ConfigError([_syntax(path, text, str(failure))]) from None
    except RecursionError:
        raise ConfigError([f"{path}: is nested too deeply"]) from None
    lines = locate(text)
    base = path.absolute().parent

    def where(key: KeyPath) -> Place:
        line = line_of(lines, key)
        return Place(f"{path}:{line}", line, base)

    return read_document(document, where, problems)


def _syntax(path: Path, text: str, message: str) -> str:
    at = _AT.search(message)
    said = _AT.sub("", message)
    said = said[:1].lower() + said[1:]
    if at is None:
        return f"{path}: not valid TOML: {said}"
    line = int(at[1]) if at[1] else text.count("\n") + 1
    column = f", column {at[2]}" if at[2] else ""
    return f"{path}:{line}: not valid TOML: {said}{column}"
