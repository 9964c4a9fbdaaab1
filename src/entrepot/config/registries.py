"""How a registry lets us in: the `credentials` of its table. Never a literal secret.

A configuration file ends up in version control and in bug reports, so a password is named by the file that holds it, by
a docker configuration, or by a credential helper; `password = "..."` is refused. What is in these places is read when
it is needed, by `engine.credentials`.
"""

import difflib
import re
from typing import Final

from entrepot.config import kinds
from entrepot.config.kinds import Kind
from entrepot.registry.credentials import Credentials, DockerConfig, Helper, PasswordFile

__all__ = ["CREDENTIALS", "Credentials", "DockerConfig", "Helper", "PasswordFile", "parse_credentials"]

# docker runs "docker-credential-NAME"; a slash would run any file.
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_KEYS: Final = ("username", "password_file", "docker_config", "helper")
_SECRETS: Final = frozenset({"password", "token", "secret", "auth", "identity_token", "identitytoken", "pass"})
_ALLOWED: Final = "{}, {username, password_file}, {docker_config} or {helper}"


def parse_credentials(raw: object) -> Credentials | None:
    """From an inline table or table of TOML."""
    if not isinstance(raw, dict):
        raise ValueError(f"must be {_ALLOWED}")
    for key in raw:
        _check_key(key)
    given = set(raw)
    if not given:
        return None
    if given == {"username", "password_file"}:
        return PasswordFile(_part(kinds.WORD, raw, "username"), _part(kinds.PATH, raw, "password_file"))
    if given == {"docker_config"}:
        return DockerConfig(_part(kinds.PATH, raw, "docker_config"))
    if given == {"helper"}:
        helper = _part(kinds.WORD, raw, "helper").removeprefix("docker-credential-")
        if not _HELPER.fullmatch(helper):
            raise ValueError('helper must be the NAME of a program docker-credential-NAME, such as "ecr-login"')
        return Helper(helper)
    raise ValueError(f"must be {_ALLOWED}")


def show_credentials(credentials: Credentials | None) -> object:
    """As the inline table."""
    match credentials:
        case None:
            return {}
        case PasswordFile(username, password_file):
            return {"username": username, "password_file": str(password_file)}
        case DockerConfig(docker_config):
            return {"docker_config": str(docker_config)}
        case Helper(helper):
            return {"helper": helper}


def _check_key(key: str) -> None:
    if key in _KEYS:
        return
    if key.lower() in _SECRETS:
        raise ValueError(f'"{key}": secrets do not belong here; put it into a file and name that in "password_file"')
    near = difflib.get_close_matches(key, _KEYS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f": must be {_ALLOWED}"
    raise ValueError(f'unknown key "{key}"{hint}')


def _part[T](kind: Kind[T], raw: dict[str, object], key: str) -> T:
    try:
        return kind.parse(raw[key])
    except ValueError as refusal:
        raise ValueError(f"{key} {refusal}") from None


CREDENTIALS: Final[Kind[Credentials | None]] = Kind(parse_credentials, show_credentials)
