"""What is in each certificate: root, issuers, leaves, and the constraints of the first two. Pure.

Leaves keys on disk and lifetimes to `authority` and `leaves`. Times are aware `datetime`s; the clock is an argument.

How to forbid e-mail addresses and URIs so that every verifier accepts the certificate and obeys it was found by trial
(OpenSSL 3.0, GnuTLS 3.7, NSS 3.87, Go 1.19, Java 17, Node 20, cryptography 48, rustls; tests/certs/test_verifiers.py):

- Excluding "" (all of them, say NSS and Go) makes Java refuse to parse the CA, and OpenSSL finds nothing excluded.
- Excluding "." makes Java refuse it too, GnuTLS (for e-mail) refuse every leaf, and OpenSSL finds nothing excluded.
- Permitting just the host "invalid", a name that can never exist (RFC 6761 6.4), shuts out all others everywhere but in
  GnuTLS, which overlooks permitted URIs. Excluding "invalid" as well makes GnuTLS refuse a leaf with any URI, and
  leaves nothing at all in the others.

For addresses, excluding 0.0.0.0/0 and ::/0 works everywhere.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of clients that are behind must not refuse what was signed a moment ago; a virtual machine resumed from a
# snapshot is often hours behind. Let's Encrypt backdates by an hour, mitmproxy by two days.
BACKDATE = timedelta(days=1)
# X.520 ub-common-name; longer names of hosts are in the alternative name only.
_MAX_COMMON_NAME = 64
_NOWHERE = "invalid"


def new_key() -> ec.EllipticCurvePrivateKey:
    """EC P-256: what every client takes, and the cheapest handshake for a server."""
    return ec.generate_private_key(ec.SECP256R1())


def constraints(subtrees: Sequence[str]) -> x509.NameConstraints:
    """DNS names in `subtrees`, and no name of any other kind."""
    nowhere: list[x509.GeneralName] = [x509.RFC822Name(_NOWHERE), x509.UniformResourceIdentifier(_NOWHERE)]
    everywhere = [x509.IPAddress(ipaddress.ip_network(net)) for net in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints([*map(x509.DNSName, subtrees), *nowhere], [*everywhere, *nowhere])


def permitted(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """The DNS subtrees a CA certificate is constrained to; None when it may sign for any DNS name."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return None
    names = [base.value for base in found.value.permitted_subtrees or () if isinstance(base, x509.DNSName)]
    # Without "critical" a verifier that does not know the extension may go on as if it were not there.
    return tuple(names) if names and found.critical else None


def key_id(key: ec.EllipticCurvePublicKey) -> bytes:
    """The subject key identifier, RFC 5280 4.2.1.2 (1)."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def short_id(certificate: x509.Certificate) -> str:
    """Eight hex digits by which people and files tell CAs apart; not for security."""
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest[:4].hex()


def root(
    key: ec.EllipticCurvePublicKey, names: x509.NameConstraints, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    """The certificate clients trust; to be signed with its own key."""
    subject = _subject("CA", key)
    return _authority(key, names, now, until, path_length=1).subject_name(subject).issuer_name(subject)


def issuer(
    key: ec.EllipticCurvePublicKey, number: int, parent: x509.Certificate, names: x509.NameConstraints, now: datetime
) -> x509.CertificateBuilder:
    """The certificate that signs leaves, and can sign nothing else; lives as long as `parent`."""
    return (
        _authority(key, names, now, parent.not_valid_after_utc, path_length=0)
        .subject_name(_subject(f"issuer {number}", key))
        .issuer_name(parent.subject)
        .add_extension(_issued_by(parent), critical=False)
    )


def leaf(
    name: str, key: ec.EllipticCurvePublicKey, parent: x509.Certificate, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    """A server certificate for `name` and nothing else."""
    common = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= _MAX_COMMON_NAME else []
    return (
        _begun(key, not_before, not_after)
        .subject_name(x509.Name(common))
        .issuer_name(parent.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # RFC 5280 4.2.1.6: critical where the subject is empty. OpenSSL's strict mode checks it.
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=not common)
        .add_extension(_issued_by(parent), critical=False)
        .add_extension(x509.SubjectKeyIdentifier(key_id(key)), critical=False)
    )


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as text."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as text, not encrypted: who can read the file can read the passphrase beside it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _authority(
    key: ec.EllipticCurvePublicKey, names: x509.NameConstraints, now: datetime, until: datetime, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        _begun(key, now - BACKDATE, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(names, critical=True)
        # On a CA it means: whatever it signs serves TLS, nothing else (no client certificate, code, mail). RFC 5280 is
        # silent, all verifiers tried do it so.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier(key_id(key)), critical=False)
    )


def _begun(key: ec.EllipticCurvePublicKey, not_before: datetime, not_after: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _subject(role: str, key: ec.EllipticCurvePublicKey) -> x509.Name:
    """Each authority has a subject of its own: verifiers look issuers up by it, and during a rotation there are two."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Entrepot"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Entrepot {role} {key_id(key)[:4].hex()}"),
        ]
    )


def _issued_by(parent: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
