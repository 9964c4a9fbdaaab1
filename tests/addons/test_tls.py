"""The handshake: whose names are answered, with what certificate."""

import asyncio
import ssl

import pytest
from cryptography import x509
from tests.addons.conftest import NAME, Box

from entrepot.certs.authority import Authority

UNRECOGNIZED_NAME = 112  # RFC 6066 section 3, as OpenSSL tells it


async def test_the_certificate_is_for_the_name_and_not_the_authority_s_key(box: Box) -> None:
    client = await box.connect()
    der = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    leaf = x509.load_der_x509_certificate(der)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    authority = Authority.load(box.worker.settings.certs)
    assert leaf.public_key() != authority.certificate.public_key()


async def test_without_our_authority_nobody_gets_through(box: Box) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await box.connect(context=ssl.create_default_context())


@pytest.mark.parametrize("name", ["example.com", "registry.test.example.com", "evilregistry.test"])
async def test_other_names_are_refused_in_the_handshake(box: Box, name: str) -> None:
    with pytest.raises(ssl.SSLError) as refusal:
        await box.connect(name)
    assert refusal.value.reason == "TLSV1_UNRECOGNIZED_NAME"


async def test_without_a_name_too(box: Box) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        await box.connect("127.0.0.1", careless)  # an address is no name: no SNI is sent


async def test_the_name_may_be_in_capitals(box: Box) -> None:
    client = await box.connect(NAME.upper())
    assert (await client.get("/v2/")).status == 200


@pytest.mark.parametrize(
    ("offers", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)]
)
async def test_http_1_is_what_we_speak(box: Box, offers: list[str], chosen: str | None) -> None:
    if offers:
        box.trust.set_alpn_protocols(offers)
    client = await box.connect()
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
    assert (await client.get("/v2/")).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions(box: Box, version: ssl.TLSVersion) -> None:
    box.trust.minimum_version = box.trust.maximum_version = version
    client = await box.connect()
    assert (await client.get("/v2/")).status == 200


async def test_what_is_not_tls_is_dropped(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(b"GET /v2/ HTTP/1.1\r\nHost: registry.test\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
