"""Keys of the upstream: its certificate authority, a certificate per name, and what its token services sign with.

Entrepot's own authority is not made here: the product makes it, and the tests hand it to the clients.
"""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority(common_name: str) -> Signer:
    """A self-signed certificate that may sign others."""
    return _make(common_name, None, x509.BasicConstraints(ca=True, path_length=0), ())


def leaf(name: str, issuer: Signer) -> Signer:
    """A server certificate for one name."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return _make(name, issuer, x509.BasicConstraints(ca=False, path_length=None), (names, usage))


def write_leaves(directory: Path, names: Iterable[str], issuer: Signer) -> None:
    """NAME.crt, with the chain, and NAME.key for each name, as nginx looks them up by the SNI of a connection."""
    for name in names:
        made = leaf(name, issuer)
        (directory / f"{name}.crt").write_bytes(made.pem + issuer.pem)
        (directory / f"{name}.key").write_bytes(made.key_pem)


def by_name(directory: Path, names: Iterable[str]) -> ssl.SSLContext:
    """For a server without nginx: the certificate, of those that `write_leaves` wrote, for the name asked for."""

    contexts = {name: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for name in names}
    for name, made in contexts.items():
        made.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name not in contexts:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = contexts[name]
        return None

    # Without any certificate OpenSSL gives up before it asks.
    first = next(iter(contexts.values()))
    first.sni_callback = choose
    return first


def _make(
    common_name: str, issuer: Signer | None, constraints: x509.BasicConstraints, extra: Iterable[x509.ExtensionType]
) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signing_key = issuer.key if issuer else key
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(subject_name=subject, public_key=key.public_key())
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(constraints.ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    return Signer(builder.sign(signing_key, hashes.SHA256()), key)


def _key_usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
