"""Certificates that the authority's key would sign if it fell into other hands, each with what a verifier must say."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from entrepot.certs import profiles
from entrepot.certs.authority import Authority

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SUBTREES = ("quay.io", "gcr.io", "registry.gitlab.com")
# As many as the catalogue has, and some of them long.
MANY = (*SUBTREES, *(f"dkr.ecr.region-number-{n}.amazonaws.com" for n in range(150)))


@dataclass(frozen=True, slots=True)
class Case:
    """A chain a server shows for `host`."""

    name: str
    host: str
    good: bool
    chain_pem: bytes
    key_pem: bytes

    def write(self, folder: Path) -> Path:
        """Makes NAME.pem and NAME.key; returns the former."""
        path = folder / f"{self.name}.pem"
        path.write_bytes(self.chain_pem)
        path.with_suffix(".key").write_bytes(self.key_pem)
        return path


def cases(authority: Authority, now: datetime) -> Iterator[Case]:
    """Good ones first."""
    quay = authority.issuer("quay.io")
    other = authority.issuer("dkr.ecr.region-number-3.amazonaws.com")
    dns, uri = x509.DNSName, x509.UniformResourceIdentifier
    one, six = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")
    long = ".".join(["a" * 40, "b" * 40, "quay.io"])

    def case(
        name: str,
        host: str,
        names: Sequence[x509.GeneralName],
        *,
        good: bool = False,
        parent: x509.Certificate = quay,
        common: str | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Case:
        key = profiles.new_key()
        built = leaf(key.public_key(), parent, names, host if common is None else common, usage, now)
        chain = profiles.pem(authority.sign(built)) + profiles.pem(parent)
        return Case(name, host, good, chain, profiles.key_pem(key))

    yield case("exact", "quay.io", [dns("quay.io")], good=True)
    yield case("below", "cdn01.quay.io", [dns("cdn01.quay.io")], good=True)
    yield case("no-common-name", long, [dns(long)], good=True, common="")
    yield case("outside", "example.com", [dns("example.com")])
    yield case("look-alike", "evilquay.io", [dns("evilquay.io")])
    yield case("one-too-many", "quay.io", [dns("quay.io"), dns("example.com")])
    yield case("ipv4", "quay.io", [dns("quay.io"), x509.IPAddress(one)])
    yield case("ipv6", "quay.io", [dns("quay.io"), x509.IPAddress(six)])
    yield case("address-only", "127.0.0.1", [x509.IPAddress(one)], common="")
    yield case("e-mail", "quay.io", [dns("quay.io"), x509.RFC822Name("a@quay.io")])
    yield case("e-mail-nowhere", "quay.io", [dns("quay.io"), x509.RFC822Name("a@invalid")])
    yield case("uri", "quay.io", [dns("quay.io"), uri("https://quay.io/")])
    yield case("uri-nowhere", "quay.io", [dns("quay.io"), uri("https://invalid/")])
    yield case("uri-address", "quay.io", [dns("quay.io"), uri("https://127.0.0.1/")])
    yield case("common-name-only", "example.com", [])
    yield case("other-slice", "quay.io", [dns("quay.io")], parent=other)
    yield case("client", "quay.io", [dns("quay.io")], usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    yield below_own_authority(authority, now)


def below_own_authority(authority: Authority, now: datetime) -> Case:
    """A leaf under a further CA: the path would be one too long."""
    quay = authority.issuer("quay.io")
    ours, leafs = profiles.new_key(), profiles.new_key()
    names = profiles.constraints(["quay.io"])
    further = authority.sign(profiles.issuer(ours.public_key(), 1, quay, names, now))
    built = profiles.leaf("quay.io", leafs.public_key(), further, now, now + timedelta(days=7))
    chain = [built.sign(ours, SHA256()), further, quay]
    return Case("further-ca", "quay.io", False, b"".join(map(profiles.pem, chain)), profiles.key_pem(leafs))


def leaf(
    key: ec.EllipticCurvePublicKey,
    parent: x509.Certificate,
    names: Sequence[x509.GeneralName],
    common: str,
    usage: x509.ObjectIdentifier,
    now: datetime,
) -> x509.CertificateBuilder:
    """A leaf with any names, otherwise as `profiles.leaf` makes it."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    model = profiles.leaf("quay.io", key, parent, now, now + timedelta(days=7))
    built = x509.CertificateBuilder(
        x509.Name(parent.subject), x509.Name(subject), key, x509.random_serial_number(), now, now + timedelta(days=7)
    )
    for extension in model._extensions:
        match extension.value:
            case x509.SubjectAlternativeName():
                if names:
                    built = built.add_extension(x509.SubjectAlternativeName(names), critical=not common)
            case x509.ExtendedKeyUsage():
                built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            case value:
                built = built.add_extension(value, critical=extension.critical)
    return built


def certificates(pem: bytes) -> list[x509.Certificate]:
    """Those in a PEM text, in order."""
    return x509.load_pem_x509_certificates(pem)
