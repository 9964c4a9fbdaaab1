"""The folders: where they are, and that they are there.

Decides where they are when nobody said so and /var/lib/entrepot is not ours: in the state folder of the user
(XDG Base Directory Specification). A path somebody has set is never replaced. Leaves what is in the folders to `cache`
and `certs`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from entrepot.config.build import DEFAULT, Loaded
from entrepot.config.model import STATE, Config
from entrepot.errors import EntrepotError

_KEYS: Final = ("store", "certs")


class NoPlace(EntrepotError):
    """A folder is missing or not ours; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A configuration whose paths can be used."""

    config: Config
    notes: tuple[str, ...] = ()


def fetch_socket(store: Path) -> Path:
    """Where the fetching process of this store takes orders."""
    return store / "run" / "fetch.sock"


def writable(path: Path) -> bool:
    """Whether `path` is, or could be made, a folder of ours."""
    while not path.exists():
        if path == path.parent:
            return False
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def readable(path: Path) -> bool:
    """Whether there is a folder `path` we can look into."""
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)


def user_state(environ: Mapping[str, str]) -> Path:
    """The state folder of the user. Raises `NoPlace`."""
    if (base := environ.get("XDG_STATE_HOME", "")) and Path(base).is_absolute():
        return Path(base) / "entrepot"
    home = environ.get("HOME", "")
    if not Path(home).is_absolute():
        raise NoPlace(f"{STATE} is not writable and HOME is not set: set store.path and certs.path")
    return Path(home) / ".local/state/entrepot"


def place(loaded: Loaded, environ: Mapping[str, str], *, usable: Callable[[Path], bool] = writable) -> Placed:
    """The configuration with the folders in force. Raises `NoPlace`."""
    config = loaded.config
    moved: list[str] = []
    for section in _KEYS:
        path: Path = getattr(config, section).path
        if loaded.origin[f"{section}.path"] != DEFAULT or usable(path):
            continue
        there = user_state(environ) / path.relative_to(STATE)
        config = replace(config, **{section: replace(getattr(config, section), path=there)})
        moved.append(f"{section}.path = {there}")
    if not moved:
        return Placed(config)
    return Placed(config, (f"{STATE} is not writable for this user: {', '.join(moved)}",))


def place_to_read(loaded: Loaded, environ: Mapping[str, str]) -> Config:
    """For commands that look at what `up` of the same user holds: where it is, else where it would be."""
    if readable(loaded.config.store.path):
        return loaded.config
    try:
        other = place(loaded, environ, usable=readable).config
    except NoPlace:
        return loaded.config
    return other if readable(other.store.path) else loaded.config


def prepare(config: Config) -> None:
    """Makes the folders. The CA's own is made, and its modes are checked, with the CA. Raises `NoPlace`."""
    for key, path, mode in (
        ("store.path", config.store.path, 0o750),
        ("store.path", config.store.path / "run", 0o750),
        ("certs.path", config.certs.path, 0o700),
    ):
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as failure:
            raise NoPlace(f"cannot make {path}: {(failure.strerror or '').lower()}; set {key}") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise NoPlace(f"{path} is not writable for this user; set {key}")
