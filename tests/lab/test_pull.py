"""Every kind of client pulls from every registry, under the real names and with no configuration but DNS and the CA."""

import ssl

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, LOGIN, Clients
from tests.lab.net import Network
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

pytestmark = pytest.mark.lab

CDNS = [each.cdn for each in world.REGISTRIES if each.cdn]


@pytest.mark.parametrize("registry", world.REGISTRIES, ids=lambda each: str(each.name))
@pytest.mark.parametrize("kind", KINDS)
def test_first_pull_is_cold_and_second_is_free(
    kind: str, registry: world.Registry, builder: Clients, upstream: Upstream
) -> None:
    """Rules 1, 2 and 4: right bytes, one upstream transfer per blob, and none at all for the second pull."""
    sizes = (*images.USUAL, 20 * images.MIB) if registry is world.QUAY else images.SMALL
    image = images.build(sizes, images.STYLES[registry.name])
    reference = upstream.publish(registry, image).image
    login = LOGIN if registry.auth == "basic" else None
    client = builder[kind]

    with upstream.watched() as cold:
        client.pull(reference, login)
    assert client.held(reference).is_same_as(image)
    assert sorted(cold.blob_gets()) == sorted(blob.digest for blob in image.blobs)

    client.forget()
    with upstream.watched() as warm:
        client.pull(reference, login)
    assert client.held(reference).is_same_as(image)
    assert warm.blob_gets() == []
    assert warm.manifest_gets() == []
    assert warm.to(*CDNS) == []
    client.forget()


def test_credentials_do_not_follow_redirects(builder: Clients, upstream: Upstream) -> None:
    """Rule 2: `Authorization` never goes to another host."""
    for registry in world.REGISTRIES:
        if registry.cdn is not None:
            with upstream.watched() as seen:
                builder["skopeo"].pull(upstream.publish(registry, images.build()).image, LOGIN)
            assert seen.to(registry.cdn), registry.name
            assert not any(each.authorization for each in seen.to(registry.cdn)), registry.name


def test_names_resolve_to_the_cache(network: Network, builder: Clients) -> None:
    """Rule 11: registries and token services lead to the cache, over IPv4 and with no IPv6 answer to leak around it."""
    tokens = {each.auth.host for each in world.REGISTRIES if isinstance(each.auth, world.TokenService)}
    for name in {host for host, registry in world.hosts() if registry} | tokens:
        assert network.builder.lookup(name) == {world.CACHE}, name


def test_certificates_are_ours_and_no_other_would_do(network: Network, wire: Wire, upstream: Upstream) -> None:
    """Clients trust Entrepot's CA alone, so a pull that succeeds was intercepted."""
    strangers = Wire(network.laptop, upstream.ca_file)
    for name in ("quay.io", "registry-1.docker.io", "auth.docker.io", "gitlab.com", "registry.example.com"):
        with wire.tls(name) as tls:
            assert ("DNS", name) in tls.getpeercert()["subjectAltName"]  # type: ignore[index]
        with pytest.raises(ssl.SSLCertVerificationError):
            strangers.tls(name).close()


def test_answers_carry_what_clients_need(wire: Wire, upstream: Upstream) -> None:
    """Rule 1: HEAD and GET say the same, cold and warm, of manifests and of blobs."""
    image = images.build()
    repository = upstream.publish(world.GHCR, image)
    headers = {**wire.authorization(repository), "Accept": image.index_type}
    assert image.index is not None
    wanted = (
        ("manifests/1", image.index, image.index_type),
        (f"manifests/{image.digest}", image.index, image.index_type),
        (f"blobs/{image.config.digest}", image.config, "application/octet-stream"),
    )
    for _ in range(2):
        for target, blob, media_type in wanted:
            got = wire.ask("ghcr.io", repository.target(target), headers)
            head = wire.ask("ghcr.io", repository.target(target), headers, method="HEAD")
            assert (got.status, got.body, head.status, head.body) == (200, blob.data, 200, b"")
            for reply in (got, head):
                assert reply.headers["Content-Type"] == media_type
                assert reply.headers["Docker-Content-Digest"] == blob.digest
                assert reply.headers["Content-Length"] == str(len(blob.data))
                assert reply.headers["ETag"] == f'"{blob.digest}"'
                assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
                assert "Content-Encoding" not in reply.headers


def test_the_upstream_is_told_nothing_about_clients(builder: Clients, upstream: Upstream) -> None:
    """Rule 11: no address of the network inside reaches a registry."""
    with upstream.watched() as seen:
        builder["podman"].pull(upstream.publish(world.MICROSOFT, images.build()).image)
    assert seen
    for request in seen:
        assert world.BUILDER not in " ".join(request.headers.values())
