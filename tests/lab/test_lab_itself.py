"""The lab works without Entrepot: every client pulls from every registry directly, and what must fail does fail.

If these fail, the verdict of the others means nothing.
"""

import http.client
from functools import partial

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, LOGIN, Clients
from tests.lab.net import CommandFailed, Network, in_parallel
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Wire

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_pulls_from_every_registry(kind: str, direct: Clients, upstream: Upstream) -> None:
    client = direct[kind]
    for registry in world.REGISTRIES:
        image = images.build((10_000, 50_000), images.STYLES[registry.name])
        reference = upstream.publish(registry, image).image
        with upstream.watched() as seen:
            client.pull(reference, LOGIN if registry.auth == "basic" else None)
        assert client.held(reference).is_same_as(image)
        assert {blob.digest for blob in image.blobs} == set(seen.blob_gets())
    client.forget()


def test_a_forgotten_image_is_fetched_again(direct: Clients, upstream: Upstream) -> None:
    image = images.build()
    reference = upstream.publish(world.QUAY, image).image
    for kind in KINDS:
        client = direct[kind]
        for _ in range(2):
            with upstream.watched() as seen:
                client.pull(reference)
            assert sorted(seen.blob_gets()) == sorted(blob.digest for blob in image.blobs), kind
            client.forget()


@pytest.mark.parametrize("registry", [world.DOCKER_HUB, world.BASIC], ids=lambda each: str(each.name))
@pytest.mark.parametrize("login", [None, ("user", "wrong")], ids=["anonymous", "wrong"])
def test_private_repositories_are_refused(
    registry: world.Registry, login: tuple[str, str] | None, direct: Clients, upstream: Upstream
) -> None:
    image = images.build()
    reference = upstream.publish(registry, image, private=True).image
    with pytest.raises(CommandFailed), upstream.watched() as seen:
        direct["skopeo"].pull(reference, login)
    assert seen.blob_gets() == []
    direct["skopeo"].pull(reference, LOGIN)
    assert direct["skopeo"].held(reference).is_same_as(image)
    direct["skopeo"].forget()


def test_faults_happen_and_end(direct_wire: Wire, upstream: Upstream) -> None:
    """What the other tests rely on when they ask for trouble."""
    image = images.build([images.MIB], "oci")
    repository = upstream.publish(world.MICROSOFT, image)
    (layer,) = image.layers
    host, target = repository.host, repository.target(f"blobs/{layer.blob.digest}")
    whole = (200, layer.blob.data)

    with upstream.fault(host=host, method="GET", status=503, headers={"Retry-After": "1"}, count=1):
        reply = direct_wire.ask(host, target)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        reply = direct_wire.ask(host, target)
        assert (reply.status, reply.body) == whole

    with upstream.fault(path=".*/blobs/.*", cut_after=100_000), upstream.watched() as seen:
        with pytest.raises(http.client.IncompleteRead) as cut:
            direct_wire.ask(host, target)
        assert cut.value.partial == layer.blob.data[:100_000]
    assert [(each.status, each.sent) for each in seen] == [(0, 100_000)]

    with upstream.fault(pause_after=100_000):
        download = Download(direct_wire, host, target, {})
        download.read(100_000)
    download.read()
    assert (download.received, download.digest) == (len(layer.blob.data), layer.blob.digest)
    reply = direct_wire.ask(host, target)
    assert (reply.status, reply.body) == whole


def test_clients_behind_the_cache_cannot_reach_the_upstream(network: Network, upstream: Upstream) -> None:
    for machine, expected in ((network.direct, set(world.addresses())), (network.builder, {world.OUTSIDE})):
        tried = {name: partial(machine.answers, address, 443) for name, address in world.addresses().items()}
        answers = dict(zip(tried, in_parallel(list(tried.values())), strict=True))
        assert {name for name, answered in answers.items() if answered} == expected
