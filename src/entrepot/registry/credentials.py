"""Where a credential of the box for a registry is to be found: its place, never the credential itself.

A place may be shown, logged and handed to other processes. It is read, when it is needed, by `engine.credentials`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A user name, and the file whose first line is the password."""

    username: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The `auths`, `credHelpers` and `credsStore` of a docker `config.json`."""

    docker_config: Path


@dataclass(frozen=True, slots=True)
class Helper:
    """The program `docker-credential-NAME`."""

    helper: str


type Credentials = PasswordFile | DockerConfig | Helper
"""No credentials at all is None."""
