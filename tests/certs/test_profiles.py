from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from tests.certs.forge import NOW, SUBTREES

from entrepot.certs import profiles

KEY = profiles.new_key()
LIMITS = profiles.constraints(SUBTREES)
ROOT = profiles.root(KEY.public_key(), LIMITS, NOW, NOW + timedelta(days=100)).sign(KEY, SHA256())
ISSUER = profiles.issuer(KEY.public_key(), 3, ROOT, LIMITS, NOW).sign(KEY, SHA256())


def leaf(name: str) -> x509.Certificate:
    return profiles.leaf(name, KEY.public_key(), ISSUER, NOW, NOW + timedelta(days=7)).sign(KEY, SHA256())


@pytest.mark.parametrize(("certificate", "path_length"), [(ROOT, 1), (ISSUER, 0)])
def test_rule_12_a_ca_certificate_is_constrained_and_good_for_nothing_else(
    certificate: x509.Certificate, path_length: int
) -> None:
    extensions = certificate.extensions
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, path_length)
    limits = extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value == LIMITS
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.not_valid_before_utc == NOW - profiles.BACKDATE
    assert certificate.not_valid_after_utc == NOW + timedelta(days=100)


def test_rule_12_every_kind_of_name_is_constrained() -> None:
    assert LIMITS.permitted_subtrees is not None
    assert LIMITS.excluded_subtrees is not None
    permitted = {(type(base).__name__, str(base.value)) for base in LIMITS.permitted_subtrees}
    excluded = {(type(base).__name__, str(base.value)) for base in LIMITS.excluded_subtrees}
    nowhere = {("RFC822Name", "invalid"), ("UniformResourceIdentifier", "invalid")}
    assert permitted == {*(("DNSName", name) for name in SUBTREES), *nowhere}
    assert excluded == {("IPAddress", "0.0.0.0/0"), ("IPAddress", "::/0"), *nowhere}


def test_certificates_point_to_their_issuer() -> None:
    def authority_id(certificate: x509.Certificate) -> bytes | None:
        return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier

    assert authority_id(ISSUER) == profiles.key_id(KEY.public_key())
    assert ISSUER.issuer == ROOT.subject
    assert leaf("quay.io").issuer == ISSUER.subject
    assert ROOT.subject != ISSUER.subject


def test_a_leaf_serves_one_name() -> None:
    extensions = leaf("quay.io").extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName("quay.io")]
    assert not names.critical
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign) == (True, False)


def test_a_name_too_long_for_the_subject_is_in_the_alternative_name_only() -> None:
    name = ".".join(["a" * 60, "quay.io"])
    certificate = leaf(name)
    assert not certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, list(names.value)) == (True, [x509.DNSName(name)])


def test_permitted_reads_the_constraints_back() -> None:
    assert profiles.permitted(ROOT) == SUBTREES


def test_permitted_is_none_for_a_ca_without_binding_constraints() -> None:
    key = KEY.public_key()
    bare = x509.CertificateBuilder().subject_name(ROOT.subject).issuer_name(ROOT.subject).public_key(key)
    bare = bare.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    addresses_only = x509.NameConstraints(None, LIMITS.excluded_subtrees)
    assert profiles.permitted(bare.sign(KEY, SHA256())) is None
    assert profiles.permitted(bare.add_extension(LIMITS, critical=False).sign(KEY, SHA256())) is None
    assert profiles.permitted(bare.add_extension(addresses_only, critical=True).sign(KEY, SHA256())) is None
    assert profiles.permitted(bare.add_extension(LIMITS, critical=True).sign(KEY, SHA256())) == SUBTREES


def test_the_short_id_is_in_the_subject() -> None:
    subject = ROOT.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert subject == f"Entrepot CA {profiles.short_id(ROOT)}"
    extension = ROOT.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    assert isinstance(extension.value, x509.SubjectKeyIdentifier)
    assert extension.value.digest.hex().startswith(profiles.short_id(ROOT))


def test_keys_and_certificates_are_pem() -> None:
    assert profiles.key_pem(KEY).startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert x509.load_pem_x509_certificate(profiles.pem(ROOT)) == ROOT
