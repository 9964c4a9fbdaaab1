"""The CA directory as files: what they are called, their modes, and what makes a change to them safe.

    DIRECTORY/            0700; locked (flock) while it is changed
      3f9a1c22/           one generation, by the root's key; complete before a link points to it, never changed after
        ca.crt            the root: what clients trust
        issuers.crt       what signs leaves: one key, several certificates, all signed by the root
        issuers.key       their key, 0600
      current -> 3f9a1c22 what leaves are signed with
      next    -> ...      during a rotation: published, not used yet
      previous -> ...     after a rotation: no key any more, kept so that it can be taken out of trust stores

Readers take no lock: a link is replaced in one step. Leaves what the certificates mean to `authority`.
"""

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from entrepot.certs.errors import AuthorityError

type Role = Literal["current", "next", "previous"]

ROLES: Final[tuple[Role, ...]] = ("current", "next", "previous")
ROOT: Final = "ca.crt"
ISSUERS: Final = "issuers.crt"
KEY: Final = "issuers.key"
_GENERATION: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes the directory and keeps every other process that would change it out. Blocks."""
    with _said(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A volume is often made 0755. But a folder with something in it may be anybody's, /etc for one, by mistake.
        if not any(directory.iterdir()):
            directory.chmod(0o700)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _said(directory):
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
            os.fsync(handle)
    finally:
        os.close(handle)


def generation(directory: Path, role: Role) -> str | None:
    """The generation that has this role, if one has."""
    try:
        return (directory / role).readlink().name
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise AuthorityError(f"{directory / role} is no link to a CA: {failure.strerror}") from failure


def add_generation(directory: Path, name: str, root: bytes, issuers: bytes, key: bytes) -> None:
    """Under the lock. Nothing points to it yet: a crash leaves a folder that `sweep` takes away."""
    folder = directory / name
    folder.mkdir(mode=0o700)
    for file, content in ((ROOT, root), (ISSUERS, issuers), (KEY, key)):
        handle = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(handle)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point(directory: Path, role: Role, name: str) -> None:
    """Under the lock. Gives the role to a generation, in one step for readers."""
    fresh = directory / f".{role}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(directory / role)


def promote(directory: Path) -> None:
    """Under the lock. What was next is current, in one step."""
    (directory / "next").replace(directory / "current")


def forget(directory: Path) -> None:
    """Under the lock. There is no next one any more."""
    (directory / "next").unlink()


def sweep(directory: Path) -> None:
    """Under the lock. Removes generations without a role, and the key of one that is only `previous`."""
    names = {role: generation(directory, role) for role in ROLES}
    used = set(names.values())
    for folder in directory.iterdir():
        if folder.name not in used and _GENERATION.fullmatch(folder.name) and not folder.is_symlink():
            shutil.rmtree(folder)
    retired = names["previous"]
    if retired is not None and retired not in {names["current"], names["next"]}:
        (directory / retired / KEY).unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """Raises `AuthorityError`."""
    with _said(path):
        return path.read_bytes()


def read_key(path: Path) -> bytes:
    """Raises `AuthorityError`, also when anybody but the owner may read it: then it may have been read already."""
    with _said(path), path.open("rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if mode & 0o077:
            raise AuthorityError(
                f"{path} can be read by others than its owner (mode {mode:04o}); if nobody has, `chmod 600` it, "
                "else make a new CA with `entrepot ca rotate`"
            )
        return stream.read()


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turns the disk's refusals into ours."""
    try:
        yield
    except PermissionError as failure:
        raise AuthorityError(
            f"{failure.filename or path}: permission denied; run this as the user that runs `entrepot up`"
        ) from failure
    except OSError as failure:
        raise AuthorityError(f"{failure.filename or path}: {failure.strerror or failure}") from failure
