"""One upstream transfer per blob, whatever happens to it or to those who wait for it (rule 2)."""

import pytest
from tests.lab import images, world
from tests.lab.clients import KINDS, Clients
from tests.lab.net import wait_for
from tests.lab.upstream import Upstream
from tests.lab.wire import Download, Wire

pytestmark = pytest.mark.lab

SIZE = 4 * images.MIB


def published(upstream: Upstream, size: int = SIZE) -> tuple[world.Repository, images.Blob]:
    image = images.build([size], "oci")
    return upstream.publish(world.QUAY, image), image.layers[0].blob


def test_a_client_that_leaves_does_not_end_the_transfer(wire: Wire, upstream: Upstream) -> None:
    repository, blob = published(upstream)
    headers, target = wire.authorization(repository), repository.target(f"blobs/{blob.digest}")
    with upstream.watched() as seen:
        with upstream.fault(host="cdn01.quay.io", pause_after=SIZE // 2):
            leaver = Download(wire, repository.host, target, headers)
            leaver.read(SIZE // 4)
            leaver.close()
        follower = Download(wire, repository.host, target, headers)
        follower.read()
    assert (follower.status, follower.digest) == (200, blob.digest)
    assert [(each.method, each.sent) for each in seen.to("cdn01.quay.io")] == [("GET", len(blob.data))]


def test_followers_get_what_is_there_at_once(wire: Wire, upstream: Upstream) -> None:
    """Who comes while a transfer is under way does not wait for its end."""
    repository, blob = published(upstream)
    headers, target = wire.authorization(repository), repository.target(f"blobs/{blob.digest}")
    with upstream.watched() as seen:
        with upstream.fault(host="cdn01.quay.io", pause_after=SIZE // 2):
            downloads = [Download(wire, repository.host, target, headers) for _ in range(3)]
            for each in downloads:
                each.read(SIZE // 4)
        for each in downloads:
            each.read()
            assert (each.status, each.received, each.digest) == (200, len(blob.data), blob.digest)
    assert seen.blob_gets() == [blob.digest]


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_that_breaks_off_is_resumed(kind: str, builder: Clients, upstream: Upstream) -> None:
    """No client notices, and no byte is fetched twice; `podman` and `skopeo` would fail at the first cut."""
    image = images.build([SIZE, images.KIB])
    repository = upstream.publish(world.GHCR, image)
    cut = {"host": world.GHCR.cdn, "path": f".*{image.layers[0].blob.digest}", "cut_after": images.MIB, "count": 3}
    with upstream.fault(**cut), upstream.watched() as seen:
        builder[kind].pull(repository.image)
    assert builder[kind].held(repository.image).is_same_as(image)
    builder[kind].forget()
    parts = [each for each in seen.to(str(world.GHCR.cdn)) if each.path.endswith(image.layers[0].blob.digest)]
    assert [each.sent for each in parts[:3]] == [images.MIB] * 3
    assert sum(each.sent for each in parts) <= len(image.layers[0].blob.data) + 3 * 64 * images.KIB
    assert all("range" in each.headers for each in parts[1:])


def test_a_range_of_a_cold_blob_does_not_wait(wire: Wire, upstream: Upstream) -> None:
    """It is answered from upstream while the whole is still being filled; and from the store when it is there."""
    size = 4 * SIZE  # far behind what has come: a range near it may well wait for it
    repository, blob = published(upstream, size)
    headers, target = wire.authorization(repository), repository.target(f"blobs/{blob.digest}")
    start, stop = size - 1000, size - 500
    part = {**headers, "Range": f"bytes={start}-{stop - 1}"}

    def check() -> None:
        reply = wire.ask(repository.host, target, part)
        assert (reply.status, reply.body) == (206, blob.data[start:stop])
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(blob.data)}"
        assert reply.headers["Docker-Content-Digest"] == blob.digest

    with upstream.fault(host="cdn01.quay.io", pause_after=SIZE // 2):
        filling = Download(wire, repository.host, target, headers)
        filling.read(SIZE // 4)
        check()
    filling.read()
    assert filling.digest == blob.digest
    with upstream.watched() as seen:
        check()
    assert seen.blob_gets() == []


def test_a_range_alone_fills_the_whole(wire: Wire, upstream: Upstream) -> None:
    repository, blob = published(upstream)
    headers, target = wire.authorization(repository), repository.target(f"blobs/{blob.digest}")
    part = wire.ask(repository.host, target, {**headers, "Range": "bytes=-100"})
    assert (part.status, part.body) == (206, blob.data[-100:])

    def whole_is_free() -> bool:
        with upstream.watched() as seen:
            reply = wire.ask(repository.host, target, headers)
            assert (reply.status, reply.body) == (200, blob.data)
        return seen.blob_gets() == []

    wait_for(whole_is_free, "the blob in the store")
