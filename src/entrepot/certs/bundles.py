"""PEM text with certificates in it, as trust stores and people's files hold it. Pure.

Certificates are compared by what is between the lines, so that another's line length or comments do not matter. Leaves
which bundle to edit to `stores`.
"""

import base64
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from entrepot.certs import profiles
from entrepot.certs.errors import TrustError

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[ \t\r]*\n(.*?)-----END CERTIFICATE-----[ \t\r]*\n?", re.DOTALL)
# Bytes. A whole distribution's bundle is 220 kB; what is larger is something else.
_MAX_FILE = 4 * 1024 * 1024
# What cryptography raises for certificates it cannot read; the last three are no ValueErrors.
_UNREADABLE = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def parse_authorities(content: bytes, source: str) -> list[x509.Certificate]:
    """The CAs of a file someone wants trusted, in PEM (any number) or DER (one). Raises `TrustError`."""
    if len(content) > _MAX_FILE:
        raise TrustError(f"{source}: too large to be a CA file")
    try:
        if b"-----BEGIN" in content:
            found = x509.load_pem_x509_certificates(content)
        else:
            found = [x509.load_der_x509_certificate(content)]
        unlike = [certificate for certificate in found if not _is_authority(certificate)]
    except _UNREADABLE as failure:
        raise TrustError(f"{source}: no certificate in it; give what `entrepot ca export` writes") from failure
    if unlike:
        name = unlike[0].subject.rfc4514_string()
        raise TrustError(f"{source}: {name!r} is no CA certificate; give what `entrepot ca export` writes")
    return list(dict.fromkeys(found))


def holds(bundle: bytes, certificate: x509.Certificate) -> bool:
    """Whether the certificate is in the bundle."""
    wanted = certificate.public_bytes(Encoding.DER)
    return any(_der(match) == wanted for match in _BLOCK.finditer(bundle))


def with_added(bundle: bytes, certificates: Iterable[x509.Certificate]) -> bytes:
    """The bundle with those of the certificates that it lacks at its end."""
    for certificate in certificates:
        if not holds(bundle, certificate):
            gap = b"\n" if bundle and not bundle.endswith(b"\n") else b""
            bundle = bundle + gap + profiles.pem(certificate)
    return bundle


def without(bundle: bytes, certificates: Iterable[x509.Certificate]) -> bytes:
    """The bundle without any of the certificates."""
    unwanted = {certificate.public_bytes(Encoding.DER) for certificate in certificates}
    return _BLOCK.sub(lambda match: b"" if _der(match) in unwanted else match[0], bundle)


def _der(block: re.Match[bytes]) -> bytes | None:
    try:
        return base64.b64decode(block[1])
    except ValueError:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
