"""Files with secrets of the box, as others write them: a password file, docker's `config.json`.

Reads them once, when asked, in the caller's thread. Keeps nothing, and says nothing of what is in them but that it is
of no use: `Unusable` names the file and what to do, in one line.
"""

import json
import os
import stat
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from entrepot.engine.claims import Claim
from entrepot.errors import EntrepotError

LONGEST: Final = 1 << 20  # bytes of a file
OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
WHOLE: Final = frozenset({"", "/", "/v1", "/v1/", "/v2", "/v2/"})
"""Paths after a host in `auths` that mean the registry; podman writes others there, for parts of one."""


class Unusable(EntrepotError):
    """A credential is not to be had: one line for people, with nothing secret in it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The credential is kept by a helper of this name."""

    helper: str


def password_in(path: Path) -> str:
    """The first line. Raises `Unusable`, also when others may read it: then it may have been read already."""
    content, mode = _content(path)
    _check_mode(path, mode)
    line = content.partition(b"\n")[0].removesuffix(b"\r")
    try:
        password = line.decode()
    except UnicodeDecodeError:
        raise Unusable(f"{path}: its first line is not UTF-8 text") from None
    if not password:
        raise Unusable(f"{path}: its first line is empty; the password belongs there")
    return password


def in_docker_config(path: Path, names: Sequence[str]) -> Iterator[Claim | Ask]:
    """What docker's configuration has for a registry that is called by any of `names`, best first.

    As docker goes about it: a helper for this registry, else the helper for all, else what is in the file itself.
    Raises `Unusable`, also when others may read a secret in it.
    """
    content, mode = _content(path)
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unusable(f"{path}: is not the config.json of docker: no JSON object")
    for name, helper in _entries(document, "credHelpers", names):
        if not isinstance(helper, str):
            raise Unusable(f"{path}: credHelpers has no name of a helper for {name}")
        yield Ask(helper)
    if isinstance(store := document.get("credsStore"), str) and store:
        yield Ask(store)
    for name, entry in _entries(document, "auths", names):
        if (claim := _claim(path, name, entry)) is not None:
            _check_mode(path, mode)
            yield claim


def _content(path: Path) -> tuple[bytes, int]:
    """Bytes and mode. Not of a pipe or a device, which would keep us waiting."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise Unusable(f"{path}: is not a file")
            content = file.read(LONGEST + 1)
    except OSError as failure:
        raise Unusable(f"{path}: {(failure.strerror or str(failure)).lower()}") from None
    if len(content) > LONGEST:
        raise Unusable(f"{path}: is longer than {LONGEST} bytes")
    return content, mode


def _check_mode(path: Path, mode: int) -> None:
    if mode & OTHERS:
        raise Unusable(f"{path}: other users can read or change it, so it is not used; run `chmod o= {path}`")


def _entries(document: Mapping[str, Any], table: str, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Those for the registry, in the order of its names."""
    found = document.get(table)
    by_host: dict[str, object] = {}
    for key, value in found.items() if isinstance(found, dict) else ():
        if (host := _host(key)) is not None:
            by_host.setdefault(host, value)
    for name in names:
        if name in by_host:
            yield name, by_host[name]


def _host(key: str) -> str | None:
    """Of a key such as `quay.io` or `https://index.docker.io/v1/`; None if it is for a part of a registry."""
    try:
        parts = urlsplit(key if "://" in key else f"//{key}")
    except ValueError:
        return None
    return parts.netloc.lower() if parts.path in WHOLE and not parts.query else None


def _claim(path: Path, name: str, entry: object) -> Claim | None:
    """None for the empty entry that is left where a helper has the secret."""
    if not isinstance(entry, dict):
        raise Unusable(f"{path}: auths has no table for {name}")
    words = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    if (token := words.get("identitytoken")) is not None:
        return Claim("", token)
    if "auth" in words:
        try:
            user, colon, password = b64decode(words["auth"], validate=True).decode().partition(":")
        except (Error, ValueError):
            user = colon = password = ""
        password = password.rstrip("\0")  # as docker itself does
    else:
        user, colon, password = words.get("username", ""), ":", words.get("password", "")
        if not (user or password):
            return None
    if not (user and colon and password):
        raise Unusable(f"{path}: the entry of {name} in auths does not hold a user and a password")
    return Claim(user, password)
