"""From one authority to the next, without a client that ever meets a leaf it has no root for.

`begin` makes the next CA beside the current one. From then on both are published, while leaves are still signed by the
current. When every client trusts both, `finish` makes the next one current. Leaves to the person who calls
`entrepot ca rotate` when that is, and to the running processes to load the authority again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from entrepot.certs import files, profiles
from entrepot.certs.authority import (
    VALID_YEARS,
    checked_subtrees,
    current_generation,
    new_generation,
    read_certificate,
)
from entrepot.certs.errors import AuthorityError, AuthorityExists


@dataclass(frozen=True, slots=True)
class Published:
    """The certificates of a CA directory; read without touching a key, so that any process may show them."""

    current: x509.Certificate
    next: x509.Certificate | None
    """None: no rotation is under way."""
    previous: x509.Certificate | None
    """None: never rotated. Nothing is signed by it any more."""

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """What clients are to trust."""
        return (self.current,) if self.next is None else (self.current, self.next)

    @property
    def pem(self) -> bytes:
        """What clients are to trust, as text."""
        return b"".join(map(profiles.pem, self.trusted))


def published(directory: Path) -> Published:
    """Raises `NoAuthority`, `AuthorityError`."""
    current = current_generation(directory)
    coming, gone = files.generation(directory, "next"), files.generation(directory, "previous")
    return Published(
        _root(directory, current),
        None if coming is None else _root(directory, coming),
        # The same when a crash hit `finish` between two of its steps.
        None if gone is None or gone == current else _root(directory, gone),
    )


def begin(directory: Path, permitted_subtrees: Iterable[str], *, now: datetime, years: int = VALID_YEARS) -> Published:
    """Makes the next CA. Raises `NoAuthority`, `AuthorityExists` when one is waiting already, `InvalidSubtree`."""
    subtrees = checked_subtrees(permitted_subtrees)
    current_generation(directory)
    with files.locked(directory):
        if files.generation(directory, "next") is not None:
            raise AuthorityExists(
                f"a rotation is under way in {directory}; end it with `entrepot ca rotate --finish` or `--cancel`"
            )
        files.point(directory, "next", new_generation(directory, subtrees, now, years))
    return published(directory)


def finish(directory: Path) -> Published:
    """Makes the next CA current and deletes the key of the old one. Raises `AuthorityError` when none is waiting."""
    current_generation(directory)
    with files.locked(directory):
        _check_begun(directory)
        files.point(directory, "previous", current_generation(directory))
        files.promote(directory)
        files.sweep(directory)
    return published(directory)


def cancel(directory: Path) -> Published:
    """Forgets the next CA. Raises `AuthorityError` when none is waiting."""
    current_generation(directory)
    with files.locked(directory):
        _check_begun(directory)
        files.forget(directory)
        files.sweep(directory)
    return published(directory)


def _check_begun(directory: Path) -> None:
    if files.generation(directory, "next") is None:
        raise AuthorityError(f"no rotation is under way in {directory}; `entrepot ca rotate` begins one")


def _root(directory: Path, generation: str) -> x509.Certificate:
    return read_certificate(directory / generation / files.ROOT)
