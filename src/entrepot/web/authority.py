"""The CA as the page and the metrics show it, read with what Python brings.

`entrepot.certs` could say the same and more, at the price of 9 MB that an idle box need not pay: it is imported when a
client asks for the CA itself.
"""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entrepot.certs import files
from entrepot.certs.errors import AuthorityError, NoAuthority

_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that clients are to trust."""

    fingerprint: str
    """SHA-256, as `openssl x509 -fingerprint -sha256` shows it."""
    not_after: float
    """Epoch seconds."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """What clients are to trust."""

    current: Certificate
    next: Certificate | None
    """None: no rotation is under way."""

    @property
    def all(self) -> tuple[Certificate, ...]:
        return (self.current,) if self.next is None else (self.current, self.next)


def trusted(certs: Path) -> Trusted:
    """Raises `CertsError`."""
    if (current := files.generation(certs, "current")) is None:
        raise NoAuthority(f"there is no CA in {certs} yet; `entrepot up` makes one")
    coming = files.generation(certs, "next")
    return Trusted(_read(certs / current), None if coming is None else _read(certs / coming))


def _read(generation: Path) -> Certificate:
    path = generation / files.ROOT
    try:
        pem = files.read(path).decode("ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem)
        der = ssl.PEM_cert_to_DER_cert(pem[: pem.index(_END) + len(_END)])
        until = str(context.get_ca_certs()[0]["notAfter"])
    except (ValueError, IndexError, ssl.SSLError) as failure:
        raise AuthorityError(f"{path} holds no certificate; restore it from a backup") from failure
    return Certificate(hashlib.sha256(der).digest().hex(":").upper(), float(ssl.cert_time_to_seconds(until)))
