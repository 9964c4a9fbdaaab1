"""A push to an intercepted name goes upstream, streamed, and can be pulled back (rule 9)."""

from pathlib import Path

import pytest
from tests.lab import images, world
from tests.lab.clients import LOGIN, Clients, Docker, Skopeo
from tests.lab.net import HOME, CommandFailed, Machine, wait_for
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

pytestmark = pytest.mark.lab

LOADED_AS = "localhost/lab/pushed:1"


def saved(machine: Machine, image: images.Image) -> str:
    """Path, in the machine, of a docker-archive of the image."""
    path = HOME / "tmp/pushed.tar"
    machine.path(path).write_bytes(images.docker_archive(image, LOADED_AS))
    return str(path)


@pytest.mark.parametrize("registry", world.REGISTRIES, ids=lambda each: str(each.name))
@pytest.mark.parametrize("kind", ["docker", "skopeo"])
def test_push_and_pull_back(
    kind: str, registry: world.Registry, builder: Clients, laptop: Clients, upstream: Upstream
) -> None:
    image = images.build(style="docker")
    repository = world.new_repository(registry)
    client = builder[kind]
    assert isinstance(client, Docker | Skopeo)
    archive = saved(client.machine, image)
    push_into(client, archive, repository.image)
    assert upstream.tag(repository) is not None
    client.forget()

    puller = laptop["podman"]
    puller.pull(repository.image, LOGIN)
    held = puller.held(repository.image)
    assert (held.config, held.layers) == (image.config.digest, image.diff_ids)
    puller.forget()


def push_into(client: Docker | Skopeo, archive: str, reference: str) -> None:
    if isinstance(client, Docker):
        client.push(archive, LOADED_AS, reference, LOGIN)
    else:
        client.push(archive, reference, LOGIN)


def test_push_of_a_big_layer(builder: Clients, upstream: Upstream) -> None:
    image = images.build([64 * images.MIB, images.KIB], "docker")
    client = builder["skopeo"]
    assert isinstance(client, Skopeo)
    reference = world.new_repository(world.GHCR).image
    client.push(saved(client.machine, image), reference, LOGIN)
    builder["podman"].pull(reference)
    assert builder["podman"].held(reference).layers == image.diff_ids
    builder["podman"].forget()


def test_push_without_the_right_is_refused(builder: Clients, upstream: Upstream) -> None:
    image = images.build(style="docker")
    client = builder["skopeo"]
    assert isinstance(client, Skopeo)
    archive = saved(client.machine, image)
    for registry, login in ((world.QUAY, None), (world.BASIC, None), (world.BASIC, ("user", "wrong"))):
        repository = world.new_repository(registry)
        with pytest.raises(CommandFailed):
            client.push(archive, repository.image, login)
        assert upstream.tag(repository) is None


def test_uploads_are_streamed(wire: Wire, upstream: Upstream) -> None:
    """The first half of a layer is on the registry's disk before the client has sent the second."""
    blob = images.layer(64 * images.MIB).blob
    repository = world.new_repository(world.BASIC)
    host, headers = repository.host, wire.authorization(repository, login=LOGIN)
    started = wire.ask(host, repository.target("blobs/uploads/"), headers, method="POST", body=b"")
    assert started.status == 202
    location = started.headers["Location"].removeprefix(f"https://{host}")
    uploads = upstream.storage(world.BASIC) / "docker/registry/v2/repositories" / repository.path / "_uploads"
    half = len(blob.data) // 2

    connection = wire.open(host)
    try:
        connection.putrequest("PUT", f"{location}&digest={blob.digest}")
        for key, value in (*headers.items(), ("Content-Length", str(len(blob.data)))):
            connection.putheader(key, value)
        connection.endheaders(blob.data[:half])
        wait_for(lambda: written(uploads) > half // 2, "first half of the upload at the registry")
        connection.send(blob.data[half:])
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, b"")
        assert answer.headers["Docker-Content-Digest"] == blob.digest
    finally:
        connection.close()
    assert images.read_blob(upstream.storage(world.BASIC), blob.digest) == blob.data


def written(uploads: Path) -> int:
    return sum(each.stat().st_size for each in uploads.glob("*/data"))


def test_a_moved_tag_is_seen_after_our_own_push(builder: Clients, laptop: Clients, upstream: Upstream) -> None:
    """Rules 4 and 9: what a client pushed is what the next client gets, whatever was held under the tag."""
    old, new = images.build(style="docker"), images.build(style="docker")
    reference = upstream.publish(world.QUAY, old).image
    laptop["skopeo"].pull(reference)
    client = builder["skopeo"]
    assert isinstance(client, Skopeo)
    client.push(saved(client.machine, new), reference, LOGIN)
    laptop["skopeo"].pull(reference)
    assert laptop["skopeo"].held(reference).config == new.config.digest
