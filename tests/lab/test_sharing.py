"""Bytes are shared by digest: between clients, registries, and requests that come at the same moment (rule 2)."""

from functools import partial

import pytest
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import in_parallel
from tests.lab.product import Entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Wire

pytestmark = pytest.mark.lab

HERD = 6
WORKER_MEMORY = 150 * images.MIB
"""The budget, whatever the size of blobs and the number of clients."""


@pytest.mark.parametrize(
    ("first", "second"),
    [("docker", "containerd"), ("containerd", "podman"), ("podman", "skopeo"), ("skopeo", "buildah")],
)
def test_another_kind_of_client_finds_everything(
    first: str, second: str, builder: Clients, laptop: Clients, upstream: Upstream
) -> None:
    image = images.build(images.USUAL)
    reference = upstream.publish(world.DOCKER_HUB, image).image
    builder[first].pull(reference)
    with upstream.watched() as seen:
        laptop[second].pull(reference)
    assert laptop[second].held(reference).is_same_as(image)
    assert seen.blob_gets() == []
    builder[first].forget()
    laptop[second].forget()


def test_a_layer_under_two_registries_is_fetched_once(builder: Clients, upstream: Upstream) -> None:
    shared = images.layer(2 * images.MIB)
    quay = images.build([shared, images.KIB], "oci")
    ghcr = images.build([shared, images.KIB], "oci")
    with upstream.watched() as seen:
        for registry, image in ((world.QUAY, quay), (world.GHCR, ghcr)):
            reference = upstream.publish(registry, image).image
            builder["skopeo"].pull(reference)
            assert builder["skopeo"].held(reference).is_same_as(image)
    assert seen.blob_gets().count(shared.blob.digest) == 1
    assert len(seen.blob_gets()) == len({*quay.blobs, *ghcr.blobs})


def test_herd_on_a_cold_blob(wire: Wire, entrepot: Entrepot, upstream: Upstream) -> None:
    """Several clients ask for one big blob at the same moment: right bytes for all, one upstream GET."""
    image = images.build([128 * images.MIB], "oci")
    (blob,) = (layer.blob for layer in image.layers)
    repository = upstream.publish(world.QUAY, image)
    headers = wire.authorization(repository)

    def download() -> tuple[int, int, str]:
        one = Download(wire, "quay.io", repository.target(f"blobs/{blob.digest}"), headers)
        one.read()
        return one.status, one.received, one.digest

    with upstream.watched() as seen:
        results = in_parallel([download] * HERD)
    assert results == [(200, len(blob.data), blob.digest)] * HERD
    assert seen.blob_gets() == [blob.digest]
    assert [each.method for each in seen.to("cdn01.quay.io")] == ["GET"]
    assert entrepot.peak_memory() < WORKER_MEMORY


def test_herd_of_pulls(builder: Clients, laptop: Clients, upstream: Upstream) -> None:
    """Different clients on two hosts pull one new image together: each blob is fetched once."""
    image = images.build(images.USUAL)
    reference = upstream.publish(world.GITLAB, image).image
    hosts = (builder["podman"], builder["skopeo"], laptop["skopeo"], laptop["containerd"])
    with upstream.watched() as seen:
        in_parallel([partial(client.pull, reference) for client in hosts])
    assert sorted(seen.blob_gets()) == sorted(blob.digest for blob in image.blobs)
    for client in hosts:
        assert client.held(reference).is_same_as(image)
        client.forget()
