"""The authority: made once, loaded by every process; it signs what `leaves` asks for.

Decides what a usable CA directory is. Leaves the content of certificates to `profiles`, the files to `files`, and how
one authority follows another to `rotation`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from entrepot.certs import files, names, profiles
from entrepot.certs.errors import AuthorityError, AuthorityExists, InvalidSubtree, NameNotPermitted, NoAuthority

# Years. Long enough that a rotation is rare, short enough that somebody still knows how; mkcert and mitmproxy have 10,
# for CAs that may sign for any name. Issuers live as long: without the root's key they cannot be renewed.
VALID_YEARS: Final = 5
# Subtrees per issuer. Its certificate is in every handshake, and docker makes one for each request: with all 172 names
# of the catalogue in one it would be 6 kB, cost a Go client 50 % more to verify and us 4 % more to send; with 16, 1 kB.
_SLICE: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A CA that can sign leaves. `certificate` is what clients trust; what signs for a name is `issuer(name)`."""

    directory: Path
    certificate: x509.Certificate
    _issuers: Mapping[str, x509.Certificate] = field(repr=False)
    """By the DNS subtrees each is constrained to."""
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(
        cls, directory: Path, permitted_subtrees: Iterable[str], *, now: datetime, years: int = VALID_YEARS
    ) -> Self:
        """Raises `AuthorityExists`, `InvalidSubtree`, `AuthorityError`."""
        subtrees = checked_subtrees(permitted_subtrees)
        with files.locked(directory):
            if files.generation(directory, "current") is not None:
                raise AuthorityExists(f"{directory} holds a CA already; `entrepot ca rotate` makes another")
            files.point(directory, "current", new_generation(directory, subtrees, now, years))
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises `NoAuthority`, or `AuthorityError` when anything about it is not as it must be."""
        name = current_generation(directory)
        try:
            return cls._read(directory, name)
        except AuthorityError:
            # A rotation that was finished just now has taken the key away under our hands.
            if current_generation(directory) == name:
                raise
        return cls._read(directory, current_generation(directory))

    @classmethod
    def ensure(cls, directory: Path, permitted: Iterable[str], now: datetime) -> Self:
        """Loads it, or creates it where there is none; of processes that start at once, all get the same."""
        try:
            return cls.load(directory)
        except NoAuthority:
            pass
        try:
            return cls.create(directory, permitted, now=now)
        except AuthorityExists:
            return cls.load(directory)

    @classmethod
    def _read(cls, directory: Path, generation: str) -> Self:
        folder = directory / generation
        certificate = read_certificate(folder / files.ROOT)
        key = _private_key(folder / files.KEY)
        issuers: dict[str, x509.Certificate] = {}
        for issuer in _certificates(folder / files.ISSUERS):
            _check_issuer(folder, certificate, issuer, key)
            issuers |= dict.fromkeys(profiles.permitted(issuer) or (), issuer)
        return cls(directory, certificate, issuers, key)

    @property
    def pem(self) -> bytes:
        """What clients trust."""
        return profiles.pem(self.certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what clients trust, as `openssl x509 -fingerprint -sha256` shows it."""
        return fingerprint(self.certificate)

    @property
    def permitted(self) -> tuple[str, ...]:
        """The DNS subtrees it can sign for."""
        return tuple(sorted(self._issuers))

    def permits(self, name: str) -> bool:
        """Whether a leaf for `name` would be accepted: a host name, with or without a leading "*."."""
        try:
            self.issuer(names.checked(name.removeprefix("*.")))
        except NameNotPermitted:
            return False
        return True

    def issuer(self, name: str) -> x509.Certificate:
        """The certificate that can sign for `name`, as from `names.checked`. Raises `NameNotPermitted`."""
        subtree = names.covering(name, self._issuers)
        if subtree is None:
            raise NameNotPermitted(
                f"the CA may not sign for {name!r}; if it is a registry of yours, add it to the configuration "
                "and run `entrepot ca rotate`"
            )
        return self._issuers[subtree]

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of `wanted` it cannot sign for. A rotation helps those that `names.subtree` makes something of."""
        return [name for name in wanted if not self.permits(name)]

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """The only use of the key."""
        return builder.sign(self._key, SHA256())


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, in pairs of upper-case hex digits."""
    digest = Hash(SHA256())
    digest.update(certificate.public_bytes(Encoding.DER))
    return digest.finalize().hex(":").upper()


def checked_subtrees(permitted_subtrees: Iterable[str]) -> tuple[str, ...]:
    """What an authority for these can be constrained to. Raises `InvalidSubtree` when that is nothing."""
    subtrees = names.minimal(permitted_subtrees)
    if not subtrees:
        # Without a DNS subtree a certificate may carry any DNS name: the very opposite.
        raise InvalidSubtree("an authority needs at least one host name with a dot in it to be constrained to")
    return subtrees


def new_generation(directory: Path, subtrees: tuple[str, ...], now: datetime, years: int) -> str:
    """Under the lock. Makes root and issuers; returns the name of the folder.

    The root's key lives in this call only: whoever gets the disk gets issuers that cannot leave their names.
    """
    moment = now.replace(microsecond=0)
    root_key, key = profiles.new_key(), profiles.new_key()
    until = moment + timedelta(days=365 * years)
    root = profiles.root(root_key.public_key(), profiles.constraints(subtrees), moment, until).sign(root_key, SHA256())
    # Relatives side by side: what one network uses is then often in one slice.
    ordered = sorted(subtrees, key=lambda name: name.split(".")[::-1])
    issuers = [
        profiles.issuer(key.public_key(), number, root, profiles.constraints(part), moment).sign(root_key, SHA256())
        for number, part in enumerate(batched(ordered, _SLICE), start=1)
    ]
    name = profiles.short_id(root)
    chain = b"".join(map(profiles.pem, issuers))
    files.add_generation(directory, name, profiles.pem(root), chain, profiles.key_pem(key))
    return name


def current_generation(directory: Path) -> str:
    """Raises `NoAuthority`."""
    name = files.generation(directory, "current")
    if name is None:
        raise NoAuthority(f"there is no CA in {directory} yet; `entrepot up` makes one")
    return name


def read_certificate(path: Path) -> x509.Certificate:
    """The one that is first in the file. Raises `AuthorityError`."""
    return _certificates(path)[0]


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(files.read(path))
    except ValueError as failure:
        raise AuthorityError(f"{path} holds no certificate; restore it from a backup") from failure


def _check_issuer(
    folder: Path, root: x509.Certificate, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """Better no start than leaves that no client accepts, or that every client accepts for any name."""
    if profiles.permitted(issuer) is None:
        raise AuthorityError(f"{folder / files.ISSUERS} is not constrained to DNS names; it could sign for any name")
    if issuer.public_key() != key.public_key():
        raise AuthorityError(f"{folder / files.KEY} is not the key of {files.ISSUERS} beside it")
    try:
        issuer.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as failure:
        raise AuthorityError(f"{folder / files.ISSUERS} was not issued by {files.ROOT} beside it") from failure


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(files.read_key(path), password=None)
    except (ValueError, TypeError) as failure:
        raise AuthorityError(f"{path} holds no private key; restore it from a backup") from failure
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{path} holds no EC key; restore it from a backup")
    return key
